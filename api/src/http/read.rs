//! Reads what stands in a request, with errors in our own words.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::LARGEST_BODY;
use crate::refusal::{Kind, Refusal};

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        media_type(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|e| {
            let expected = format!("body: {}: expected at most {} MiB", e.body_text(), LARGEST_BODY >> 20);
            let too_large = e.status() == StatusCode::PAYLOAD_TOO_LARGE;
            Refusal::new(if too_large { Kind::TooLarge } else { Kind::Invalid }, expected).of_field("body")
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| Refusal::new(Kind::Invalid, format!("body: {e}")).of_field("body"))
    }
}

/// What stands in the path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(in_our_words(parts, &rejection)),
        }
    }
}

fn in_our_words(parts: &Parts, rejection: &PathRejection) -> Refusal {
    Refusal::invalid(
        "path",
        parts.uri.path(),
        format!("expected a UUID as the cluster's id ({})", rejection.body_text()),
    )
}

/// What stands behind the `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        Query::<T>::try_from_uri(&parts.uri).map(|Query(value)| Self(value)).map_err(|e| {
            let reason = e.body_text();
            Refusal::new(Kind::Invalid, format!("query: {query}: {reason}")).of_field("query")
        })
    }
}

/// Whether the body is JSON by its own account; one that says nothing is taken for it.
fn media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(said) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let said = said.to_str().unwrap_or_default();
    let media = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(());
    }
    let message = format!("Content-Type: {said}: expected application/json");
    Err(Refusal::new(Kind::Unsupported, message).of_field("Content-Type"))
}
