//! The cloud that the cluster is in: OpenStack, and ake-api beside it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use ake_api_client::{KubernetesId, TokenSource};
use openstack_client::{CloudConfig, Error, ExposeSecret, LoginError, Service, Session, call};

use crate::metrics;

/// Both, as the cluster acts in them.
pub struct Cloud {
    /// OpenStack.
    pub session: Session,
    /// ake-api.
    pub api: ake_api_client::Client,
    /// The cluster's identity.
    pub cluster_id: uuid::Uuid,
    /// Which Kubernetes this is: the UID of its namespace `kube-system`.
    pub kubernetes: KubernetesId,
    /// Id of the cluster's security group, if its rules are ours to keep.
    pub security_group: Option<String>,
    /// The region that nodes are labelled with.
    pub region: Option<String>,
}

/// Why the cloud cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// No login, or no endpoint.
    #[error(transparent)]
    OpenStack(#[from] Error),
    /// ake-api's client cannot be made.
    #[error(transparent)]
    Api(#[from] ake_api_client::Error),
    /// A file that cloud.conf names cannot be read.
    #[error(
        "cloud.conf: [AKE] api-ca-file = {path:?}: expected a readable file of PEM certificates: {reason}"
    )]
    CaFile {
        /// Its path.
        path: String,
        /// Why not.
        reason: String,
    },
}

impl CloudError {
    /// The word for it, as Event reason and metric label.
    #[must_use]
    pub fn condition(&self) -> &'static str {
        match self {
            Self::OpenStack(error) => condition(error),
            Self::Api(_) => "AkeApiUnusable",
            Self::CaFile { .. } => "CloudConfigInvalid",
        }
    }
}

/// The named condition that an error stands for.
#[must_use]
pub fn condition(error: &Error) -> &'static str {
    match error {
        Error::Login(LoginError::ApplicationCredentialRefused { .. }) => "CloudCredentialRefused",
        Error::Login(LoginError::Unavailable { .. }) => "CloudUnreachable",
        Error::Login(_) => "CloudLoginRefused",
        Error::NoAccessRule { .. } => "CloudAccessRuleMissing",
        Error::Unreachable { .. } | Error::TimedOut { .. } => "CloudUnreachable",
        _ => "CloudError",
    }
}

/// A session as a source of ake-api's tokens.
struct Tokens(Session);

impl TokenSource for Tokens {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async {
            match self.0.token().await {
                Ok(token) => Ok(token.expose_secret().to_owned()),
                Err(error) => {
                    metrics::condition(condition(&error));
                    Err(error.to_string())
                }
            }
        })
    }
}

impl Cloud {
    /// Logs in and finds ake-api.
    pub async fn connect(
        config: &CloudConfig,
        cluster_id: uuid::Uuid,
        kubernetes: KubernetesId,
    ) -> Result<Self, CloudError> {
        let session = Session::connect_observed(config, Some(Arc::new(Calls))).await?;
        let url = match &config.ake.api_url {
            Some(url) => url.clone(),
            None => session.endpoint(Service::Ake)?,
        };
        let ca = match config.ake.api_ca_file.as_ref().or(config.ca_file.as_ref()) {
            Some(path) => Some(std::fs::read(path).map_err(|e| CloudError::CaFile {
                path: path.display().to_string(),
                reason: e.to_string(),
            })?),
            None => None,
        };
        let api = ake_api_client::Client::new(&url, ca.as_deref(), Some(Box::new(Tokens(session.clone()))))?;
        tracing::info!(project = session.project_id(), api = url, "logged in to the cloud");
        Ok(Self {
            api,
            cluster_id,
            kubernetes,
            security_group: config.ake.security_group.clone(),
            region: config.region.clone(),
            session,
        })
    }
}

/// Counts the calls to OpenStack.
struct Calls;

impl call::Observer for Calls {
    fn called(&self, request: &call::Observation<'_>) {
        let operation = request.operation.replace(' ', "_");
        metrics::openstack_call(&operation, request.elapsed, request.class.is_some());
        let elapsed = request.elapsed.as_millis();
        let status = request.status.map_or(0, |status| status.as_u16());
        tracing::debug!(service = request.service, operation, status, elapsed, "OpenStack call");
        if request.elapsed > Duration::from_secs(10) {
            tracing::warn!(service = request.service, operation, elapsed, "OpenStack is slow");
        }
    }
}
