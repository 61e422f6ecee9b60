//! Reads what stands in a request, with errors in our own words.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::PathRejection},
    http::{HeaderMap, header, request::Parts},
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

/// The ETag that a write was planned from.
pub(super) fn if_match(headers: &HeaderMap) -> Option<String> {
    headers.get(header::IF_MATCH).and_then(|tag| tag.to_str().ok()).map(ToOwned::to_owned)
}
