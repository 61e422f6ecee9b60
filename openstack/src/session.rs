//! Being logged in.

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::Method;
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::{
    call::{Call, Observer},
    config::{Auth, CloudConfig},
    error::{Error, LoginError},
    login::{self, Login},
    service::Service,
    tokens,
};

/// A login that has less than this left is renewed before it is used.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// A login, renewed when it ends. A clone is the same session.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    config: CloudConfig,
    http: reqwest::Client,
    login: ArcSwap<Login>,
    /// Held by the one that logs in again; the others wait and use what it got.
    renewing: Mutex<()>,
    observer: Option<Arc<dyn Observer>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let login = self.inner.login.load();
        f.debug_struct("Session")
            .field("auth_url", &self.inner.config.auth_url)
            .field("project", &login.project_id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Logs in.
    pub async fn connect(config: &CloudConfig) -> Result<Self, Error> {
        Self::connect_observed(config, None).await
    }

    /// Logs in; `observer` is told of every call from then on.
    pub async fn connect_observed(
        config: &CloudConfig,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, Error> {
        let http = http_client(config)?;
        let login = login::log_in(&http, config).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                config: config.clone(),
                http,
                login: ArcSwap::from_pointee(login),
                renewing: Mutex::new(()),
                observer,
            }),
        })
    }

    /// A session that uses somebody's token as it is. It is never exchanged for another (Keystone refuses
    /// that for tokens of a trust), and ends when the token does. With a token of a trust,
    /// project and user stay unknown (empty).
    pub async fn from_token(
        auth_url: &str,
        token: SecretString,
        region: Option<&str>,
        ca_file: Option<&Path>,
    ) -> Result<Self, Error> {
        let mut config = CloudConfig::new(auth_url, Auth::Token { token });
        config.region = region.map(ToOwned::to_owned);
        config.ca_file = ca_file.map(ToOwned::to_owned);
        Self::connect(&config).await
    }

    /// A token that is good now.
    pub async fn token(&self) -> Result<SecretString, Error> {
        Ok(self.current().await?.token.clone())
    }

    /// The project that we act in.
    #[must_use]
    pub fn project_id(&self) -> String {
        self.inner.login.load().project_id.clone()
    }

    /// Who we are.
    #[must_use]
    pub fn user_id(&self) -> String {
        self.inner.login.load().user_id.clone()
    }

    /// All that Keystone says of our own token.
    #[must_use]
    pub fn whoami(&self) -> tokens::TokenInfo {
        self.inner.login.load().info.clone()
    }

    /// The configuration that this session was made from.
    #[must_use]
    pub fn config(&self) -> &CloudConfig {
        &self.inner.config
    }

    /// The service's base URL, with its version where paths need it, and without a slash at its end.
    pub fn endpoint(&self, service: Service) -> Result<String, Error> {
        let login = self.inner.login.load();
        if service == Service::Identity {
            // The catalog may name another way to Keystone than the one we know to work.
            return Ok(login::identity_base(&self.inner.config.auth_url));
        }
        login.endpoint(service, &self.inner.config)
    }

    /// Begins a call: `operation` is what metrics and errors call it, `path` stands behind the endpoint.
    pub fn call(
        &self,
        service: Service,
        method: Method,
        operation: &'static str,
        path: impl Into<String>,
    ) -> Call {
        Call::new(self.clone(), service, method, operation, path.into())
    }

    /// The login, renewed if it is about to end.
    pub(crate) async fn current(&self) -> Result<Arc<Login>, Error> {
        let login = self.inner.login.load_full();
        if login.lasts(RENEW_BEFORE) || matches!(self.inner.config.auth, Auth::Token { .. }) {
            return Ok(login);
        }
        self.renew(&login).await
    }

    /// Logs in again, unless somebody did since `seen` was current. Concurrent callers share one login.
    /// A new osauth login object each time: its own forced refresh does nothing while the old token has more
    /// than ten minutes left.
    pub(crate) async fn renew(&self, seen: &Arc<Login>) -> Result<Arc<Login>, Error> {
        let _one = self.inner.renewing.lock().await;
        let now = self.inner.login.load_full();
        if !Arc::ptr_eq(&now, seen) {
            return Ok(now);
        }
        if matches!(self.inner.config.auth, Auth::Token { .. }) {
            return Err(LoginError::TokenRefused {
                auth_url: self.inner.config.auth_url.clone(),
                message: "it has expired or was revoked".to_owned(),
            }
            .into());
        }
        let login = Arc::new(login::log_in(&self.inner.http, &self.inner.config).await?);
        self.inner.login.store(Arc::clone(&login));
        tracing::debug!(project = login.project_id, "logged in to OpenStack again");
        Ok(login)
    }

    /// Whether Keystone still takes the token. Asking that is allowed whatever the access rules say.
    pub(crate) async fn is_alive(&self, login: &Login) -> Result<bool, Error> {
        match login::describe(&self.inner.http, &self.inner.config, &login.token).await {
            Ok(_) => Ok(true),
            Err(error) if error.class() == crate::Class::Login => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.inner.http
    }

    pub(crate) fn observer(&self) -> Option<&dyn Observer> {
        self.inner.observer.as_deref()
    }
}

/// A client that trusts the system's roots and the configured file, with bounded waits.
fn http_client(config: &CloudConfig) -> Result<reqwest::Client, LoginError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(config.timeouts.connect)
        .timeout(config.timeouts.answer)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(&config.user_agent)
        .use_rustls_tls();
    let wrong = |value: &str, expected: String| LoginError::Configuration {
        field: "ca-file",
        value: value.to_owned(),
        expected,
    };
    if let Some(path) = &config.ca_file {
        let shown = path.display().to_string();
        let pem = std::fs::read(path).map_err(|e| wrong(&shown, format!("a readable PEM file ({e})")))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|e| wrong(&shown, format!("PEM certificates ({})", login::innermost(&e))))?;
        if certificates.is_empty() {
            return Err(wrong(&shown, "at least one PEM certificate".to_owned()));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|e| LoginError::Unavailable {
        auth_url: config.auth_url.clone(),
        message: format!("no HTTP client: {}", login::innermost(&e)),
    })
}
