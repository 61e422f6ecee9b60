//! One unit's iControl REST: the one token that we have there, and requests with their repetitions.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    answers::{Verdict, verdict},
    replies,
};
use crate::driver::DriverError;

/// A token that ends within this is no longer used.
const MARGIN: Duration = Duration::from_secs(60);
/// After a refused login the device is left alone for so long: it locks users out that try too often.
const LOCKOUT: Duration = Duration::from_secs(30);

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    /// Below `/mgmt/`.
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
    /// The transaction that it is queued in.
    pub(super) transaction: Option<u64>,
    /// Whether doing it twice is the same as doing it once.
    pub(super) repeatable: bool,
}

impl<'a> Request<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: "GET", path, body: None, transaction: None, repeatable: true }
    }

    pub(super) fn post(path: &'a str, body: &'a Value) -> Self {
        Self { method: "POST", path, body: Some(body), transaction: None, repeatable: false }
    }
}

/// Why a request was not answered with what was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer came, or none in time: it may have been done.
    Lost(String),
    /// The device failed on the way: it may have been done.
    Doubtful(String),
    /// It was not done, and may be later.
    Busy(String),
    /// What is named is not there.
    Absent(String),
    /// It was not done and will not be.
    Refused(String),
    /// The answer is not understood.
    Odd(String),
}

struct Session {
    token: String,
    ends: Instant,
}

#[derive(Default)]
struct Login {
    session: Option<Session>,
    refused: Option<(Instant, String)>,
}

/// One unit.
pub(super) struct Unit {
    pub(super) url: String,
    client: Client,
    username: String,
    password: String,
    /// How long something is repeated.
    patience: Duration,
    login: Mutex<Login>,
}

impl Unit {
    pub(super) fn new(url: &str, client: Client, username: &str, password: &str, patience: Duration) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            client,
            username: username.to_owned(),
            password: password.to_owned(),
            patience,
            login: Mutex::default(),
        }
    }

    /// Asks until there is an answer that counts, or patience ends.
    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.patience;
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times()
            .build();
        let mut logged_in_anew = false;
        loop {
            let failure = match self.once(&request).await {
                Ok(body) => return Ok(body),
                // nothing was done: once more with another token, then it is something else
                Err(Told::NoToken) if !logged_in_anew => {
                    logged_in_anew = true;
                    continue;
                }
                Err(Told::NoToken) => {
                    Failure::Refused("it knows no token of ours, even a new one".to_owned())
                }
                Err(Told::Failure(failure)) => failure,
            };
            let again = match &failure {
                Failure::Busy(_) => true,
                Failure::Lost(_) | Failure::Doubtful(_) => request.repeatable,
                Failure::Absent(_) | Failure::Refused(_) | Failure::Odd(_) => false,
            };
            match waits.next() {
                Some(wait) if again && Instant::now() + wait < deadline => tokio::time::sleep(wait).await,
                _ => return Err(failure),
            }
        }
    }

    /// The same, with the answer as what it should be.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Failure> {
        let line = format!("{} {}", request.method, request.path);
        let body = self.ask(request).await?;
        serde_json::from_slice(&body).map_err(|e| Failure::Odd(format!("the answer to {line}: {e}")))
    }

    async fn once(&self, request: &Request<'_>) -> Result<Vec<u8>, Told> {
        let token = self.token().await.map_err(Told::Failure)?;
        let method = Method::from_bytes(request.method.as_bytes()).unwrap_or_default();
        let mut builder = self
            .client
            .request(method, format!("{}/mgmt/{}", self.url, request.path))
            .header("X-F5-Auth-Token", &token);
        if let Some(id) = request.transaction {
            builder = builder.header("X-F5-REST-Coordination-Id", id);
        }
        if let Some(body) = request.body {
            builder = builder.json(body);
        }
        match self.send(builder).await.map_err(Told::Failure)? {
            (Verdict::Done, body) => Ok(body),
            (Verdict::LogIn, _) => {
                let mut login = self.login.lock().await;
                // another request may have logged in meanwhile
                if login.session.as_ref().is_some_and(|session| session.token == token) {
                    login.session = None;
                }
                Err(Told::NoToken)
            }
            (other, _) => Err(Told::Failure(failure(other))),
        }
    }

    async fn send(&self, builder: reqwest::RequestBuilder) -> Result<(Verdict, Vec<u8>), Failure> {
        let response = builder.send().await.map_err(|e| Failure::Lost(chain(&e)))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|e| Failure::Lost(chain(&e)))?;
        Ok((verdict(status, &body), body.to_vec()))
    }

    /// The token that we have, or a new one; the one that it replaces is given back.
    async fn token(&self) -> Result<String, Failure> {
        let mut login = self.login.lock().await;
        if let Some(session) = &login.session
            && Instant::now() + MARGIN < session.ends
        {
            return Ok(session.token.clone());
        }
        if let Some((when, reason)) = &login.refused
            && when.elapsed() < LOCKOUT
        {
            return Err(Failure::Refused(format!("login: {reason}")));
        }
        let body = json!({
            "username": self.username, "password": self.password, "loginProviderName": "tmos",
        });
        let began = Instant::now();
        let builder = self.client.post(format!("{}/mgmt/shared/authn/login", self.url)).json(&body);
        let body = match self.send(builder).await? {
            (Verdict::Done, body) => body,
            (Verdict::Refused(reason), _) => {
                login.refused = Some((Instant::now(), reason.clone()));
                return Err(Failure::Refused(format!("login: {reason}")));
            }
            (other, _) => return Err(failure(other)),
        };
        let replies::Login { token } = serde_json::from_slice(&body)
            .map_err(|e| Failure::Odd(format!("the answer to the login: {e}")))?;
        let ends = began + Duration::from_secs(token.timeout);
        let fresh = Session { token: token.token.clone(), ends };
        login.refused = None;
        if let Some(old) = login.session.replace(fresh) {
            self.give_back(&old.token, &token.token).await;
        }
        Ok(token.token)
    }

    /// Ends our session, so that its token does not count against the user's hundred.
    pub(super) async fn log_out(&self) {
        let session = self.login.lock().await.session.take();
        if let Some(session) = session {
            self.give_back(&session.token, &session.token).await;
        }
    }

    async fn give_back(&self, old: &str, with: &str) {
        let builder = self
            .client
            .delete(format!("{}/mgmt/shared/authz/tokens/{old}", self.url))
            .header("X-F5-Auth-Token", with);
        // one that is not given back ends by itself
        if let Err(failure) = self.send(builder).await {
            tracing::debug!(device = %self.url, ?failure, "a token was not given back");
        }
    }

    /// A failure as whoever called the driver sees it.
    pub(super) fn error(&self, failure: Failure) -> DriverError {
        let device = self.url.clone();
        match failure {
            Failure::Lost(cause) => DriverError::Unreachable { device, cause },
            Failure::Doubtful(reason) | Failure::Busy(reason) => {
                DriverError::Failed { device, reason, retry_after: None }
            }
            Failure::Absent(reason) | Failure::Refused(reason) => DriverError::Refused { device, reason },
            Failure::Odd(problem) => DriverError::Protocol { device, problem },
        }
    }
}

/// What one try told.
enum Told {
    NoToken,
    Failure(Failure),
}

fn failure(verdict: Verdict) -> Failure {
    match verdict {
        Verdict::Busy(said) => Failure::Busy(said),
        Verdict::Doubtful(said) => Failure::Doubtful(said),
        Verdict::Absent(said) => Failure::Absent(said),
        Verdict::Refused(said) => Failure::Refused(said),
        Verdict::LogIn => Failure::Refused("it asks for a login where none is possible".to_owned()),
        Verdict::Done => Failure::Odd("done, but not as asked".to_owned()),
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
