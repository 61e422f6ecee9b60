//! Tokens: at most a hundred of a user, each for its time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::answer::rest_error;

/// Tokens that a user may have.
const LIMIT: usize = 100;
/// Longest life that may be asked for.
const LONGEST: u64 = 36_000;

#[derive(Debug, Clone)]
struct Token {
    began: Instant,
    timeout: u64,
}

/// The tokens of the one user that there is.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    live: BTreeMap<String, Token>,
    count: u64,
    /// Seconds that one lives unless it is told otherwise.
    timeout: u64,
}

impl Tokens {
    pub(crate) fn new(timeout: u64) -> Self {
        Self { live: BTreeMap::new(), count: 0, timeout }
    }

    fn reap(&mut self) {
        self.live.retain(|_, token| token.began.elapsed() < Duration::from_secs(token.timeout));
    }

    pub(crate) fn len(&mut self) -> usize {
        self.reap();
        self.live.len()
    }

    /// All of them end at once.
    pub(crate) fn expire(&mut self) {
        self.live.clear();
    }

    /// Sessions of others, up to the limit.
    pub(crate) fn fill(&mut self) {
        while self.live.len() < LIMIT {
            self.issue();
        }
    }

    fn issue(&mut self) -> String {
        self.count += 1;
        let name = format!("{:026X}", u128::from(self.count) * 0x9E37_79B9_7F4A_7C15);
        self.live.insert(name.clone(), Token { began: Instant::now(), timeout: self.timeout });
        name
    }

    /// POST /mgmt/shared/authn/login.
    pub(crate) fn login(&mut self, body: &Value, user: &str, password: &str) -> (StatusCode, Value) {
        self.reap();
        if body["username"] != user || body["password"] != password {
            return rest_error(401, "Authentication failed.");
        }
        if self.live.len() >= LIMIT {
            return rest_error(400, &format!("user {user} has reached maximum active login tokens"));
        }
        let name = self.issue();
        let answer = json!({
            "username": user,
            "loginReference": {"link": "https://localhost/mgmt/cm/system/authn/providers/tmos/1f44a60e-11a7-3c51-a49f-82983026b41b/login"},
            "loginProviderName": "tmos",
            "token": self.shown(&name, user),
            "generation": 0,
            "lastUpdateMicros": 0,
        });
        (StatusCode::OK, answer)
    }

    fn shown(&self, name: &str, user: &str) -> Value {
        let timeout = self.live.get(name).map_or(0, |token| token.timeout);
        let left = self
            .live
            .get(name)
            .map_or(0, |token| token.timeout.saturating_sub(token.began.elapsed().as_secs()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        json!({
            "token": name, "name": name, "userName": user, "authProviderName": "tmos",
            "user": {"link": format!("https://localhost/mgmt/shared/authz/users/{user}")},
            "timeout": timeout, "startTime": "2026-01-01T00:00:00.000-0800", "address": "127.0.0.1",
            "partition": "[All]", "generation": 1, "lastUpdateMicros": now,
            "expirationMicros": now + u128::from(left) * 1_000_000,
            "kind": "shared:authz:tokens:authtokenitemstate",
            "selfLink": format!("https://localhost/mgmt/shared/authz/tokens/{name}"),
        })
    }

    /// GET, PATCH and DELETE of /mgmt/shared/authz/tokens/NAME.
    pub(crate) fn answer(
        &mut self,
        method: &str,
        name: &str,
        body: &Value,
        user: &str,
    ) -> (StatusCode, Value) {
        let Some(token) = self.live.get_mut(name) else {
            return rest_error(404, &format!("Invalid token id {name}"));
        };
        match method {
            "PATCH" => {
                let timeout = body["timeout"].as_u64().or_else(|| body["timeout"].as_str()?.parse().ok());
                let Some(timeout) = timeout.filter(|timeout| *timeout <= LONGEST) else {
                    return rest_error(400, "The timeout value must be less than or equal to 36000.");
                };
                token.timeout = timeout;
                (StatusCode::OK, self.shown(name, user))
            }
            "DELETE" => {
                let shown = self.shown(name, user);
                self.live.remove(name);
                (StatusCode::OK, shown)
            }
            _ => (StatusCode::OK, self.shown(name, user)),
        }
    }

    /// Whether a request says who it is from; the answer to it where it does not.
    pub(crate) fn admit(
        &mut self,
        headers: &HeaderMap,
        path: &str,
        user: &str,
        password: &str,
    ) -> Result<(), (StatusCode, Value)> {
        self.reap();
        if let Some(token) = headers.get("x-f5-auth-token") {
            let known = token.to_str().is_ok_and(|token| self.live.contains_key(token));
            return if known { Ok(()) } else { Err(rest_error(401, "X-F5-Auth-Token does not exist.")) };
        }
        let Some(basic) = headers.get("authorization").and_then(|value| value.to_str().ok()) else {
            return Err(rest_error(
                401,
                &format!(
                    "Authorization failed: no user authentication header or token detected. Uri:http://localhost:8100{path}"
                ),
            ));
        };
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        if basic == expected { Ok(()) } else { Err(rest_error(401, "Authentication failed.")) }
    }
}
