//! Stands in for Keystone, Nova and Neutron, as far as `ake-api` and the controller manager ask them of servers and
//! ports: logins, lists with their filters, ports with revisions. It answers every call after the same time and counts
//! what is read and written. It has no pages, policies or quotas. That the programs get on with the real ones is what
//! the scenarios on the lab check; this one is there because a thousand servers do not fit on one machine.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Where it listens.
pub(super) const URL: &str = "http://127.0.0.1:5000";
/// The project of the cluster.
pub(super) const PROJECT: &str = "demo";
/// The network of nodes.
pub(super) const NETWORK: &str = "nodes";
/// The network of VIPs.
pub(super) const VIPS: &str = "vips";
/// Of a call; a busy Neutron takes several times as long.
const DELAY: Duration = Duration::from_millis(10);
/// The token of the service user.
const SERVICE: &str = "ake:service:service";
/// The token of the cluster's application credential; whoever has it may use it at `ake-api`.
pub(super) const TENANT: &str = "tenant:demo:member";

/// What there is.
#[derive(Default)]
pub(super) struct Cloud {
    inner: Mutex<Inner>,
    reads: AtomicU64,
    writes: AtomicU64,
}

#[derive(Default)]
struct Inner {
    servers: BTreeMap<String, Value>,
    ports: BTreeMap<String, Value>,
    /// Ids of ports by network and address.
    addresses: HashMap<(String, String), String>,
}

impl Cloud {
    /// Listens, on a task of its own.
    pub(super) async fn start() -> Result<Arc<Self>> {
        let cloud = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind(URL.trim_start_matches("http://")).await?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&cloud));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(cloud)
    }

    /// How many calls read, and how many wrote, logins apart.
    #[must_use]
    pub(super) fn calls(&self) -> (u64, u64) {
        (self.reads.load(Ordering::SeqCst), self.writes.load(Ordering::SeqCst))
    }

    /// A new server with its port; they have the same UUID but for its last part.
    pub(super) fn add(&self, name: &str, number: u32, address: Ipv4Addr, mac: &str) {
        let (server, port) = (server_id(number), port_id(number));
        let port = json!({
            "id": port, "name": name, "network_id": NETWORK, "project_id": PROJECT, "mac_address": mac,
            "fixed_ips": [{"subnet_id": "s", "ip_address": address}], "allowed_address_pairs": [], "device_id": server,
            "device_owner": "compute:nova", "tags": ["ake-role=worker"], "status": "ACTIVE", "revision_number": 1,
        });
        let server = json!({
            "id": server, "name": name, "status": "ACTIVE", "tenant_id": PROJECT, "metadata": {},
            "addresses": {NETWORK: [{"addr": address, "version": 4, "OS-EXT-IPS:type": "fixed"}]},
            "flavor": {"original_name": "m1.node"}, "OS-EXT-AZ:availability_zone": "nova",
        });
        let mut inner = self.lock();
        inner.servers.insert(server_id(number), server);
        inner.keep(port);
    }

    /// Takes a server and its port away.
    pub(super) fn remove(&self, number: u32) {
        let mut inner = self.lock();
        inner.servers.remove(&server_id(number));
        inner.forget(&port_id(number));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Id of a server.
#[must_use]
pub(super) fn server_id(number: u32) -> String {
    format!("5e000000-0000-4000-8000-{number:012}")
}

fn port_id(number: u32) -> String {
    format!("9e000000-0000-4000-8000-{number:012}")
}

async fn answer(
    State(cloud): State<Arc<Cloud>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    tokio::time::sleep(DELAY).await;
    let path = uri.path();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == "/v3/auth/tokens" {
        return token(&method, &headers, &body);
    }
    let counter = if method == Method::GET { &cloud.reads } else { &cloud.writes };
    counter.fetch_add(1, Ordering::SeqCst);
    let query = query(uri.query().unwrap_or_default());
    let mut inner = cloud.lock();
    match (method, path.split('/').skip(2).collect::<Vec<_>>().as_slice()) {
        (Method::GET, ["networks"]) => {
            let networks = [NETWORK, VIPS].map(|name| json!({"id": name, "name": name}));
            list("networks", networks.iter(), &query)
        }
        (Method::GET, ["networks", id]) => one("network", Some(&json!({"id": id, "name": id}))),
        (Method::GET, ["subnets"]) => {
            let subnet =
                json!({"id": "vips-v4", "name": "vips-v4", "network_id": VIPS, "cidr": "198.18.0.0/15"});
            list("subnets", std::iter::once(&subnet), &query)
        }
        (Method::GET, ["servers", "detail"]) => list("servers", inner.servers.values(), &query),
        (Method::GET, ["servers", id]) => one("server", inner.servers.get(*id)),
        (Method::GET, ["ports"]) => list("ports", inner.ports.values(), &query),
        (Method::GET, ["ports", id]) => one("port", inner.ports.get(*id)),
        (Method::POST, ["ports"]) => inner.create(body["port"].clone()),
        (Method::PUT, ["ports", id]) => inner.update(id, &headers, &body["port"]),
        (Method::DELETE, ["ports", id]) => {
            inner.forget(id);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Inner {
    fn keep(&mut self, port: Value) {
        let id = port["id"].as_str().unwrap_or_default().to_owned();
        self.addresses.extend(addresses(&port).map(|address| (address, id.clone())));
        self.ports.insert(id, port);
    }

    fn forget(&mut self, id: &str) {
        if let Some(port) = self.ports.remove(id) {
            addresses(&port).for_each(|address| drop(self.addresses.remove(&address)));
        }
    }

    fn create(&mut self, mut port: Value) -> Response {
        if addresses(&port).any(|address| self.addresses.contains_key(&address)) {
            let fault = json!({"NeutronError": {"type": "IpAddressAlreadyAllocated",
                                                "message": "IP address already allocated", "detail": ""}});
            return (StatusCode::CONFLICT, Json(fault)).into_response();
        }
        port["id"] = json!(format!("b1000000-0000-4000-8000-{:012}", self.ports.len()));
        port["project_id"] = json!("service");
        port["revision_number"] = json!(1);
        self.keep(port.clone());
        (StatusCode::CREATED, Json(json!({"port": port}))).into_response()
    }

    fn update(&mut self, id: &str, headers: &HeaderMap, change: &Value) -> Response {
        let Some(port) = self.ports.get_mut(id) else { return StatusCode::NOT_FOUND.into_response() };
        let revision = port["revision_number"].as_u64().unwrap_or_default();
        let expected = format!("revision_number={revision}");
        if headers.get("if-match").is_some_and(|tag| tag.as_bytes() != expected.as_bytes()) {
            return StatusCode::PRECONDITION_FAILED.into_response();
        }
        for (key, value) in change.as_object().into_iter().flatten() {
            port[key] = value.clone();
        }
        port["revision_number"] = json!(revision + 1);
        Json(json!({"port": port})).into_response()
    }
}

/// Network and address of each address of a port.
fn addresses(port: &Value) -> impl Iterator<Item = (String, String)> + '_ {
    let network = port["network_id"].as_str().unwrap_or_default();
    let all = port["fixed_ips"].as_array().into_iter().flatten();
    all.filter_map(move |ip| Some((network.to_owned(), ip["ip_address"].as_str()?.to_owned())))
}

fn one(key: &str, found: Option<&Value>) -> Response {
    match found {
        Some(found) => Json(json!({key: found})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn list<'a>(key: &str, all: impl Iterator<Item = &'a Value>, query: &[(String, String)]) -> Response {
    let found: Vec<&Value> =
        all.filter(|object| query.iter().all(|(name, value)| passes(object, name, value))).collect();
    Json(json!({key: found})).into_response()
}

fn passes(object: &Value, name: &str, value: &str) -> bool {
    let has = |key: &str, wanted: &dyn Fn(&Value) -> bool| {
        object[key].as_array().is_some_and(|items| items.iter().any(wanted))
    };
    match name {
        "limit" | "marker" | "fields" | "sort_key" | "sort_dir" => true,
        "fixed_ips" => has("fixed_ips", &|ip| ip["ip_address"] == value.trim_start_matches("ip_address=")),
        "tags" => value.split(',').all(|tag| has("tags", &|own| own == tag)),
        name => object[name] == value,
    }
}

/// Names and values of a query, as far as these clients escape them.
fn query(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| text.replace("%3D", "=").replace("%2C", ",").replace("%3A", ":");
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (plain(name), plain(value))).collect()
}

fn token(method: &Method, headers: &HeaderMap, body: &Value) -> Response {
    if *method == Method::POST {
        let own = &body["auth"]["identity"]["application_credential"];
        let token = if own.is_object() { TENANT } else { SERVICE };
        return (StatusCode::CREATED, [("X-Subject-Token", token)], Json(described(token))).into_response();
    }
    match headers.get("x-subject-token").and_then(|token| token.to_str().ok()) {
        Some(token @ (SERVICE | TENANT)) => Json(described(token)).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn described(token: &str) -> Value {
    let parts: Vec<&str> = token.split(':').collect();
    let named =
        |name: &str| json!({"id": name, "name": name, "domain": {"id": "default", "name": "Default"}});
    let service = |kind: &str, url: String| {
        let endpoint = json!({"id": kind, "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url});
        json!({"type": kind, "name": kind, "id": kind, "endpoints": [endpoint]})
    };
    json!({"token": {
        "user": named(parts[0]), "project": named(parts[1]), "roles": [{"id": "r", "name": parts[2]}],
        "methods": ["password"],
        "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [service("network", URL.to_owned()), service("compute", format!("{URL}/v2.1"))],
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_filtered_and_an_address_is_one_ports_alone() {
        let cloud = Cloud::default();
        cloud.add("n1", 1, Ipv4Addr::new(10, 0, 0, 1), "02:00:00:00:00:01");
        let mut inner = cloud.lock();
        let port = inner.ports[&port_id(1)].clone();
        for (query, passed) in [
            ("fixed_ips=ip_address%3D10.0.0.1&project_id=demo", true),
            ("fixed_ips=ip_address%3D10.0.0.2", false),
            ("tags=ake-role%3Dworker&limit=5", true),
            ("device_id=other", false),
        ] {
            let all = query_of(query).iter().all(|(name, value)| passes(&port, name, value));
            assert_eq!(all, passed, "{query}");
        }
        let again = json!({"network_id": NETWORK, "fixed_ips": [{"ip_address": "10.0.0.1"}]});
        assert_eq!(inner.create(again.clone()).status(), StatusCode::CONFLICT);
        let mut stale = HeaderMap::new();
        stale.insert("if-match", "revision_number=7".parse().unwrap());
        assert_eq!(inner.update(&port_id(1), &stale, &json!({})).status(), StatusCode::PRECONDITION_FAILED);
        inner.forget(&port_id(1));
        assert_eq!(inner.create(again).status(), StatusCode::CREATED);
    }

    fn query_of(text: &str) -> Vec<(String, String)> {
        query(text)
    }
}
