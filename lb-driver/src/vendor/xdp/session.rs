//! Speaks to an `ake-xdp` over mutual TLS.

use std::{
    error::Error as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, header::RETRY_AFTER};
use serde::de::DeserializeOwned;

use super::{translate, wire};
use crate::{
    diff::Change,
    driver::{Answer, Capabilities, Driver, DriverError, Limits, Status},
    model::State,
};

/// Longest wait for a connection: balancers are near, and one SYN that is lost is sent again after a second.
const CONNECT: Duration = Duration::from_millis(2500);

/// How an `ake-xdp` is reached.
#[derive(Clone)]
pub struct Settings {
    /// Its API, `https://host:port`.
    pub url: String,
    /// Certificates that its own may be signed by, as PEM.
    pub ca: Vec<u8>,
    /// The certificate to show it, as PEM.
    pub certificate: Vec<u8>,
    /// The key of that certificate, as PEM.
    pub key: Vec<u8>,
    /// Deadline of one request.
    pub timeout: Duration,
}

/// The driver of one `ake-xdp`.
pub struct XdpDriver {
    url: String,
    client: Client,
    timeout: Duration,
    /// How much it takes, since it said so.
    limits: Mutex<Option<Limits>>,
}

impl XdpDriver {
    /// Takes the settings in; the device is not asked yet.
    pub fn new(settings: &Settings) -> Result<Self, DriverError> {
        let setting = |field, problem: String| DriverError::Settings { field, problem };
        let url = reqwest::Url::parse(&settings.url)
            .map_err(|e| setting("url", format!("{:?}: {e}", settings.url)))?;
        if url.scheme() != "https" {
            return Err(setting("url", format!("{:?}: expected https://host:port", settings.url)));
        }
        let authorities = Certificate::from_pem_bundle(&settings.ca)
            .map_err(|e| setting("ca", format!("expected PEM: {}", chain(&e))))?;
        if authorities.is_empty() {
            return Err(setting("ca", "expected at least one certificate as PEM".to_owned()));
        }
        let pem = [&settings.certificate[..], b"\n", &settings.key[..]].concat();
        let identity = Identity::from_pem(&pem).map_err(|e| {
            setting("certificate, key", format!("expected a certificate and its key as PEM: {}", chain(&e)))
        })?;
        let client = authorities
            .into_iter()
            .fold(Client::builder(), reqwest::ClientBuilder::add_root_certificate)
            .tls_built_in_root_certs(false)
            .use_rustls_tls()
            .identity(identity)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            // A host that is off must not hold up what is for the other one of a pair.
            .connect_timeout(CONNECT.min(settings.timeout))
            .build()
            .map_err(|e| setting("certificate, key", chain(&e)))?;
        let url = settings.url.trim_end_matches('/').to_owned();
        Ok(Self { url, client, timeout: settings.timeout, limits: Mutex::new(None) })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&wire::Document>,
    ) -> Result<Response, DriverError> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    async fn body<T: DeserializeOwned>(&self, response: Response) -> Result<T, DriverError> {
        let bytes = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&bytes).map_err(|e| DriverError::Protocol {
            device: self.url.clone(),
            problem: format!("its answer: {e}"),
        })
    }

    async fn failure(&self, response: Response, wanted: Option<&State>) -> DriverError {
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.unwrap_or_default();
        let problem = serde_json::from_slice::<wire::Problem>(&body).unwrap_or_else(|_| wire::Problem {
            message: format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(512)])),
            held: None,
        });
        let device = self.url.clone();
        match (status, problem.held, wanted) {
            (StatusCode::CONFLICT, Some(held), Some(wanted)) => {
                DriverError::Stale { device, wanted: wanted.version, held }
            }
            _ if status.is_server_error() => DriverError::Failed {
                device,
                reason: problem.message,
                retry_after: retry_after.map(Duration::from_secs),
            },
            _ => DriverError::Refused { device, reason: problem.message },
        }
    }

    fn know(&self, limits: Option<Limits>) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn known(&self) -> Option<Limits> {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an answer says of the device; how much it takes is kept.
    async fn told(&self, response: Response) -> Result<Status, DriverError> {
        if !response.status().is_success() {
            return Err(self.failure(response, None).await);
        }
        let document: wire::StatusDocument = self.body(response).await?;
        self.know(Some(translate::limits(document.limits)));
        Ok(translate::status(document))
    }

    fn unreachable(&self, error: &reqwest::Error) -> DriverError {
        DriverError::Unreachable { device: self.url.clone(), cause: chain(error) }
    }
}

impl Driver for XdpDriver {
    /// With the limits that the device told last: [`read`](Driver::read) asks for them where they are not known.
    fn capabilities(&self) -> Capabilities {
        Capabilities { limits: self.known().unwrap_or_default(), ..Capabilities::ALL }
    }

    fn read(&self) -> Answer<'_, State> {
        Box::pin(async move {
            if self.known().is_none() {
                self.status().await?;
            }
            let response = self.ask(Method::GET, wire::STATE, None).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(State::default()),
                status if status.is_success() => {
                    let document = self.body(response).await?;
                    translate::state(&document).map_err(|e| DriverError::Protocol {
                        device: self.url.clone(),
                        problem: format!("the state it holds: {e}"),
                    })
                }
                _ => Err(self.failure(response, None).await),
            }
        })
    }

    fn apply<'a>(&'a self, wanted: &'a State, _changes: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(async move {
            let response = self.ask(Method::PUT, wire::STATE, Some(&translate::document(wanted))).await?;
            if !response.status().is_success() {
                // it may have been started anew with others
                self.know(None);
                return Err(self.failure(response, Some(wanted)).await);
            }
            let applied: wire::Applied = self.body(response).await?;
            tracing::debug!(device = %self.url, version = %applied.version, changed = applied.changed, "state applied");
            Ok(())
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move { self.told(self.ask(Method::GET, wire::STATUS, None).await?).await })
    }

    fn news(&self, seen: Option<u64>, longest: Duration) -> Answer<'_, Status> {
        let Some(seen) = seen else { return self.status() };
        let wait = longest.as_secs().min(wire::LONGEST_WAIT);
        Box::pin(async move {
            let url = format!("{}{}?seen={seen}&wait={wait}", self.url, wire::STATUS);
            let deadline = Duration::from_secs(wait) + self.timeout;
            let request = self.client.get(url).timeout(deadline);
            let response = request.send().await.map_err(|e| self.unreachable(&e))?;
            self.told(response).await
        })
    }
}

/// An error with its causes: reqwest's own text stops before the one that matters.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
