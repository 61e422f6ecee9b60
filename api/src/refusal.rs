//! What the service says when it does not do what was asked: one type from the decisions to the wire.

use ake_api_client::Problem;
use axum::{
    Json,
    http::StatusCode,
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
    /// Who the caller is could not be shown.
    Unauthorized,
    /// Something that is needed does not answer now; asking again can help.
    Unavailable,
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
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict | Self::Exhausted | Self::Deleting => StatusCode::CONFLICT,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Deposed | Self::Stale => StatusCode::PRECONDITION_FAILED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
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
}

impl Refusal {
    /// A refusal that no single field is the cause of.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None }
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
        Self {
            kind: Kind::Invalid,
            message: format!("{field}: {value}: {expectation}"),
            field: Some(field.to_owned()),
        }
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
        response.extensions_mut().insert(self);
        response
    }
}
