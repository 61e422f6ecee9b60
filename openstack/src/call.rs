//! One request: signed, repeated where that is safe, bounded in time, and told to an observer.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{Class, Error, Refusal},
    fault,
    login::innermost,
    service::Service,
    session::Session,
};
use secrecy::ExposeSecret;

/// Longest time that a call takes with all its repetitions, unless it says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// Is told of every request that went out, for metrics and tests.
pub trait Observer: Send + Sync {
    /// One request has ended.
    fn called(&self, request: &Observation<'_>);
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Observation<'a> {
    /// The service's type.
    pub service: &'static str,
    /// What was being done, as the code names it.
    pub operation: &'static str,
    /// HTTP's word.
    pub method: &'a Method,
    /// Status of the answer, if there was one.
    pub status: Option<StatusCode>,
    /// What kind of failure, if it was one.
    pub class: Option<Class>,
    /// How long this request took.
    pub elapsed: Duration,
    /// 0 for the first try.
    pub attempt: u32,
}

/// A request being put together.
#[must_use]
pub struct Call {
    session: Session,
    service: Service,
    method: Method,
    operation: &'static str,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    subject: String,
    deadline: Duration,
}

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: header::HeaderMap,
    /// Its body; `Null` if it has none.
    pub body: Value,
    service: Service,
    operation: String,
}

impl Answer {
    /// The body, or what stands in it under `key`.
    pub fn read<T: DeserializeOwned>(mut self, key: Option<&str>) -> Result<T, Error> {
        let unreadable = |reason: String| Error::Unreadable {
            service: self.service.name(),
            operation: self.operation.clone(),
            reason,
        };
        let value = match key {
            Some(key) => self
                .body
                .get_mut(key)
                .map(Value::take)
                .ok_or_else(|| unreadable(format!("it lacks {key:?}")))?,
            None => std::mem::take(&mut self.body),
        };
        serde_json::from_value(value).map_err(|e| unreadable(e.to_string()))
    }
}

impl Call {
    pub(crate) fn new(
        session: Session,
        service: Service,
        method: Method,
        operation: &'static str,
        path: String,
    ) -> Self {
        Self {
            session,
            service,
            method,
            operation,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            subject: String::new(),
            deadline: DEADLINE,
        }
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Asks for a microversion, as in `compute 2.79`, with Nova's older header where that is needed.
    pub fn microversion(self, version: &str) -> Self {
        match self.service {
            Service::Compute => self
                .header("OpenStack-API-Version", format!("compute {version}"))
                .header("X-OpenStack-Nova-API-Version", version),
            // Cinder's header names the service as it did before service types were agreed on.
            Service::BlockStorage => self.header("OpenStack-API-Version", format!("volume {version}")),
            other => self.header("OpenStack-API-Version", format!("{} {version}", other.name())),
        }
    }

    /// Sends `body` as JSON.
    pub fn json(mut self, body: &impl Serialize) -> Result<Self, Error> {
        let value = serde_json::to_value(body).map_err(|e| Error::Unreadable {
            service: self.service.name(),
            operation: self.operation.to_owned(),
            reason: format!("request: {e}"),
        })?;
        self.body = Some(value);
        Ok(self)
    }

    /// Sends `body`.
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Names the object in errors, as in `create volume pvc-1`.
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Allows the call, with all its repetitions, that much time.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn shown(&self) -> String {
        if self.subject.is_empty() {
            self.operation.to_owned()
        } else {
            format!("{} {}", self.operation, self.subject)
        }
    }

    /// Sends it and reads what stands under `key`.
    pub async fn fetch<T: DeserializeOwned>(self, key: &str) -> Result<T, Error> {
        self.send().await?.read(Some(key))
    }

    /// Sends it; an object that is not there is success.
    pub async fn send_unless_missing(self) -> Result<(), Error> {
        match self.send().await {
            Err(error) if error.is_missing() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Sends it. Repeated within the deadline: what cannot have been taken (no connection, 429), and for GET
    /// and DELETE also lost answers and faults of the service.
    pub async fn send(self) -> Result<Answer, Error> {
        let url = format!("{}{}", self.session.endpoint(self.service)?, self.path);
        let end = Instant::now() + self.deadline;
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(10))
            .with_jitter()
            .without_max_times()
            .build();
        let mut attempt = 0;
        let mut renewed = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let login = self.session.current().await?;
            let tried = self.once(&url, login.token.expose_secret(), left, attempt).await;
            let (error, again) = match tried {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            attempt += 1;
            if error.status() == Some(StatusCode::UNAUTHORIZED) {
                if self.is_for_want_of_a_rule(&login).await? {
                    return Err(self.no_access_rule(&url));
                }
                if renewed {
                    return Err(error);
                }
                self.session.renew(&login).await?;
                renewed = true;
                continue;
            }
            let pause = error.retry_after().or_else(|| pauses.next());
            match pause {
                Some(pause) if again && Instant::now() + pause < end => {
                    tracing::debug!(%error, ?pause, "asking OpenStack again");
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    // That something is not there is mostly what was asked for.
                    if let Error::Refused(refusal) = &error
                        && !error.is_missing()
                    {
                        let request = refusal.request_id.as_deref();
                        tracing::info!(method = %self.method, path = self.path, request, "{refusal}");
                    }
                    return Err(error);
                }
            }
        }
    }

    /// A 401 with a token that Keystone itself still takes means that no access rule names the call.
    async fn is_for_want_of_a_rule(&self, login: &crate::login::Login) -> Result<bool, Error> {
        Ok(login.has_access_rules() && self.session.is_alive(login).await?)
    }

    fn no_access_rule(&self, url: &str) -> Error {
        let path = reqwest::Url::parse(url).map_or_else(|_| self.path.clone(), |url| url.path().to_owned());
        Error::NoAccessRule { service: self.service.name(), method: self.method.clone(), path }
    }

    /// One try. With the error comes whether another one is safe.
    async fn once(
        &self,
        url: &str,
        token: &str,
        left: Duration,
        attempt: u32,
    ) -> Result<Answer, (Error, bool)> {
        let begun = Instant::now();
        let result = self.exchange(url, token, left).await;
        if let Some(observer) = self.session.observer() {
            let (status, class) = match &result {
                Ok(answer) => (Some(answer.status), None),
                Err((error, _)) => (error.status(), Some(error.class())),
            };
            observer.called(&Observation {
                service: self.service.name(),
                operation: self.operation,
                method: &self.method,
                status,
                class,
                elapsed: begun.elapsed(),
                attempt,
            });
        }
        result
    }

    async fn exchange(&self, url: &str, token: &str, left: Duration) -> Result<Answer, (Error, bool)> {
        let repeatable = self.method == Method::GET || self.method == Method::DELETE;
        let mut request = self
            .session
            .http()
            .request(self.method.clone(), url)
            .timeout(left.min(self.session.config().timeouts.answer))
            .header("X-Auth-Token", token)
            .header(header::ACCEPT, "application/json");
        if !self.query.is_empty() {
            request = request.query(&self.query);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        let unreachable = |e: reqwest::Error| {
            let again = repeatable || e.is_connect();
            let reason = if e.is_timeout() {
                format!("no answer from {} in time", host(url))
            } else {
                format!("no answer from {}: {}", host(url), innermost(&e))
            };
            (Error::Unreachable { service: self.service.name(), operation: self.shown(), reason }, again)
        };
        let answer = request.send().await.map_err(unreachable)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.map_err(unreachable)?;
        if !status.is_success() {
            let again = status == StatusCode::TOO_MANY_REQUESTS || (repeatable && status.is_server_error());
            return Err((self.refused(status, &headers, &text), again));
        }
        let body = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).map_err(|e| {
                let reason = e.to_string();
                (Error::Unreadable { service: self.service.name(), operation: self.shown(), reason }, false)
            })?
        };
        Ok(Answer { status, headers, body, service: self.service, operation: self.shown() })
    }

    fn refused(&self, status: StatusCode, headers: &header::HeaderMap, body: &str) -> Error {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let fault = fault::read(body);
        Error::Refused(Box::new(Refusal {
            service: self.service.name(),
            operation: self.shown(),
            status,
            fault: fault.kind,
            message: fault.message,
            request_id: text("x-openstack-request-id")
                .or_else(|| text("x-compute-request-id"))
                .map(ToOwned::to_owned),
            retry_after: text("retry-after")
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        }))
    }

    /// The same call with other query parameters.
    pub(crate) fn with_query(&self, query: Vec<(String, String)>) -> Self {
        Self {
            session: self.session.clone(),
            service: self.service,
            method: self.method.clone(),
            operation: self.operation,
            path: self.path.clone(),
            query,
            headers: self.headers.clone(),
            body: self.body.clone(),
            subject: self.subject.clone(),
            deadline: self.deadline,
        }
    }

    pub(crate) fn query_now(&self) -> Vec<(String, String)> {
        self.query.clone()
    }
}

/// Host and port of a URL, for messages.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
