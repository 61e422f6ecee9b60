//! A client of `ake-api`: one method per path, each with a deadline.

use std::{future::Future, pin::Pin, time::Duration};

use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{addresses::*, kubernetes::*, quota::Quotas, types::*};

/// Longest wait for one answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service gave an answer other than success.
    #[error("{method} {path}: {status}: {}", problem.message)]
    Refused {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// Of the answer.
        status: StatusCode,
        /// What it said.
        problem: Box<Problem>,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    #[error("ake-api at {url} does not answer: {reason}")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// Why, from the innermost cause.
        reason: String,
    },
    /// The answer was not what this version of the client reads.
    #[error("{method} {path}: cannot read the answer: {reason}")]
    Unreadable {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// What the reader said.
        reason: String,
    },
    /// The certificate bundle cannot be used.
    #[error("CA bundle of ake-api: {0}")]
    Ca(String),
    /// No token could be had.
    #[error("login: {0}")]
    Login(String),
}

impl Error {
    /// Whether the object asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// The word for programs that the service gave, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(&problem.code),
            _ => None,
        }
    }

    /// How long the service wants to be left alone, where it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether asking again later can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// Where tokens come from: a fixed one, or a session that renews its own.
pub trait TokenSource: Send + Sync {
    /// A token that is good now, or why there is none.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

impl TokenSource for String {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async { Ok(self.clone()) })
    }
}

/// A connection to one `ake-api`.
pub struct Client {
    http: reqwest::Client,
    base: String,
    tokens: Option<Box<dyn TokenSource>>,
}

impl Client {
    /// A client of the service at `base` (`https://host:port`, with or without `/v1`). `ca` is a PEM bundle
    /// that is trusted besides the system's. Without `tokens` only claims can be redeemed.
    pub fn new(base: &str, ca: Option<&[u8]>, tokens: Option<Box<dyn TokenSource>>) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(user_agent())
            .timeout(DEADLINE)
            .connect_timeout(Duration::from_secs(5))
            .use_rustls_tls();
        if let Some(pem) = ca {
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|e| Error::Ca(innermost(&e)))?;
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(|e| Error::Ca(innermost(&e)))?;
        let base = base.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { http, base, tokens })
    }

    /// The caller's project's clusters.
    pub async fn clusters(&self) -> Result<Vec<Cluster>, Error> {
        self.call(Method::GET, "/clusters".into(), None::<&()>).await
    }

    /// What the caller's project has of what it may have.
    pub async fn quota(&self) -> Result<Quotas, Error> {
        self.call(Method::GET, "/quota".into(), None::<&()>).await
    }

    /// Registers a cluster, or reads it where it is registered already.
    pub async fn put_cluster(&self, id: ClusterId, request: &ClusterRequest) -> Result<ClusterState, Error> {
        self.call(Method::PUT, format!("/clusters/{id}"), Some(request)).await
    }

    /// All that a cluster owns, with the ETag to plan from.
    pub async fn cluster(&self, id: ClusterId) -> Result<(ClusterState, String), Error> {
        let path = format!("/clusters/{id}");
        let answer = self.send(&Method::GET, &path, None::<&()>).await?;
        let tag = tag(&answer);
        Ok((read(Method::GET, path, answer).await?, tag))
    }

    /// The change feed: all that a cluster owns as soon as anything of it, member health included, is other than
    /// `seen` says; none if nothing has changed within `wait` (whole seconds, at most 25).
    pub async fn changed(
        &self,
        id: ClusterId,
        seen: &str,
        wait: Duration,
    ) -> Result<Option<(ClusterState, String)>, Error> {
        let path = format!("/clusters/{id}?wait={}", wait.as_secs());
        let request = self.request(&Method::GET, &path).await?;
        let request = request.header(header::IF_NONE_MATCH, seen).timeout(wait + DEADLINE);
        let answer = self.answered(&Method::GET, &path, request).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let tag = tag(&answer);
        Ok(Some((read(Method::GET, path, answer).await?, tag)))
    }

    /// Marks a cluster as going away: its load balancers go, nothing new is taken.
    pub async fn mark_deleting(&self, id: ClusterId) -> Result<ClusterState, Error> {
        self.call(Method::POST, format!("/clusters/{id}/deleting"), Some(&serde_json::json!({}))).await
    }

    /// Forgets a cluster and frees its addresses and ranges. One that is gone already is success.
    pub async fn delete_cluster(&self, id: ClusterId) -> Result<(), Error> {
        self.remove(format!("/clusters/{id}")).await
    }

    /// Reserves a VIP.
    pub async fn put_address(
        &self,
        id: ClusterId,
        name: &str,
        request: &AddressRequest,
    ) -> Result<Address, Error> {
        self.call(Method::PUT, format!("/clusters/{id}/addresses/{name}"), Some(request)).await
    }

    /// Frees a VIP.
    pub async fn delete_address(&self, id: ClusterId, name: &str) -> Result<(), Error> {
        self.remove(format!("/clusters/{id}/addresses/{name}")).await
    }

    /// The project's addresses: those of its clusters, and those that outlived theirs.
    pub async fn addresses(&self) -> Result<Vec<ProjectAddress>, Error> {
        self.call(Method::GET, "/addresses".into(), None::<&()>).await
    }

    /// Gives back an address that outlived its cluster.
    pub async fn release_address(&self, address: std::net::IpAddr) -> Result<(), Error> {
        self.remove(format!("/addresses/{address}")).await
    }

    /// Writes a pool.
    pub async fn put_pool(&self, id: ClusterId, name: &str, request: &PoolRequest) -> Result<Pool, Error> {
        self.call(Method::PUT, format!("/clusters/{id}/pools/{name}"), Some(request)).await
    }

    /// Removes a pool.
    pub async fn delete_pool(&self, id: ClusterId, name: &str) -> Result<(), Error> {
        self.remove(format!("/clusters/{id}/pools/{name}")).await
    }

    /// Writes one member of a pool.
    pub async fn put_member(
        &self,
        id: ClusterId,
        pool: &str,
        name: &str,
        request: &MemberRequest,
    ) -> Result<Member, Error> {
        self.call(Method::PUT, format!("/clusters/{id}/pools/{pool}/members/{name}"), Some(request)).await
    }

    /// Removes one member of a pool.
    pub async fn delete_member(&self, id: ClusterId, pool: &str, name: &str) -> Result<(), Error> {
        self.remove(format!("/clusters/{id}/pools/{pool}/members/{name}")).await
    }

    /// Writes a load balancer.
    pub async fn put_load_balancer(
        &self,
        id: ClusterId,
        name: &str,
        request: &LoadBalancerRequest,
    ) -> Result<LoadBalancer, Error> {
        self.call(Method::PUT, format!("/clusters/{id}/load-balancers/{name}"), Some(request)).await
    }

    /// Removes a load balancer.
    pub async fn delete_load_balancer(&self, id: ClusterId, name: &str) -> Result<(), Error> {
        self.remove(format!("/clusters/{id}/load-balancers/{name}")).await
    }

    /// Has address pairs put on a node's port.
    pub async fn put_node_port(
        &self,
        id: ClusterId,
        port: &str,
        request: &NodePortRequest,
    ) -> Result<NodePort, Error> {
        self.call(Method::PUT, format!("/clusters/{id}/node-ports/{port}"), Some(request)).await
    }

    /// Takes back what one asker wished for a node's port.
    pub async fn delete_node_port(&self, id: ClusterId, port: &str, asker: &str) -> Result<(), Error> {
        self.remove(format!("/clusters/{id}/node-ports/{port}?asker={asker}")).await
    }

    /// Stores a role's sealed bundle.
    pub async fn put_bundle(&self, id: ClusterId, role: &str, request: &BundleRequest) -> Result<(), Error> {
        self.send(&Method::PUT, &format!("/clusters/{id}/bundles/{role}"), Some(request)).await.map(drop)
    }

    /// Applies writes together.
    pub async fn batch(&self, id: ClusterId, batch: &Batch) -> Result<ClusterState, Error> {
        self.batch_tagged(id, batch).await.map(|(state, _)| state)
    }

    /// The same, with the ETag of the answer: who goes on from it is not told of the own writes again.
    pub async fn batch_tagged(&self, id: ClusterId, batch: &Batch) -> Result<(ClusterState, String), Error> {
        let path = format!("/clusters/{id}/batch");
        let answer = self.send(&Method::POST, &path, Some(batch)).await?;
        let tag = tag(&answer);
        Ok((read(Method::POST, path, answer).await?, tag))
    }

    /// Says which Kubernetes writes for a cluster from now on.
    pub async fn put_kubernetes(
        &self,
        id: ClusterId,
        request: &KubernetesRequest,
    ) -> Result<ClusterState, Error> {
        self.call(Method::PUT, format!("/clusters/{id}/kubernetes"), Some(request)).await
    }

    /// Redeems a claim; needs no token.
    pub async fn claim(&self, claim: &str) -> Result<Bundle, Error> {
        self.call(Method::POST, format!("/claims/{claim}"), Some(&serde_json::json!({}))).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let answer = self.send(&method, &path, body).await?;
        read(method, path, answer).await
    }

    async fn remove(&self, path: String) -> Result<(), Error> {
        match self.send(&Method::DELETE, &path, None::<&()>).await {
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<reqwest::Response, Error> {
        let mut request = self.request(method, path).await?;
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answered(method, path, request).await
    }

    async fn request(&self, method: &Method, path: &str) -> Result<reqwest::RequestBuilder, Error> {
        let request = self.http.request(method.clone(), format!("{}/v1{path}", self.base));
        Ok(match &self.tokens {
            None => request,
            Some(tokens) => request.header("X-Auth-Token", tokens.token().await.map_err(Error::Login)?),
        })
    }

    async fn answered(
        &self,
        method: &Method,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Error> {
        let answer = request
            .send()
            .await
            .map_err(|e| Error::Unreachable { url: self.base.clone(), reason: innermost(&e) })?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let retry_after =
            answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let text = answer.text().await.unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            code: status.as_str().to_owned(),
            message: if text.is_empty() { "no reason given".to_owned() } else { text },
            field: None,
        });
        Err(Error::Refused {
            method: method.clone(),
            path: path.to_owned(),
            status,
            problem: Box::new(problem),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

fn tag(answer: &reqwest::Response) -> String {
    let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
    tag.map(ToOwned::to_owned).unwrap_or_default()
}

async fn read<T: DeserializeOwned>(
    method: Method,
    path: String,
    answer: reqwest::Response,
) -> Result<T, Error> {
    answer.json().await.map_err(|e| Error::Unreadable { method, path, reason: innermost(&e) })
}

/// The running program's name and this package's version, as logs of the service show them.
fn user_agent() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_name()).and_then(|name| name.to_str());
    format!("{}/{}", name.unwrap_or("ake"), env!("CARGO_PKG_VERSION"))
}

/// The cause at the bottom, which says most ("connection refused", "certificate expired").
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
