//! Reads what stands in a request, with errors in our own words.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::PathRejection},
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::refusal::{Kind, Refusal};

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await.map_err(|e| {
            Refusal::new(
                Kind::Invalid,
                format!("body: {e}: expected at most {} MiB", super::LARGEST_BODY >> 20),
            )
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

/// The ETags that the asker has seen.
pub(super) fn if_none_match(headers: &HeaderMap) -> Option<String> {
    text(headers, &header::IF_NONE_MATCH)
}

/// The ETag that a write was planned from.
pub(super) fn if_match(headers: &HeaderMap) -> Option<String> {
    text(headers, &header::IF_MATCH)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|tag| tag.to_str().ok()).map(ToOwned::to_owned)
}
