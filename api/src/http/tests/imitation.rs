//! An imitation of Keystone, Neutron and a Cinder without volumes, and a balancer in memory: as much as the tests of the API's surface
//! need. The real ones are met in the lab.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::time::Duration;

use lb_driver::{
    diff::Change,
    driver::{Answer, Capabilities, Driver, DriverError, MemberStatus, Status},
    model::State,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

/// What the imitated Neutron has, and what was written to it.
#[derive(Default)]
pub(super) struct Neutron {
    pub(super) ports: Mutex<Vec<Value>>,
    pub(super) writes: Mutex<Vec<String>>,
    /// How often it was asked for ports.
    pub(super) reads: AtomicUsize,
    /// It answers, and shows no ports.
    pub(super) blind: AtomicBool,
    /// It does not answer.
    pub(super) away: AtomicBool,
    /// Whoever makes a port waits.
    pub(super) slow: AtomicBool,
    /// Somebody waits.
    pub(super) waits: AtomicBool,
}

/// Keystone knows tokens by their text: `user:project:role`, and more behind further colons: `cred=ID`,
/// `rules`, `trust`. An application credential's id is the text of the token that it gets.
pub(super) async fn cloud() -> (MockServer, Arc<Neutron>) {
    let server = MockServer::start().await;
    let neutron = Arc::new(Neutron::default());
    let (uri, shared) = (server.uri(), Arc::clone(&neutron));
    Mock::given(any())
        .respond_with(move |request: &Request| answer(&uri, &shared, request))
        .mount(&server)
        .await;
    (server, neutron)
}

fn answer(uri: &str, neutron: &Neutron, request: &Request) -> ResponseTemplate {
    let path = request.url.path();
    if path.starts_with("/v2.0/") && neutron.away.load(Ordering::SeqCst) {
        return ResponseTemplate::new(500);
    }
    while request.method.as_str() == "POST" && path == "/v2.0/ports" && neutron.slow.load(Ordering::SeqCst) {
        neutron.waits.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
    }
    match (request.method.as_str(), path) {
        ("POST", "/v3/auth/tokens") => {
            let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
            let credential = body["auth"]["identity"]["application_credential"]["id"].as_str();
            let token = credential.unwrap_or("ake:service:service");
            ResponseTemplate::new(201)
                .insert_header("X-Subject-Token", token)
                .set_body_json(described(uri, token))
        }
        ("GET", "/v3/auth/catalog") => {
            let token = described(uri, &header(request, "x-auth-token"))["token"].take();
            ResponseTemplate::new(200).set_body_json(json!({"catalog": token["catalog"]}))
        }
        ("GET", "/volumes/detail") => ResponseTemplate::new(200).set_body_json(json!({"volumes": []})),
        ("GET", "/v3/auth/tokens") => {
            let token = header(request, "x-subject-token");
            if header(request, "openstack-identity-access-rules") != "1.0" || !token.contains(':') {
                return ResponseTemplate::new(404);
            }
            ResponseTemplate::new(200).set_body_json(described(uri, &token))
        }
        ("GET", "/v2.0/networks") => {
            list("networks", vec![network("net-1", "provider"), network("vips-1", "ake-vips")], request)
        }
        ("GET", "/v2.0/subnets") => list(
            "subnets",
            vec![
                json!({"id": "sub-4", "name": "ake-vips-v4", "network_id": "vips-1", "cidr": "203.0.113.0/24"}),
                json!({"id": "sub-6", "name": "ake-vips-v6", "network_id": "vips-1", "cidr": "2001:db8:113::/112"}),
            ],
            request,
        ),
        (_, path) if path.starts_with("/v2.0/ports") => {
            neutron.ports(request, path.trim_start_matches("/v2.0/ports").trim_start_matches('/'))
        }
        _ => ResponseTemplate::new(404),
    }
}

fn header(request: &Request, name: &str) -> String {
    request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

fn network(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name})
}

fn list(key: &str, all: Vec<Value>, request: &Request) -> ResponseTemplate {
    let found: Vec<Value> = all
        .into_iter()
        .filter(|object| request.url.query_pairs().all(|(name, value)| passes(object, &name, &value)))
        .collect();
    ResponseTemplate::new(200).set_body_json(json!({ key: found }))
}

fn passes(object: &Value, name: &str, value: &str) -> bool {
    match name {
        "limit" | "marker" | "fields" | "sort_key" | "sort_dir" => true,
        "fixed_ips" => {
            let address = value.trim_start_matches("ip_address=");
            object["fixed_ips"].as_array().is_some_and(|ips| ips.iter().any(|ip| ip["ip_address"] == address))
        }
        "tags" => value
            .split(',')
            .all(|tag| object["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == tag))),
        name => object[name] == value,
    }
}

impl Neutron {
    fn ports(&self, request: &Request, id: &str) -> ResponseTemplate {
        let mut ports = self.ports.lock().unwrap();
        let method = request.method.as_str();
        if method == "GET" {
            self.reads.fetch_add(1, Ordering::SeqCst);
        } else {
            self.writes.lock().unwrap().push(format!("{method} {id}"));
        }
        let place = ports.iter().position(|port| port["id"] == id);
        match (method, place) {
            ("GET", _) if self.blind.load(Ordering::SeqCst) && id.is_empty() => {
                list("ports", vec![], request)
            }
            ("GET", Some(_)) if self.blind.load(Ordering::SeqCst) => ResponseTemplate::new(404),
            ("GET", _) if id.is_empty() => list("ports", ports.clone(), request),
            ("GET", Some(place)) => ResponseTemplate::new(200).set_body_json(json!({"port": ports[place]})),
            ("POST", _) => {
                let mut port = serde_json::from_slice::<Value>(&request.body).unwrap()["port"].take();
                let taken = |ip: &Value| {
                    ports
                        .iter()
                        .any(|p| p["fixed_ips"].as_array().unwrap().iter().any(|i| i["ip_address"] == *ip))
                };
                if port["fixed_ips"].as_array().unwrap().iter().any(|ip| taken(&ip["ip_address"])) {
                    return ResponseTemplate::new(409).set_body_json(json!({"NeutronError": {
                        "type": "IpAddressAlreadyAllocated", "message": "IP address already allocated", "detail": ""}}));
                }
                port["id"] = json!(format!("00000000-0000-0000-0000-{:012}", ports.len() + 1));
                port["project_id"] = json!("service");
                ports.push(port.clone());
                ResponseTemplate::new(201).set_body_json(json!({"port": port}))
            }
            ("PUT", Some(place)) => {
                let port = &mut ports[place];
                let revision = port["revision_number"].as_u64().unwrap_or_default();
                if header(request, "if-match") != format!("revision_number={revision}") {
                    return ResponseTemplate::new(412);
                }
                let change = serde_json::from_slice::<Value>(&request.body).unwrap()["port"].take();
                for (key, value) in change.as_object().unwrap() {
                    port[key.as_str()] = value.clone();
                }
                port["revision_number"] = json!(revision + 1);
                ResponseTemplate::new(200).set_body_json(json!({"port": port}))
            }
            ("DELETE", Some(place)) => {
                ports.remove(place);
                ResponseTemplate::new(204)
            }
            _ => ResponseTemplate::new(404).set_body_json(json!({"NeutronError": {
                "type": "PortNotFound", "message": "no such port", "detail": ""}})),
        }
    }

    /// Adds a port on the nodes' network.
    pub(super) fn add(&self, id: &str, project: &str, address: &str, server: &str, tags: &[&str]) {
        self.ports.lock().unwrap().push(json!({
            "id": id, "name": id, "network_id": "net-1", "project_id": project, "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"subnet_id": "s", "ip_address": address}], "allowed_address_pairs": [],
            "device_id": server, "device_owner": if server.is_empty() { "" } else { "compute:nova" },
            "tags": tags, "revision_number": 1
        }));
    }

    /// Changes a port as somebody else.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        change(self.ports.lock().unwrap().iter_mut().find(|port| port["id"] == id).unwrap());
    }

    pub(super) fn pairs(&self, id: &str) -> Vec<String> {
        let ports = self.ports.lock().unwrap();
        let port = ports.iter().find(|port| port["id"] == id).unwrap();
        let pairs = port["allowed_address_pairs"].as_array().unwrap();
        pairs.iter().map(|pair| pair["ip_address"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.lock().unwrap().len()
    }

    /// Addresses of ports that keep what was retained, each as project, port's name and address.
    pub(super) fn retained(&self) -> Vec<(String, String, String)> {
        let ports = self.ports.lock().unwrap();
        let of = |port: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let ips = port["fixed_ips"].as_array().unwrap().clone();
            let (project, name) = (text(&port["device_id"]), text(&port["name"]));
            ips.into_iter()
                .map(move |ip| (project.clone(), name.clone(), text(&ip["ip_address"])))
                .collect::<Vec<_>>()
        };
        ports.iter().filter(|port| port["device_owner"] == "ake:vip-retained").flat_map(of).collect()
    }

    /// Ports that reserve VIP blocks.
    pub(super) fn reserved(&self) -> usize {
        self.ports.lock().unwrap().iter().filter(|port| port["device_owner"] == "ake:vip-block").count()
    }
}

fn described(uri: &str, token: &str) -> Value {
    let mut parts = token.split(':');
    let (user, project, role) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let endpoint = |id: &str, url: String| json!([{"id": id, "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url}]);
    let mut info = json!({
        "user": {"id": user, "name": user, "domain": {"id": "default", "name": "Default"}},
        "project": {"id": project, "name": project, "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r", "name": role}],
        "methods": ["password"],
        "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [{"type": "network", "name": "neutron", "id": "1", "endpoints": endpoint("1", uri.to_owned())},
            {"type": "block-storage", "name": "cinder", "id": "2", "endpoints": endpoint("2", uri.to_owned())}],
    });
    if project.is_empty() {
        info["project"] = Value::Null;
    }
    for part in parts {
        if let Some(id) = part.strip_prefix("cred=") {
            info["application_credential"] = json!({"id": id, "name": id, "restricted": true});
        } else if part == "rules" {
            info["application_credential"]["access_rules"] =
                json!([{"id": "1", "service": "ake", "method": "GET", "path": "/v1/clusters/{cluster}"}]);
        } else if part == "trust" {
            info["OS-TRUST:trust"] = json!({"id": "trust-1"});
        }
    }
    json!({ "token": info })
}

/// A balancer in memory.
pub(super) struct Memory {
    pub(super) state: Mutex<State>,
    pub(super) writes: Mutex<usize>,
    pub(super) down: AtomicBool,
    pub(super) well: AtomicBool,
    marks: watch::Sender<u64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            writes: Mutex::default(),
            down: AtomicBool::new(false),
            well: AtomicBool::new(false),
            marks: watch::Sender::new(1),
        }
    }
}

impl Memory {
    fn check(&self) -> Result<(), DriverError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(DriverError::Unreachable { device: "memory".into(), cause: "it is down".into() });
        }
        Ok(())
    }

    pub(super) fn writes(&self) -> usize {
        *self.writes.lock().unwrap()
    }

    /// All members are well from now on, or all are not.
    pub(super) fn all_are(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
        self.marks.send_modify(|mark| *mark += 1);
    }
}

impl Driver for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn read(&self) -> Answer<'_, State> {
        Box::pin(async {
            self.check()?;
            Ok(self.state.lock().unwrap().clone())
        })
    }

    fn apply<'a>(&'a self, wanted: &'a State, _changes: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(async {
            self.check()?;
            let mut state = self.state.lock().unwrap();
            assert!(wanted.version > state.version, "{} after {}", wanted.version, state.version);
            *self.writes.lock().unwrap() += 1;
            *state = wanted.clone();
            Ok(())
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async {
            self.check()?;
            let state = self.state.lock().unwrap();
            let mut status = Status {
                mark: Some(*self.marks.borrow()),
                version: Some(state.version),
                ..Status::default()
            };
            for (owner, pool) in &state.pools {
                let members = &mut status.pools.entry(owner.clone()).or_default().members;
                for name in pool.members.keys() {
                    let well = self.well.load(Ordering::SeqCst);
                    let reason = (!well).then(|| "connection refused".to_owned());
                    members.insert(
                        name.clone(),
                        MemberStatus { healthy: Some(well), reason, ..Default::default() },
                    );
                }
            }
            Ok(status)
        })
    }

    fn news(&self, seen: Option<u64>, longest: Duration) -> Answer<'_, Status> {
        Box::pin(async move {
            let mut marks = self.marks.subscribe();
            if let Some(seen) = seen {
                // the other outcome is the deadline
                let _ = tokio::time::timeout(longest, marks.wait_for(|mark| *mark != seen)).await;
            }
            self.status().await
        })
    }
}
