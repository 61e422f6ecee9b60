//! What can go wrong between us and the cloud, in the cloud's own words.

use std::{fmt, time::Duration};

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The object is not there.
    Missing,
    /// It is in a state, or has a twin, that stands against the request.
    Conflict,
    /// The cloud asks for patience: too many requests, or a fault of its own.
    Busy,
    /// We may not, or the quota is used up.
    Denied,
    /// The request (or the answer) makes no sense to the other side.
    Invalid,
    /// There was no answer.
    Unreachable,
    /// The application credential lacks an access rule for the call.
    NoAccessRule,
    /// We cannot log in.
    Login,
}

impl Class {
    /// The word that stands in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Unreachable => "unreachable",
            Self::NoAccessRule => "no-access-rule",
            Self::Login => "login",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no usable token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// Keystone knows no such application credential, or it has expired, or the secret is another's.
    #[error(
        "keystone at {auth_url} refuses application credential {credential}: {message} (expected one that exists, \
         has not expired, and its secret)"
    )]
    ApplicationCredentialRefused {
        /// Where it was tried.
        auth_url: String,
        /// Its id or name.
        credential: String,
        /// What Keystone said.
        message: String,
    },
    /// Keystone takes neither this name nor this password.
    #[error("keystone at {auth_url} refuses the login of {user}: {message}")]
    PasswordRefused {
        /// Where it was tried.
        auth_url: String,
        /// The user's name.
        user: String,
        /// What Keystone said.
        message: String,
    },
    /// A token that was handed to us has expired or was revoked; there is nothing to renew it with.
    #[error("keystone at {auth_url} refuses the token that was handed over: {message}")]
    TokenRefused {
        /// Where it was tried.
        auth_url: String,
        /// What Keystone said.
        message: String,
    },
    /// Keystone did not answer, or with something other than a token.
    #[error("no login at {auth_url}: {message}")]
    Unavailable {
        /// Where it was tried.
        auth_url: String,
        /// What happened.
        message: String,
    },
    /// The configuration cannot lead to a login.
    #[error("{field} = {value:?}: expected {expected}")]
    Configuration {
        /// What is wrong.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

/// A service's no. Its text leaves the request's id out, so that the same failure reads the same each time; the
/// id is logged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{service}: {operation}: {status}: {message}")]
pub struct Refusal {
    /// The service's type.
    pub service: &'static str,
    /// What was being done.
    pub operation: String,
    /// HTTP's word for it.
    pub status: http::StatusCode,
    /// The service's name of the fault, where it gives one (Neutron: `IpAddressAlreadyAllocated`).
    pub fault: Option<String>,
    /// The cloud's own text.
    pub message: String,
    /// What to ask the operator about.
    pub request_id: Option<String>,
    /// How long the service asks us to stay away.
    pub retry_after: Option<Duration>,
}

/// Why a call to OpenStack failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The service said no.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The application credential's access rules do not name this call. OpenStack answers 401 for that.
    #[error(
        "no access rule for {method} {path} ({service}): the application credential does not allow this call"
    )]
    NoAccessRule {
        /// The service's type.
        service: &'static str,
        /// Of the call.
        method: http::Method,
        /// Of the call, with the endpoint's own prefix, as a rule has to match it.
        path: String,
    },
    /// There was no answer within the deadline.
    #[error("{service}: {operation}: {reason}")]
    Unreachable {
        /// The service's type.
        service: &'static str,
        /// What was being done.
        operation: String,
        /// The innermost cause.
        reason: String,
    },
    /// The answer was not what it should be.
    #[error("{service}: {operation}: cannot read the answer: {reason}")]
    Unreadable {
        /// The service's type.
        service: &'static str,
        /// What was being done.
        operation: String,
        /// What the reader said.
        reason: String,
    },
    /// The catalog does not know the service.
    #[error(
        "the service catalog has no {interface} endpoint of type {wanted} in {region}; it lists {listed}"
    )]
    NoEndpoint {
        /// Service types that would have served.
        wanted: String,
        /// Public, internal or admin.
        interface: String,
        /// The region asked for.
        region: String,
        /// Types that are there.
        listed: String,
    },
    /// We are not logged in and cannot be.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Something did not happen in time.
    #[error("{service}: {operation}: not within {} s: {state}", .after.as_secs())]
    TimedOut {
        /// The service's type.
        service: &'static str,
        /// What was waited for.
        operation: String,
        /// How long.
        after: Duration,
        /// What was seen last.
        state: String,
    },
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(refusal) => class_of(refusal.status.as_u16(), refusal.fault.as_deref()),
            Self::NoAccessRule { .. } => Class::NoAccessRule,
            Self::Unreachable { .. } | Self::TimedOut { .. } => Class::Unreachable,
            Self::Unreadable { .. } | Self::NoEndpoint { .. } => Class::Invalid,
            Self::Login(LoginError::Unavailable { .. }) => Class::Unreachable,
            Self::Login(_) => Class::Login,
        }
    }

    /// Whether the object asked for is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.class() == Class::Missing
    }

    /// Whether a twin or a state stands against the request.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.class() == Class::Conflict
    }

    /// Whether asking again later can help without anybody changing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.class(), Class::Busy | Class::Unreachable | Class::Conflict)
    }

    /// HTTP's word for it, if the service answered.
    #[must_use]
    pub fn status(&self) -> Option<http::StatusCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// The service's own name of the fault, where it gives one.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.fault.as_deref(),
            _ => None,
        }
    }

    /// How long the service asks us to stay away.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

/// Quotas come as 403 (Nova), 409 `OverQuota` (Neutron) and 413 (Cinder).
fn class_of(status: u16, fault: Option<&str>) -> Class {
    match status {
        404 | 410 => Class::Missing,
        409 if fault
            .is_some_and(|fault| fault.contains("Quota") || fault == "IpAddressGenerationFailure") =>
        {
            Class::Denied
        }
        409 | 412 | 423 => Class::Conflict,
        401 => Class::Login,
        402 | 403 | 413 => Class::Denied,
        408 | 429 | 500..=599 => Class::Busy,
        _ => Class::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_class() {
        for (status, fault, class) in [
            (404, None, Class::Missing),
            (409, None, Class::Conflict),
            (409, Some("OverQuota"), Class::Denied),
            (409, Some("IpAddressAlreadyAllocated"), Class::Conflict),
            (412, Some("RevisionNumberConstraintFailed"), Class::Conflict),
            (413, Some("overLimit"), Class::Denied),
            (403, None, Class::Denied),
            (400, None, Class::Invalid),
            (429, None, Class::Busy),
            (503, None, Class::Busy),
        ] {
            assert_eq!(class_of(status, fault), class, "{status} {fault:?}");
        }
    }
}
