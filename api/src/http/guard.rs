//! What a write was planned from, as its headers say it.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};

use crate::{refusal::Refusal, service::Guards};

/// The header of the count of Lease transitions: whoever has been deposed is told so.
pub(super) const LEASE_TRANSITIONS: &str = "AKE-Lease-Transitions";

/// The guards of a write.
pub(super) struct Guarded(pub(super) Guards);

impl<S: Send + Sync> FromRequestParts<S> for Guarded {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let lease_transitions = match parts.headers.get(LEASE_TRANSITIONS) {
            None => None,
            Some(value) => {
                Some(value.to_str().ok().and_then(|value| value.trim().parse().ok()).ok_or_else(|| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    Refusal::invalid(LEASE_TRANSITIONS, value, "expected the count of a Lease's transitions")
                })?)
            }
        };
        let if_match = text(&parts.headers, &header::IF_MATCH);
        Ok(Self(Guards { if_match, lease_transitions, ..Guards::default() }))
    }
}

/// The ETags that the asker has seen.
pub(super) fn if_none_match(headers: &HeaderMap) -> Option<String> {
    text(headers, &header::IF_NONE_MATCH)
}

/// All values of a header that is a list.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}
