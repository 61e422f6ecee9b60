//! An imitation of a project's cloud: Keystone, Neutron, Nova and ake-api, as much as the controller manager asks of them
//! for Services. Its ake-api keeps a cluster's state, refuses old plans, deposed writers and another Kubernetes as the real
//! one does, and notes every write. The real ones are met in the lab, with the same program.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

/// Of the only cluster.
pub(crate) const CLUSTER: &str = "11111111-1111-1111-1111-111111111111";
/// The address that its only node has.
pub(crate) const NODE_ADDRESS: &str = "192.168.77.20";
/// The server of that node, and its port.
pub(crate) const SERVER: &str = "22222222-2222-2222-2222-222222222222";
const PORT: &str = "33333333-3333-3333-3333-333333333333";
const PROJECT: &str = "demo";

/// What it has, and what became of writes.
pub(crate) struct Inner {
    /// What a GET of the cluster shows.
    pub(crate) state: Value,
    revision: u64,
    /// How often what it shows has changed without a write.
    mark: u64,
    /// Every write that was taken, as `put-pool nodes`.
    pub(crate) taken: Vec<String>,
    /// Why batches were refused.
    pub(crate) refused: Vec<String>,
    /// Another project: nothing of the cluster is there.
    pub(crate) is_elsewhere: bool,
    /// Nova does not find the server by its id, and lists it: what is seen of it is from two moments.
    pub(crate) wavers: bool,
    /// Its ake-api shows the cluster without any of its objects, and takes no plan that was made from that.
    pub(crate) is_blind: bool,
    /// Of the security group.
    pub(crate) rules: Vec<Value>,
    /// Application credentials that asked for a login, in order.
    pub(crate) logins: Vec<String>,
    /// How often the cluster was read without a wait for news.
    pub(crate) looks: usize,
    /// How often its change feed was asked.
    pub(crate) asked: usize,
}

/// What a cluster has at ake-api.
const OBJECTS: [&str; 4] = ["addresses", "pools", "load_balancers", "node_ports"];

/// Runs until dropped.
pub(crate) struct Cloud {
    inner: Arc<Mutex<Inner>>,
    server: MockServer,
    _runtime: Runtime,
}

impl Cloud {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let state = json!({
            "cluster": {"id": CLUSTER, "name": "demo", "project": PROJECT, "network": "net-1", "deleting": false,
                        "pod_range": "10.240.0.0/16", "vip_blocks": ["203.0.113.16/28"],
                        "check_sources": ["192.168.77.2/32"]},
            "addresses": {}, "pools": {}, "load_balancers": {}, "node_ports": {}, "lease_transitions": 0,
        });
        let inner = Inner {
            state,
            revision: 1,
            mark: 0,
            taken: Vec::new(),
            refused: Vec::new(),
            is_elsewhere: false,
            wavers: false,
            is_blind: false,
            rules: Vec::new(),
            logins: Vec::new(),
            looks: 0,
            asked: 0,
        };
        let inner = Arc::new(Mutex::new(inner));
        let shared = Arc::clone(&inner);
        let server = runtime.block_on(async {
            let server = MockServer::start().await;
            let uri = server.uri();
            let respond = move |request: &Request| answer(&uri, &mut shared.lock().unwrap(), request);
            Mock::given(any()).respond_with(respond).mount(&server).await;
            server
        });
        Self { inner, server, _runtime: runtime }
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Names of load balancers, and the writes so far that took something away.
    pub(crate) fn balancers_and_removals(&self) -> (Vec<String>, Vec<String>) {
        let inner = self.look();
        (inner.balancers(), inner.removals())
    }

    /// What the controller manager is told of it.
    pub(crate) fn config(&self) -> String {
        format!(
            "[Global]\nauth-url = {}/v3\napplication-credential-id = a\napplication-credential-secret = s\n\
             region = RegionOne\n[AKE]\ncluster-id = {CLUSTER}\nsecurity-group = group-1\n",
            self.server.uri()
        )
    }
}

impl Inner {
    /// Names of load balancers.
    pub(crate) fn balancers(&self) -> Vec<String> {
        self.state["load_balancers"].as_object().unwrap().keys().cloned().collect()
    }

    /// What the balancers say of all nodes from now on.
    pub(crate) fn all_are(&mut self, healthy: bool) {
        for (_, pool) in self.part("pools") {
            for (_, member) in pool["members"].as_object_mut().unwrap() {
                member["healthy"] = json!(healthy);
            }
        }
        self.mark += 1;
    }

    /// Which of the writes that were taken took something away.
    pub(crate) fn removals(&self) -> Vec<String> {
        self.taken.iter().filter(|write| write.starts_with("delete-")).cloned().collect()
    }

    /// Everything that it had of the cluster is lost.
    pub(crate) fn lose_objects(&mut self) {
        OBJECTS.iter().for_each(|kind| self.part(kind).clear());
        self.revision += 1;
    }

    fn shown(&self) -> Value {
        let mut state = self.state.clone();
        if self.is_blind {
            OBJECTS.iter().for_each(|kind| state[*kind] = json!({}));
        }
        state
    }

    /// All that somebody else could destroy: what is written, the security group, and how often was written.
    pub(crate) fn everything(&self) -> (Value, Vec<Value>, usize) {
        let mut state = self.state.clone();
        state["cluster"]["kubernetes"] = Value::Null;
        (state, self.rules.clone(), self.taken.len())
    }

    fn etag(&self) -> String {
        format!("\"{}.{}-0.{}\"", self.revision, self.state["lease_transitions"], self.mark)
    }

    fn part(&mut self, kind: &str) -> &mut Map<String, Value> {
        self.state[kind].as_object_mut().unwrap()
    }

    fn batch(&mut self, batch: &Value) -> Result<(), (u16, &'static str)> {
        let mine = batch["lease_transitions"].as_u64().unwrap();
        if mine < self.state["lease_transitions"].as_u64().unwrap() {
            return Err((412, "deposed"));
        }
        let (own, named) = (self.state["cluster"]["kubernetes"].clone(), batch["kubernetes"].clone());
        let has_services = self.state["load_balancers"].as_object().is_some_and(|all| !all.is_empty());
        if own != named && !own.is_null() && (has_services || named.is_null()) {
            return Err((409, "other-kubernetes"));
        }
        let planned = batch["if_match"].as_str().and_then(|tag| tag.trim_matches('"').split('.').next());
        if self.is_blind || planned.is_some_and(|revision| revision != self.revision.to_string()) {
            return Err((412, "stale"));
        }
        self.state["lease_transitions"] = json!(mine);
        if !named.is_null() {
            self.state["cluster"]["kubernetes"] = named;
        }
        for write in batch["writes"].as_array().unwrap() {
            self.write(write);
        }
        self.revision += 1;
        Ok(())
    }

    fn write(&mut self, write: &Value) {
        let kind = write["write"].as_str().unwrap();
        let name = write["name"].as_str().or(write["port"].as_str()).unwrap().to_owned();
        self.taken.push(format!("{kind} {name}"));
        let request = &write["request"];
        match kind {
            "put-address" => {
                let taken: Vec<String> = self
                    .part("addresses")
                    .values()
                    .map(|a| a["address"].as_str().unwrap().to_owned())
                    .collect();
                let mut free =
                    (17..31).map(|last| format!("203.0.113.{last}")).filter(|a| !taken.contains(a));
                let chosen =
                    request["address"].as_str().map_or_else(|| free.next().unwrap(), ToOwned::to_owned);
                self.part("addresses").entry(name).or_insert(json!({"address": chosen}));
            }
            "put-pool" => {
                let mut pool = json!({"members": {}, "checks": request["checks"].as_array().cloned().unwrap_or_default()});
                for (member, wanted) in request["members"].as_object().into_iter().flatten() {
                    pool["members"][member] = json!({
                        "address": wanted["address"], "mac": "fa:16:3e:00:00:01", "weight": wanted["weight"],
                        "draining": wanted["draining"], "healthy": true});
                }
                self.part("pools").insert(name, pool);
            }
            "put-load-balancer" => {
                let address = request["address"].as_str().unwrap();
                let vip = self.state["addresses"][address]["address"].clone();
                let mut balancer = request.clone();
                balancer["vip"] = vip;
                balancer["applied"] = json!(true);
                self.part("load_balancers").insert(name, balancer);
            }
            "put-node-port" => {
                let pairs = [&request["pod_ranges"], &self.state["cluster"]["vip_blocks"]];
                let pairs: Vec<_> =
                    pairs.into_iter().flat_map(|all| all.as_array().unwrap().clone()).collect();
                self.part("node_ports").insert(name, json!({"pairs": pairs}));
            }
            "delete-address" => drop(self.part("addresses").remove(&name)),
            "delete-pool" => drop(self.part("pools").remove(&name)),
            "delete-load-balancer" => drop(self.part("load_balancers").remove(&name)),
            other => panic!("{other} is not imitated"),
        }
    }
}

fn answer(uri: &str, inner: &mut Inner, request: &Request) -> ResponseTemplate {
    let method = request.method.as_str();
    let path = request.url.path();
    let cluster = format!("/ake/v1/clusters/{CLUSTER}");
    let body = || serde_json::from_slice::<Value>(&request.body).unwrap();
    let is_there = !inner.is_elsewhere;
    let said = |value: Value| ResponseTemplate::new(200).set_body_json(value);
    let shown = |inner: &Inner| said(inner.shown()).insert_header("ETag", inner.etag().as_str());
    match (method, path) {
        ("POST", "/v3/auth/tokens") => {
            let credential = &body()["auth"]["identity"]["application_credential"]["id"];
            inner.logins.extend(credential.as_str().map(ToOwned::to_owned));
            ResponseTemplate::new(201).insert_header("X-Subject-Token", "token").set_body_json(login(uri))
        }
        ("GET", "/v3/auth/tokens") => said(login(uri)),
        ("GET", "/network/v2.0/ports") => {
            let port = json!({"id": PORT, "device_id": SERVER, "device_owner": "compute:nova", "project_id": PROJECT,
                "tenant_id": PROJECT, "network_id": "net-1", "mac_address": "fa:16:3e:00:00:01",
                "fixed_ips": [{"subnet_id": "s", "ip_address": NODE_ADDRESS}]});
            said(json!({"ports": if is_there { vec![port] } else { vec![] }}))
        }
        ("GET", "/network/v2.0/security-group-rules") => {
            said(json!({"security_group_rules": if is_there { inner.rules.clone() } else { vec![] }}))
        }
        ("POST", "/network/v2.0/security-group-rules") if is_there => {
            let body = body();
            let many = body["security_group_rules"].as_array().cloned();
            let wanted = many.clone().unwrap_or_else(|| vec![body["security_group_rule"].clone()]);
            let made: Vec<Value> = wanted
                .into_iter()
                .map(|mut rule| {
                    rule["id"] = json!(format!("rule-{}", inner.rules.len()));
                    inner.rules.push(rule.clone());
                    rule
                })
                .collect();
            ResponseTemplate::new(201).set_body_json(match many {
                Some(_) => json!({"security_group_rules": made}),
                None => json!({"security_group_rule": made[0]}),
            })
        }
        ("DELETE", path) if path.starts_with("/network/v2.0/security-group-rules/") => {
            let id = path.rsplit('/').next().unwrap();
            inner.rules.retain(|rule| rule["id"] != id);
            ResponseTemplate::new(204)
        }
        ("GET", "/compute/servers/detail") => {
            said(json!({"servers": if is_there { vec![server()] } else { vec![] }}))
        }
        ("GET", path) if path == format!("/compute/servers/{SERVER}") && is_there && !inner.wavers => {
            said(json!({"server": server()}))
        }
        ("GET", path) if path == cluster && is_there => {
            // It does not wait: whoever asks is told at once what there is.
            match request.url.query_pairs().any(|(key, _)| key == "wait") {
                true => inner.asked += 1,
                false => inner.looks += 1,
            }
            shown(inner)
        }
        ("POST", path) if path == format!("{cluster}/batch") && is_there => match inner.batch(&body()) {
            Ok(()) => shown(inner),
            Err((status, code)) => {
                inner.refused.push(code.to_owned());
                let problem = json!({"code": code, "message": code});
                ResponseTemplate::new(status).set_body_json(problem)
            }
        },
        _ => ResponseTemplate::new(404)
            .set_body_json(json!({"code": "not-found", "message": "the project has none"})),
    }
}

/// The node's.
fn server() -> Value {
    json!({"id": SERVER, "name": "w0", "status": "ACTIVE", "tenant_id": PROJECT,
        "addresses": {"net": [{"addr": NODE_ADDRESS, "version": 4, "OS-EXT-IPS:type": "fixed"}]},
        "metadata": {}, "flavor": {"original_name": "m1"}})
}

fn login(uri: &str) -> Value {
    let service = |kind: &str| {
        json!({"type": kind, "name": kind, "id": kind, "endpoints": [{"id": kind, "interface": "public",
            "region": "RegionOne", "region_id": "RegionOne", "url": format!("{uri}/{kind}")}]})
    };
    json!({"token": {
        "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": PROJECT, "name": PROJECT, "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r", "name": "member"}], "methods": ["application_credential"],
        "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [service("network"), service("compute"), service("ake"), service("block-storage")],
    }})
}
