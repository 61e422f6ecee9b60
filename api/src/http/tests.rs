//! The surface, in process: imitated Keystone and Neutron (the real ones are met in the lab), a balancer in
//! memory, and the real rest.

mod described;
mod faults;
mod imitation;
mod kubernetes;
mod life;
mod lost;
mod many;
mod news;
mod plain;
mod quota;
mod refusals;
mod retained;
mod tenancy;

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use imitation::{Memory, Neutron, cloud};
use lb_driver::driver::Driver;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use wiremock::MockServer;

use super::{App, Audit, Limits, Peer, router};
use crate::{
    auth::Authenticator,
    cloud::Cloud,
    config::{Config, EXAMPLE},
    device::{Devices, Leadership, Orphans, Reconciler},
    metrics::Metrics,
    service::Service,
    store::{Database, Store},
};

const DEMO: &str = "11111111-1111-1111-1111-111111111111";
const OTHER: &str = "22222222-2222-2222-2222-222222222222";
const PORT: &str = "99999999-9999-9999-9999-999999999991";
const TOKEN: &str = "alice:demo:member";

struct House {
    router: Router,
    service: Arc<Service>,
    config: Arc<Config>,
    neutron: Arc<Neutron>,
    balancer: Arc<Memory>,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    _cloud: MockServer,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Said {
    status: StatusCode,
    body: Value,
    etag: String,
    retry_after: Option<u64>,
}

impl House {
    async fn new() -> Self {
        Self::with(|example| example).await
    }

    async fn with(edit: impl FnOnce(String) -> String) -> Self {
        let (server, neutron) = cloud().await;
        let text = EXAMPLE
            .replace("http://192.0.2.2:5000/v3", &server.uri())
            .replace("password_file = \"/etc/ake/keystone-password\"", "password = \"secret\"")
            // pools are written before their listeners here
            .replace("check_ports = [", "check_ports = [\"80\", ");
        let config = Arc::new(Config::parse(Path::new("api.toml"), &edit(text)).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Database::Sqlite(folder.path().join("api.sqlite"))).await.unwrap();
        let store = store.with_quotas(config.quotas());
        let (devices, metrics, stop) =
            (Devices::default(), Metrics::new().unwrap(), CancellationToken::new());
        let balancer = Arc::new(Memory::default());
        let reconciler = Reconciler {
            store: store.clone(),
            drivers: [("memory".to_owned(), Arc::clone(&balancer) as Arc<dyn Driver>)].into(),
            devices: devices.clone(),
            period: config.period(),
            metrics: metrics.clone(),
            leadership: Leadership::default(),
            orphans: Orphans::new(config.period(), config.orphan_budget),
        };
        tokio::spawn(reconciler.run(stop.clone()));
        let cloud = Arc::new(Cloud::new(&config).unwrap());
        let service =
            Arc::new(Service::new(Arc::clone(&config), store, Arc::clone(&cloud), devices, metrics.clone()));
        let audit = Audit::open(&folder.path().join("audit.jsonl")).unwrap();
        let authenticator = Authenticator::new(cloud, std::time::Duration::from_secs(60), 100);
        let limits = Limits::new(&config.limits);
        let app = App { service: Arc::clone(&service), authenticator, limits, audit, metrics };
        let router = router(Arc::new(app));
        Self { router, service, config, neutron, balancer, folder, stop, _cloud: server }
    }

    async fn say(&self, token: &str, method: Method, path: &str, body: Value) -> Said {
        self.say_from("192.0.2.9", token, method, path, body).await
    }

    async fn say_from(&self, peer: &str, token: &str, method: Method, path: &str, body: Value) -> Said {
        self.say_with(peer, token, method, path, body, &[]).await
    }

    async fn say_with(
        &self,
        peer: &str,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Said {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !token.is_empty() {
            request = request.header("X-Auth-Token", token);
        }
        let text = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = request.body(text).unwrap();
        let method = request.method().clone();
        request.extensions_mut().insert(Peer(SocketAddr::new(peer.parse().unwrap(), 1234)));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let etag = response.headers().get("etag").map(|t| t.to_str().unwrap().to_owned()).unwrap_or_default();
        let retry_after = response.headers().get("retry-after").and_then(|s| s.to_str().ok()?.parse().ok());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let said =
            Said { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), etag, retry_after };
        described::check(&method, path, &body, said.status, &said.body);
        said
    }

    async fn put(&self, path: &str, body: Value) -> Said {
        self.say(TOKEN, Method::PUT, path, body).await
    }

    async fn get(&self, path: &str) -> Said {
        self.say(TOKEN, Method::GET, path, Value::Null).await
    }

    async fn delete(&self, path: &str) -> Said {
        self.say(TOKEN, Method::DELETE, path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Said {
        self.say(TOKEN, Method::POST, path, body).await
    }

    async fn registered() -> Self {
        let house = Self::new().await;
        let said = house.put(&cluster(""), registration()).await;
        assert_eq!(said.status, 200, "{}", said.body);
        house.neutron.add(
            PORT,
            "demo",
            "192.168.77.20",
            "server-0",
            &[&format!("ake-cluster={DEMO}"), "ake-role=worker"],
        );
        house
    }

    async fn with_api() -> Self {
        let house = Self::registered().await;
        for (path, body) in [
            ("/addresses/api", json!({})),
            ("/pools/masters", json!({"checks": [{"type": "tcp", "port": 6443}]})),
            ("/pools/masters/members/m0", json!({"address": "192.168.77.20", "port": PORT})),
            (
                "/load-balancers/api",
                json!({"address": "api", "listeners": [{"protocol": "TCP", "port": 6443, "pool": "masters"}]}),
            ),
            (&format!("/node-ports/{PORT}"), json!({"asker": "heat", "addresses": ["api"]})),
        ] {
            let said = house.put(&cluster(path), body).await;
            assert_eq!(said.status, 200, "{path} {}", said.body);
        }
        house
    }
}

fn cluster(path: &str) -> String {
    format!("/v1/clusters/{DEMO}{path}")
}

fn registration() -> Value {
    json!({"name": "demo", "network": "net-1"})
}

fn message(said: &Said) -> &str {
    said.body["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_cluster_is_registered_once_with_its_blocks_and_range() {
    let house = House::registered().await;
    let said = house.get(&cluster("")).await;
    assert_eq!(said.body["cluster"]["pod_range"], "10.240.0.0/16");
    assert_eq!(said.body["cluster"]["vip_blocks"], json!(["203.0.113.16/28", "2001:db8:113::10/124"]));
    assert_eq!(said.body["cluster"]["check_sources"], json!(["192.168.77.2/32", "fd00:77::2/128"]));
    assert_eq!(house.neutron.reserved(), 2);
    let (writes, again) = (house.neutron.writes(), house.put(&cluster(""), registration()).await);
    assert_eq!((again.status, again.etag.as_str()), (StatusCode::OK, said.etag.as_str()));
    assert_eq!(house.neutron.writes(), writes, "a repetition writes nothing");
    let port = house.neutron.ports.lock().unwrap()[0].clone();
    assert_eq!(port["device_id"], DEMO);
    assert_eq!(port["fixed_ips"].as_array().unwrap().len(), 16);
    assert!(port["description"].as_str().unwrap().contains(DEMO));
}

#[tokio::test]
async fn the_api_servers_load_balancer_reaches_the_balancer() {
    let house = House::with_api().await;
    let said = house.get(&cluster("")).await;
    let lb = &said.body["load_balancers"]["api"];
    assert_eq!((&lb["applied"], &lb["vip"]), (&json!(true), &json!("203.0.113.16")));
    let member = &said.body["pools"]["masters"]["members"]["m0"];
    assert_eq!(member["mac"], "fa:16:3e:00:00:01");
    assert_eq!((&member["healthy"], &member["reason"]), (&json!(false), &json!("connection refused")));
    assert_eq!(house.neutron.pairs(PORT), ["203.0.113.16/32"]);
    let owners: Vec<String> =
        house.balancer.state.lock().unwrap().load_balancers.keys().map(ToString::to_string).collect();
    assert_eq!(owners, [format!("demo/{DEMO}/api")]);
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let house = House::with_api().await;
    let before = house.get(&cluster("")).await;
    let (neutron, balancer) = (house.neutron.writes(), house.balancer.writes());
    let batch = json!({"lease_transitions": 0, "if_match": before.etag, "writes": [
        {"write": "put-address", "name": "api", "request": {}},
        {"write": "put-member", "pool": "masters", "name": "m0", "request": {"address": "192.168.77.20"}},
        {"write": "put-node-port", "port": PORT, "request": {"asker": "heat", "addresses": ["api"]}},
    ]});
    let said = house.post(&cluster("/batch"), batch).await;
    assert_eq!((said.status, &said.etag), (StatusCode::OK, &before.etag), "{}", said.body);
    for _ in 0..2 {
        house.service.settle_for_tests(DEMO).await;
        house.service.devices.wait(house.service.devices.signal(), std::time::Duration::from_secs(5)).await;
    }
    assert_eq!((house.neutron.writes(), house.balancer.writes()), (neutron, balancer));
}

#[tokio::test]
async fn drift_is_put_right() {
    let house = House::with_api().await;
    house.neutron.change(PORT, |port| {
        port["allowed_address_pairs"] =
            json!([{"ip_address": "10.9.9.9", "mac_address": "fa:16:3e:00:00:01"}]);
        port["mac_address"] = json!("fa:16:3e:00:00:02");
    });
    house.service.settle_for_tests(DEMO).await;
    assert_eq!(house.neutron.pairs(PORT), ["10.9.9.9", "203.0.113.16/32"]);
    let said = house.get(&cluster("")).await;
    assert_eq!(said.body["pools"]["masters"]["members"]["m0"]["mac"], "fa:16:3e:00:00:02");
}

#[tokio::test]
async fn guards_keep_deposed_and_stale_writers_out() {
    let house = House::registered().await;
    let batch = |lease: u64, tag: &str| json!({"lease_transitions": lease, "if_match": tag, "writes": []});
    let etag = house.get(&cluster("")).await.etag;
    assert_eq!(house.post(&cluster("/batch"), batch(5, &etag)).await.status, 200);
    let said = house.post(&cluster("/batch"), batch(4, &etag)).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("deposed")));
    let said = house.post(&cluster("/batch"), batch(5, "\"77\"")).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::PRECONDITION_FAILED, &json!("stale")));
}

#[tokio::test]
async fn a_batch_counts_whole_or_not_at_all() {
    let house = House::registered().await;
    let batch = json!({"lease_transitions": 1, "writes": [
        {"write": "put-address", "name": "svc-1", "request": {}},
        {"write": "put-load-balancer", "name": "svc-1", "request": {"address": "svc-1",
            "listeners": [{"protocol": "TCP", "port": 80, "pool": "missing"}]}},
    ]});
    let said = house.post(&cluster("/batch"), batch).await;
    assert_eq!(said.status, 422);
    assert!(message(&said).contains("missing"), "{}", said.body);
    assert_eq!(house.get(&cluster("")).await.body["addresses"], json!({}));
}

#[tokio::test]
async fn every_write_leaves_a_line_and_no_secret() {
    let house = House::registered().await;
    let claim = "s".repeat(43);
    house.say_from("192.0.2.9", "", Method::POST, &format!("/v1/claims/{claim}"), json!({})).await;
    house.say("alice:demo:reader", Method::PUT, &cluster(""), registration()).await;
    house.get(&cluster("")).await;
    let written = [
        (TOKEN, json!(["alice", "demo", null, null])),
        ("alice:demo:member:trust", json!(["alice", "demo", "trust-1", null])),
        ("bob:demo:member:cred=c1", json!(["bob", "demo", null, "c1"])),
    ];
    for (token, _) in &written {
        assert_eq!(house.say(token, Method::PUT, &cluster(""), registration()).await.status, 200, "{token}");
    }
    let text = std::fs::read_to_string(house.folder.path().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 404, 403, 200, 200, 200]);
    let whose =
        |line: &Value| json!([line["user"], line["project"], line["trust"], line["application_credential"]]);
    assert_eq!(whose(&lines[1]), json!([null, null, null, null]), "a claim is no login");
    for (line, (token, who)) in lines[3..].iter().zip(&written) {
        assert_eq!(whose(line), *who, "{token}");
    }
    assert_eq!(lines[0]["project"], "demo");
    assert!(!text.contains(&claim) && !text.contains(TOKEN), "{text}");
}

#[tokio::test]
async fn versions_and_health_need_no_token() {
    let house = House::new().await;
    let said = house.say("", Method::GET, "/", Value::Null).await;
    assert_eq!((said.status, &said.body["versions"][0]["status"]), (StatusCode::OK, &json!("CURRENT")));
    assert_eq!(house.say("", Method::GET, "/healthz", Value::Null).await.status, 200);
}
