//! Calls to OpenStack's APIs as the cloud's administrator, from inside a namespace of the lab.

use std::collections::HashMap;
use std::fs::File;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::{PASSWORD, auth_url};
use crate::cage::Cage;

/// Runs `work` on a thread that has entered a network namespace of the lab: its connections begin there.
pub fn in_netns<T: Send>(
    cage: &Cage,
    netns: &str,
    work: impl AsyncFnOnce() -> Result<T> + Send,
) -> Result<T> {
    let path = cage.netns_path(netns);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {netns}"))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        thread.join().map_err(|_| anyhow!("the thread in {netns} panicked"))?
    })
}

/// A login of the user `admin` in the project `admin`.
#[derive(Debug)]
pub struct Admin {
    http: reqwest::Client,
    token: String,
    bases: HashMap<String, String>,
}

impl Admin {
    /// Logs in; call it inside the lab's network.
    pub async fn login() -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": "admin", "domain": domain, "password": PASSWORD}}},
            "scope": {"project": {"name": "admin", "domain": domain}},
        }});
        let url = format!("{}/auth/tokens", auth_url());
        let answer = http.post(&url).json(&body).send().await.with_context(|| format!("POST {url}"))?;
        let token = answer
            .headers()
            .get("x-subject-token")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
            .with_context(|| format!("POST {url}: {}: no token", answer.status()))?;
        let login: Value = answer.json().await?;
        let mut bases = HashMap::new();
        for service in list(&login["token"]["catalog"]) {
            for endpoint in list(&service["endpoints"]) {
                if endpoint["interface"] == "public" {
                    bases.insert(text(&service["type"])?, text(&endpoint["url"])?);
                }
            }
        }
        bases.insert("identity".to_owned(), auth_url());
        Ok(Self { http, token, bases })
    }

    /// GET a path of a service.
    pub async fn get(&self, service: &str, path: String) -> Result<Value> {
        self.call(reqwest::Method::GET, service, &path, None).await
    }

    /// POST to a path of a service.
    pub async fn post(&self, service: &str, path: &str, body: Value) -> Result<Value> {
        self.call(reqwest::Method::POST, service, path, Some(body)).await
    }

    /// PUT a path of a service, without a body.
    pub async fn put(&self, service: &str, path: &str) -> Result<Value> {
        self.call(reqwest::Method::PUT, service, path, None).await
    }

    /// Makes a thing of Keystone and gives its id.
    pub async fn make(&self, kind: &str, fields: Value) -> Result<String> {
        let made = self.post("identity", &format!("/{kind}s"), json!({kind: fields})).await?;
        text(&made[kind]["id"])
    }

    async fn call(
        &self,
        method: reqwest::Method,
        service: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let base = self.bases.get(service).with_context(|| format!("no {service} in the catalog"))?;
        let url = format!("{base}{path}");
        let mut request = self.http.request(method.clone(), &url).header("X-Auth-Token", &self.token);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("{method} {url}"))?;
        let status = answer.status();
        let said = answer.text().await.with_context(|| format!("{method} {url}"))?;
        if !status.is_success() {
            bail!("{method} {url}: {status}: {said}");
        }
        if said.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).with_context(|| format!("{method} {url}: not JSON: {said}"))
    }
}

/// The entries of a JSON list; of anything else, none.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A JSON string.
pub fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value}: expected a string"))
}
