//! Why load balancers are not as they should be, where it concerns everybody.

use std::time::Duration;

use super::{apply::StepError, observe::ObserveError};
use crate::cloud;

/// Why a reconciliation did not get to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Observe(Box<ObserveError>),
    #[error(transparent)]
    Apply(Box<StepError>),
    #[error("{0}")]
    Stopped(String),
    /// Somebody else has written meanwhile.
    #[error("planned from an old state")]
    Again,
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        Self::Observe(Box::new(error))
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Stale => Self::Again,
            error => Self::Apply(Box::new(error)),
        }
    }
}

impl Failure {
    /// How long whoever failed asks us to stay away.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Observe(error) => error.retry_after(),
            Self::Apply(error) => error.retry_after(),
            Self::Stopped(_) | Self::Again => None,
        }
    }

    pub(super) fn condition(&self) -> &'static str {
        match self {
            Self::Observe(error) => error.condition(),
            Self::Apply(error) => match &**error {
                StepError::OpenStack { error, .. } => cloud::condition(error),
                StepError::Api { .. } => "AkeApiError",
                StepError::Deposed => "NotLeading",
                _ => "KubernetesError",
            },
            Self::Stopped(_) => "LoadBalancerSyncStopped",
            Self::Again => "Again",
        }
    }
}
