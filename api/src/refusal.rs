//! What the service says when it does not do what was asked: one type from the decisions to the wire.

use ake_api_client::Problem;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// The classes of a refusal. Each has a word for programs and an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object, or it belongs to somebody else.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// A value cannot be used.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// A range has nothing left.
    Exhausted,
    /// The writer is no longer the leader.
    Deposed,
    /// The writer planned from an older state.
    Stale,
    /// The cluster is going away and takes nothing new.
    Deleting,
    /// The writer speaks for another Kubernetes than the cluster's.
    OtherKubernetes,
    /// Who the caller is could not be shown.
    Unauthorized,
    /// Something that is needed does not answer now; asking again can help.
    Unavailable,
    /// The project has as much as it may have.
    Quota,
    /// The body is longer than any that is needed.
    TooLarge,
    /// The project asks too often.
    TooMany,
    /// The body is no JSON by its own account.
    Unsupported,
    /// The path does not take the method.
    Method,
}

impl Kind {
    /// The word for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::Exhausted => "exhausted",
            Self::Deposed => "deposed",
            Self::Stale => "stale",
            Self::Deleting => "deleting",
            Self::OtherKubernetes => "other-kubernetes",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::Quota => "quota",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many-requests",
            Self::Unsupported => "unsupported-media-type",
            Self::Method => "method-not-allowed",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict | Self::Exhausted | Self::Deleting | Self::OtherKubernetes => StatusCode::CONFLICT,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Forbidden | Self::Quota => StatusCode::FORBIDDEN,
            Self::Deposed | Self::Stale => StatusCode::PRECONDITION_FAILED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

/// Why something was not done, in words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its class.
    pub kind: Kind,
    /// Names the field, its value and what was expected.
    pub message: String,
    /// The field, where one is at fault.
    pub field: Option<String>,
    /// Seconds after which asking again can help.
    pub retry_after: Option<u64>,
}

/// What whoever met something that does not answer now is told to wait, in seconds.
const RETRY: u64 = 2;

impl Refusal {
    /// A refusal that no single field is the cause of.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retry_after = (kind == Kind::Unavailable).then_some(RETRY);
        Self { kind, message: message.into(), field: None, retry_after }
    }

    /// The same, to be asked again after this many seconds.
    #[must_use]
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// An object that is not there.
    pub fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotFound, format!("{what} {name}: there is none of this name"))
    }

    /// A contradiction with what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Something that is needed and does not answer now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// A value that cannot be used: `field: value: expectation`.
    pub fn invalid(field: &str, value: impl std::fmt::Display, expectation: impl std::fmt::Display) -> Self {
        Self::new(Kind::Invalid, format!("{field}: {value}: {expectation}")).of_field(field)
    }

    /// The same, said about this field.
    #[must_use]
    pub fn of_field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem {
            code: self.kind.code().to_owned(),
            message: self.message.clone(),
            field: self.field.clone(),
        };
        let mut response = (self.kind.status(), Json(problem)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
