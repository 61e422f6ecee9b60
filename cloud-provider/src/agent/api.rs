//! A few GETs to an API server, by the kubeconfig that `join` wrote. Watching is `cluster`'s.

use std::{path::Path, time::Duration};

use base64::Engine;
use serde::de::DeserializeOwned;

/// How long to wait between two tries.
const KNOCK: Duration = Duration::from_millis(500);

/// Longest wait for one answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("{path}: {reason}")]
    Kubeconfig {
        /// Of the file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server did not answer.
    #[error("{server} does not answer: {reason}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server answered something else.
    #[error("GET {path}: {status}")]
    Refused {
        /// What was asked for.
        path: String,
        /// What came back.
        status: u16,
    },
    /// The answer is not what was asked for.
    #[error("GET {path}: cannot read the answer: {reason}")]
    Unreadable {
        /// What was asked for.
        path: String,
        /// What the reader said.
        reason: String,
    },
}

/// One API server, known by its own CA alone.
pub struct ApiServer {
    http: reqwest::Client,
    server: String,
}

impl ApiServer {
    /// From a kubeconfig of ours: JSON, one cluster, one user with a certificate.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        let broken = |reason: String| Error::Kubeconfig { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| broken(error.to_string()))?;
        let config: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let plain = |pointer: &str| {
            config
                .pointer(pointer)
                .and_then(|value| value.as_str())
                .ok_or_else(|| broken(format!("no {pointer}")))
        };
        let decoded = |pointer: &str| {
            base64::engine::general_purpose::STANDARD
                .decode(plain(pointer)?)
                .map_err(|error| broken(format!("{pointer}: {error}")))
        };
        let mut pem = decoded("/users/0/user/client-certificate-data")?;
        pem.push(b'\n');
        pem.extend(decoded("/users/0/user/client-key-data")?);
        let identity = reqwest::Identity::from_pem(&pem).map_err(|error| broken(innermost(&error)))?;
        let ca = decoded("/clusters/0/cluster/certificate-authority-data")?;
        let ca = reqwest::Certificate::from_pem(&ca).map_err(|error| broken(innermost(&error)))?;
        let http = reqwest::Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(ca)
            .identity(identity)
            .timeout(DEADLINE)
            .no_proxy()
            .build()
            .map_err(|error| broken(innermost(&error)))?;
        Ok(Self { http, server: plain("/clusters/0/cluster/server")?.to_owned() })
    }

    /// Whether the server says it is ready; the reason, if not.
    pub async fn ready(&self) -> Result<(), Error> {
        self.send("/readyz").await.map(drop)
    }

    /// One object.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(path)
            .await?
            .json()
            .await
            .map_err(|error| Error::Unreadable { path: path.to_owned(), reason: innermost(&error) })
    }

    /// Waits until nodes can be read: then the API server is ready, the VIP leads to it, and a master has applied the
    /// cluster's roles, also those by which kubelets get their certificates.
    pub async fn wait(&self) {
        while let Err(error) = self.get::<serde_json::Value>("/api/v1/nodes?limit=1").await {
            tracing::debug!(%error, "nodes cannot be read yet");
            tokio::time::sleep(KNOCK).await;
        }
    }

    async fn send(&self, path: &str) -> Result<reqwest::Response, Error> {
        let answer =
            self.http.get(format!("{}{path}", self.server)).send().await.map_err(|error| {
                Error::Unreachable { server: self.server.clone(), reason: innermost(&error) }
            })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(Error::Refused { path: path.to_owned(), status: answer.status().as_u16() })
    }
}

/// The cause at the bottom, which says most.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node-agent.conf");
        std::fs::write(&path, r#"{"users":[{"user":{}}]}"#).unwrap();
        let Err(error) = ApiServer::from_kubeconfig(&path) else { panic!("used") };
        let error = error.to_string();
        assert!(error.contains("node-agent.conf") && error.contains("client-certificate-data"), "{error}");
    }
}
