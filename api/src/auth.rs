//! Who is asking: the caller's token, as Keystone describes it, remembered for a while.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use openstack_client::{SecretString, tokens::TokenInfo};
use sha2::{Digest, Sha256};

use crate::{
    cloud::Cloud,
    decide::access::{Caller, Rule},
    refusal::{Kind, Refusal},
};

/// What stands for a token: tokens themselves are never kept.
type Fingerprint = [u8; 32];

/// Looks callers up.
pub struct Authenticator {
    cloud: Arc<Cloud>,
    known: Mutex<Cache>,
    lifetime: Duration,
}

impl Authenticator {
    /// Remembers at most `entries` callers, each for `lifetime`.
    #[must_use]
    pub fn new(cloud: Arc<Cloud>, lifetime: Duration, entries: usize) -> Self {
        Self { cloud, known: Mutex::new(Cache::new(entries)), lifetime }
    }

    /// Who holds this token, where that is known.
    pub fn remembered(&self, token: &str) -> Option<Arc<Caller>> {
        self.known.lock().ok()?.get(&print(token), Instant::now())
    }

    /// Who holds this token, as Keystone says.
    pub async fn ask(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        let refused = || {
            Refusal::new(
                Kind::Unauthorized,
                "X-Auth-Token: Keystone does not take it; expected one that has not expired",
            )
        };
        let info =
            self.cloud.describe_token(&SecretString::from(token.to_owned())).await?.ok_or_else(refused)?;
        let left = info.expires_at.duration_since(jiff::Timestamp::now());
        let left = Duration::try_from(left).map_err(|_| refused())?;
        let caller = Arc::new(caller(info)?);
        if let Ok(mut known) = self.known.lock() {
            known.put(print(token), Arc::clone(&caller), Instant::now() + left.min(self.lifetime));
        }
        Ok(caller)
    }
}

fn print(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

/// Reads what Keystone says.
fn caller(info: TokenInfo) -> Result<Caller, Refusal> {
    let project = info.project.ok_or_else(|| {
        Refusal::new(
            Kind::Forbidden,
            "X-Auth-Token: it has no project; expected a token that is scoped to one",
        )
    })?;
    let (credential, rules) = match info.application_credential {
        None => (None, None),
        Some(credential) => {
            let rules = credential.access_rules.map(|rules| {
                rules
                    .into_iter()
                    .map(|r| Rule { service: r.service, method: r.method, path: r.path })
                    .collect()
            });
            (Some(credential.id), rules)
        }
    };
    Ok(Caller {
        user: info.user.id,
        project: project.id,
        roles: info.roles.into_iter().map(|role| role.name).collect(),
        credential,
        rules,
        trust: info.trust.map(|trust| trust.id),
    })
}

/// A bounded map that forgets what has expired, and then what came first.
struct Cache {
    entries: HashMap<Fingerprint, (Arc<Caller>, Instant)>,
    order: VecDeque<Fingerprint>,
    most: usize,
}

impl Cache {
    fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), most }
    }

    fn get(&self, print: &Fingerprint, now: Instant) -> Option<Arc<Caller>> {
        self.entries.get(print).filter(|(_, until)| now < *until).map(|(caller, _)| Arc::clone(caller))
    }

    fn put(&mut self, print: Fingerprint, caller: Arc<Caller>, until: Instant) {
        if self.entries.insert(print, (caller, until)).is_none() {
            self.order.push_back(print);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(extra: serde_json::Value) -> TokenInfo {
        let mut token = json!({
            "user": {"id": "u"}, "project": {"id": "p"}, "roles": [{"name": "member"}],
            "expires_at": "2030-01-01T00:00:00.000000Z"
        });
        token.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(token).unwrap()
    }

    fn anybody() -> Arc<Caller> {
        Arc::new(caller(info(json!({}))).unwrap())
    }

    #[test]
    fn a_token_is_read_as_keystone_writes_it() {
        let read = caller(info(json!({
            "OS-TRUST:trust": {"id": "t"},
            "application_credential": {"id": "c", "access_rules": [{"service": "ake", "method": "GET", "path": "/**"}]}
        })))
        .unwrap();
        assert_eq!((read.trust.as_deref(), read.credential.as_deref()), (Some("t"), Some("c")));
        assert_eq!(read.rules.unwrap().len(), 1);
        assert!(caller(info(json!({"application_credential": {"id": "c"}}))).unwrap().rules.is_none());
    }

    #[test]
    fn a_token_without_a_project_is_refused() {
        let refusal = caller(info(json!({"project": null}))).unwrap_err();
        assert_eq!(refusal.kind, Kind::Forbidden);
        assert!(refusal.message.contains("project"), "{refusal}");
    }

    #[test]
    fn the_cache_is_bounded_and_forgets() {
        let mut cache = Cache::new(2);
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        for n in 0..5 {
            cache.put([n; 32], anybody(), later);
        }
        assert_eq!((cache.entries.len(), cache.order.len()), (2, 2));
        assert!(cache.get(&[4; 32], now).is_some());
        assert!(cache.get(&[0; 32], now).is_none());
        assert!(cache.get(&[4; 32], later).is_none());
        cache.put([4; 32], anybody(), later);
        assert_eq!(cache.order.len(), 2);
    }
}
