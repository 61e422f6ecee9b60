//! `ake-heat` killed before and after each of its writes to `ake-api`, both as they are shipped: the stack's next update
//! mends what was begun, its deletion leaves nothing. Needs `ake-heat` and `ake-bigip` built
//! (`cargo build -p ake-heat -p ake-bigip`).
//!
//! Between the two is a gate that lets requests through and knows the moment at which to kill. What Heat's engine does
//! is done here as `heat-resources/plugin` does it: an id before the first run, `update` for what failed, `check-` while
//! a run says that it is not done, and secrets kept from one run to the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod common;
#[path = "../src/http/tests/imitation.rs"]
#[allow(dead_code, reason = "the balancer in memory is for the tests in process")]
mod imitation;
#[allow(dead_code, reason = "each of two tests uses a part of it")]
mod site;

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header::HOST},
    response::Response,
};
use common::{PROGRAM, eventually};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Map, Value, json};
use site::{Api, CLUSTER, NODE, PORT, Pair};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command};

const WHO: &str = "alice:demo:member";

/// When a run dies: at which of its writes, and whether `ake-api` gets that one.
#[derive(Debug, Clone, Copy)]
struct Death {
    write: usize,
    after: bool,
}

#[derive(Default)]
struct Watch {
    /// Of the run that is on now.
    process: Option<u32>,
    death: Option<Death>,
    /// Writes of the action that is on now.
    writes: Vec<String>,
}

/// Stands between the two.
struct Gate {
    api: reqwest::Client,
    url: String,
    watch: Mutex<Watch>,
}

impl Gate {
    async fn open(api: &Api) -> (Arc<Self>, String) {
        let gate = Arc::new(Self { api: api.client.clone(), url: api.url.clone(), watch: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(pass).with_state(Arc::clone(&gate));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (gate, url)
    }

    /// Whether it dies at this moment.
    fn kills(&self, write: usize, after: bool) -> bool {
        let watch = self.watch.lock().unwrap();
        let is_now = watch.death.is_some_and(|death| (death.write, death.after) == (write, after));
        if is_now {
            let process = i32::try_from(watch.process.unwrap()).unwrap();
            let done = std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status();
            assert!(done.unwrap().success());
        }
        is_now
    }
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let write = (parts.method != "GET").then(|| {
        let mut watch = gate.watch.lock().unwrap();
        watch.writes.push(format!("{} {}", parts.method, parts.uri.path()));
        watch.writes.len() - 1
    });
    let silence = || Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::empty()).unwrap();
    if write.is_some_and(|write| gate.kills(write, false)) {
        return silence();
    }
    let mut headers = parts.headers;
    headers.remove(HOST);
    let url = format!("{}{}", gate.url, parts.uri);
    let answer = gate.api.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.bytes().await.unwrap();
    if write.is_some_and(|write| gate.kills(write, true)) {
        return silence();
    }
    let mut response = Response::builder().status(status);
    *response.headers_mut().unwrap() = headers;
    response.body(Body::from(body)).unwrap()
}

/// How an action ended.
#[derive(Debug, PartialEq)]
enum End {
    Done,
    Killed,
}

/// As much of Heat as there is to a stack of these resources.
struct Heat {
    gate: Arc<Gate>,
    config: PathBuf,
    keystone: String,
    api: Api,
}

/// A resource of the stack, with what is kept of it.
struct Resource {
    kind: &'static str,
    properties: Value,
    secrets: Map<String, Value>,
}

impl Heat {
    /// An action until it is done or dead, and the writes that it came to.
    async fn act(&self, resource: &mut Resource, verb: &str, death: Option<Death>) -> (End, Vec<String>) {
        *self.gate.watch.lock().unwrap() = Watch { death, ..Watch::default() };
        let mut run = verb.to_owned();
        loop {
            let Some(answer) = self.run(resource, &run).await else {
                let mut watch = self.gate.watch.lock().unwrap();
                return (End::Killed, std::mem::take(&mut watch.writes));
            };
            if let Some(secrets) = answer["secrets"].as_object() {
                resource.secrets.extend(secrets.clone());
            }
            if answer["done"] == true {
                let mut watch = self.gate.watch.lock().unwrap();
                return (End::Done, std::mem::take(&mut watch.writes));
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            run = format!("check-{verb}");
        }
    }

    /// One run of the program; nothing if it was killed.
    async fn run(&self, resource: &Resource, verb: &str) -> Option<Value> {
        let request = json!({
            "verb": verb, "type": resource.kind, "resource_id": "r", "waited": 0.0,
            "stack": {"id": CLUSTER, "name": "demo", "root_id": CLUSTER},
            "cloud": {"auth_url": self.keystone, "token": WHO, "region": "RegionOne", "project_id": "demo"},
            "properties": resource.properties, "secrets": resource.secrets,
            "hidden": {"application_credential_id": WHO, "application_credential_secret": "secret"},
        });
        let program = PathBuf::from(PROGRAM).with_file_name("ake-heat");
        assert!(program.exists(), "{}: expected the program: cargo build -p ake-heat", program.display());
        let mut child = Command::new(program)
            .arg("run")
            .env("AKE_HEAT_CONFIG", &self.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.gate.watch.lock().unwrap().process = child.id();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.to_string().as_bytes()).await.unwrap();
        drop(stdin);
        let out = child.wait_with_output().await.unwrap();
        if out.status.signal() == Some(9) {
            return None;
        }
        assert!(out.status.success(), "{verb} {}: {}", resource.kind, String::from_utf8_lossy(&out.stderr));
        Some(serde_json::from_slice(&out.stdout).unwrap())
    }

    /// What `ake-api` and Neutron have of the cluster, but for what is counted or measured.
    async fn state(&self, neutron: &imitation::Neutron) -> Value {
        let mut state = self.api.state().await;
        for pool in state["pools"].as_object_mut().into_iter().flat_map(Map::values_mut) {
            for member in pool["members"].as_object_mut().into_iter().flat_map(Map::values_mut) {
                *member = member["address"].take();
            }
        }
        json!({"ake-api": state, "blocks": neutron.reserved(), "pairs": neutron.pairs(PORT)})
    }

    /// Waits for a state: what is taken away may take `ake-api` a while.
    async fn is(&self, neutron: &imitation::Neutron, expected: &Value, when: &str) {
        let mut last = Value::Null;
        for _ in 0..600 {
            last = self.state(neutron).await;
            if last == *expected {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{when}: {last:#}\ninstead of {expected:#}");
    }
}

fn moments(writes: usize) -> impl Iterator<Item = Death> {
    (0..writes).flat_map(|write| [false, true].map(|after| Death { write, after }))
}

fn config(folder: &Path, gate: &str) -> PathBuf {
    let config = folder.join("heat.toml");
    std::fs::write(&config, format!("api-url = \"{gate}\"\n")).unwrap();
    config
}

fn stack() -> Vec<Resource> {
    let mut request = CertificateParams::default();
    request.distinguished_name.push(DnType::CommonName, "admin");
    let csr = request.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    [
        ("AKE::Cluster::Registration", json!({"name": "demo", "network": "net-1"})),
        (
            "AKE::Cluster::Credentials",
            json!({"cluster": CLUSTER, "name": "demo", "admin_csr": csr,
                "application_credential_id": "id", "application_credential_secret": "secret"}),
        ),
        ("AKE::LB::VIP", json!({"cluster": CLUSTER, "name": "api"})),
        (
            "AKE::LB::LoadBalancer",
            json!({"cluster": CLUSTER, "name": "api", "address": "api",
                "listeners": [{"protocol": "TCP", "port": 6443, "pool": "masters"}],
                "pools": [{"name": "masters", "check": {"type": "tcp", "port": 6443}}]}),
        ),
        (
            "AKE::LB::Member",
            json!({"cluster": CLUSTER, "pool": "masters", "name": "master-0", "address": NODE, "port": PORT,
                "addresses": ["api"]}),
        ),
        ("AKE::Cluster::Cleanup", json!({"cluster": CLUSTER})),
    ]
    .map(|(kind, properties)| Resource { kind, properties, secrets: Map::new() })
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_stack_began_is_mended_or_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (cloud, neutron) = imitation::cloud().await;
    neutron.add(PORT, "demo", NODE, "server-0", &[]);
    let pair = Pair::new(folder);
    let api = Api::start(folder, &cloud.uri(), &pair).await;
    let (gate, url) = Gate::open(&api).await;
    let heat = Heat { gate, config: config(folder, &url), keystone: format!("{}/v3", cloud.uri()), api };
    let (mut deaths, mut done) = (0, Vec::new());
    let nothing = heat.state(&neutron).await;

    for mut resource in stack() {
        let kind = resource.kind;
        let before = heat.state(&neutron).await;
        let (end, writes) = heat.act(&mut resource, "create", None).await;
        assert_eq!(end, End::Done);
        let whole = heat.state(&neutron).await;
        if kind == "AKE::Cluster::Cleanup" {
            // Nothing follows its deletion but that of all others.
            done.push(resource);
            break;
        }
        let (end, removals) = heat.act(&mut resource, "delete", None).await;
        assert_eq!(end, End::Done);
        heat.is(&neutron, &before, &format!("{kind} deleted")).await;
        assert!(!writes.is_empty(), "{kind} writes nothing");

        for death in moments(writes.len()) {
            let when = format!("{kind} killed while made, {death:?} of {writes:?}");
            resource.secrets.clear();
            assert_eq!(heat.act(&mut resource, "create", Some(death)).await.0, End::Killed, "{when}");
            assert_eq!(heat.act(&mut resource, "delete", None).await.0, End::Done, "{when}");
            heat.is(&neutron, &before, &format!("{when}, then deleted")).await;

            assert_eq!(heat.act(&mut resource, "create", Some(death)).await.0, End::Killed, "{when}");
            let (end, mended) = heat.act(&mut resource, "update", None).await;
            assert_eq!(end, End::Done, "{when}");
            heat.is(&neutron, &whole, &format!("{when}, then updated")).await;
            if kind == "AKE::Cluster::Credentials" {
                // All bundles again: those before were sealed with keys that nobody has.
                assert_eq!(mended, writes, "{when}");
            }
            assert_eq!(heat.act(&mut resource, "delete", None).await.0, End::Done, "{when}");
            heat.is(&neutron, &before, &format!("{when}, then updated and deleted")).await;
            deaths += 2;
        }
        for death in moments(removals.len()) {
            let when = format!("{kind} killed while deleted, {death:?} of {removals:?}");
            assert_eq!(heat.act(&mut resource, "create", None).await.0, End::Done, "{when}");
            assert_eq!(heat.act(&mut resource, "delete", Some(death)).await.0, End::Killed, "{when}");
            assert_eq!(heat.act(&mut resource, "delete", None).await.0, End::Done, "{when}");
            heat.is(&neutron, &before, &format!("{when}, then deleted")).await;
            deaths += 1;
        }
        resource.secrets.clear();
        assert_eq!(heat.act(&mut resource, "create", None).await.0, End::Done);
        done.push(resource);
    }

    // The whole stack goes, and each deletion is cut short at every moment on the way.
    for mut resource in done.into_iter().rev() {
        loop {
            let mut killed = 0;
            for after in [false, true] {
                let death = Some(Death { write: 0, after });
                killed += usize::from(heat.act(&mut resource, "delete", death).await.0 == End::Killed);
            }
            deaths += killed;
            if killed == 0 {
                break;
            }
        }
    }
    heat.is(&neutron, &nothing, "the stack deleted").await;
    println!("killed {deaths} times");
    eventually("nothing of the project is on the balancer", async || {
        pair.has(0, "ltm/virtual", "ake-demo").await.is_empty().then_some(())
    })
    .await;
}
