//! What faults are injected into: a real API server, the real program, an imitated cloud.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    apiserver::ApiServer,
    cloud::{Cloud, NODE_ADDRESS, SERVER},
};

/// Between two looks at everything.
pub(super) const DRIFT: Duration = Duration::from_millis(500);

/// The longest that anything may take on a busy computer.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// More than may go at once.
pub(super) const SERVICES: usize = 5;

/// A controller manager that is started again whenever it ends, as systemd does.
pub(super) struct Manager {
    pub(super) folder: PathBuf,
    name: &'static str,
    words: Vec<String>,
    pub(super) running: Child,
}

/// For how long a Lease is good, and for how long its holder takes it to be.
pub(super) const SHORT: [&str; 2] = ["3s", "2s"];
pub(super) const LONG: [&str; 2] = ["120s", "110s"];

/// How one differs from what most are.
pub(super) struct Habits {
    pub(super) lease: &'static str,
    pub(super) times: [&'static str; 2],
    /// How often it looks at everything without a reason.
    pub(super) drift: Duration,
    pub(super) controllers: &'static str,
}

impl Default for Habits {
    fn default() -> Self {
        Self { lease: "first", times: SHORT, drift: DRIFT, controllers: "*,-volume-controller" }
    }
}

impl Manager {
    pub(super) fn start(server: &ApiServer, cloud: &Cloud, name: &'static str, habits: &Habits) -> Self {
        let Habits { lease, times, drift, controllers } = habits;
        let folder = server.folder().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("cloud.conf");
        std::fs::write(&config, cloud.config()).unwrap();
        let words = [
            format!("--cloud-config={}", config.display()),
            format!("--kubeconfig={}", server.kubeconfig().display()),
            "--secure-port=0".to_owned(),
            "--cluster-name=kubernetes".to_owned(),
            format!("--controllers={controllers}"),
            format!("--drift-period={}ms", drift.as_millis()),
            "--node-monitor-period=1s".to_owned(),
            format!("--leader-elect-resource-name={lease}"),
            format!("--leader-elect-lease-duration={}", times[0]),
            format!("--leader-elect-renew-deadline={}", times[1]),
            "--leader-elect-retry-period=300ms".to_owned(),
        ];
        let running = run(&folder, &words);
        Self { folder, name, words: words.to_vec(), running }
    }

    pub(super) fn keep_up(&mut self) {
        if self.running.try_wait().unwrap().is_some() {
            self.running = run(&self.folder, &self.words);
        }
    }

    /// Is told to do so at one moment of one step; see `steps.rs`.
    pub(super) fn tell(&self, what: &str) {
        std::fs::write(self.folder.join("told"), what).unwrap();
    }

    pub(super) fn was_told(&self) -> bool {
        !self.folder.join("told").exists()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.running.id()).unwrap()), signal).unwrap();
    }

    pub(super) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let from = text.lines().count().saturating_sub(40);
        format!("{}:\n{}", self.name, text.lines().skip(from).collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

fn run(folder: &std::path::Path, words: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_ake-cloud-controller-manager"))
        .args(words)
        .env("AKE_KILL", folder.join("told"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What a test plays with.
pub(super) struct Stage {
    pub(super) server: ApiServer,
    pub(super) cloud: Cloud,
    pub(super) managers: Vec<Manager>,
}

impl Stage {
    pub(super) fn wait(&mut self, what: &str, mut probe: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        loop {
            self.managers.iter_mut().for_each(Manager::keep_up);
            if probe(self) {
                return;
            }
            let logs: Vec<_> = self.managers.iter().map(Manager::log).collect();
            assert!(begun.elapsed() < PATIENCE, "{what}: not yet\n{}", logs.join("\n"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whole looks at everything, with whoever has ended started again.
    pub(super) fn let_pass(&mut self, periods: u32) {
        let begun = Instant::now();
        self.wait("time", |_| begun.elapsed() > periods * DRIFT);
    }

    /// Returns once nobody has read the cluster for a while: what followed from the last change has been looked at.
    pub(super) fn rest(&mut self) {
        let begun = Instant::now();
        loop {
            let looks = self.cloud.look().looks;
            self.let_pass(4);
            if self.cloud.look().looks == looks {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the cluster is read without a rest");
        }
    }

    pub(super) fn get(&self, words: &[&str]) -> Value {
        let begun = Instant::now();
        loop {
            let out = self.server.kubectl(&[&["get", "-o", "json"], words].concat(), "");
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            if out.status.success() || why.contains("NotFound") {
                return serde_json::from_slice(&out.stdout).unwrap_or_default();
            }
            assert!(begun.elapsed() < PATIENCE, "{why}");
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    pub(super) fn make(&self, name: &str, port: usize) {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": port}]}});
        self.server.apply(&service.to_string()).unwrap();
    }

    /// Says of the only node whether it is ready, as its kubelet or the node controller would.
    pub(super) fn node_is(&self, ready: &str) {
        let status =
            json!({"status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Test"}]}})
                .to_string();
        let out = self.server.kubectl(&["patch", "node", "w0", "--subresource=status", "-p", &status], "");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Deletes a Service, and returns once it is gone.
    pub(super) fn end(&mut self, name: &str) {
        assert!(self.server.kubectl(&["delete", "service", name, "--wait=false"], "").status.success());
        self.wait("the end of a deleted Service", |stage| stage.get(&["service", name]).is_null());
    }

    /// Names of Services and their finalizers.
    pub(super) fn finalizers(&self) -> Vec<(String, String)> {
        let services = self.get(&["services", "-n", "default"]);
        let all = services["items"].as_array().cloned().unwrap_or_default();
        let of = |service: &Value| {
            (service["metadata"]["name"].to_string(), service["metadata"]["finalizers"].to_string())
        };
        all.iter().map(of).collect()
    }

    /// Names of Services and the addresses that they tell.
    pub(super) fn published(&self) -> Vec<(String, String)> {
        let services = self.get(&["services", "-n", "default"]);
        let all = services["items"].as_array().cloned().unwrap_or_default();
        let address = |service: &Value| {
            let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?.to_owned();
            Some((service["metadata"]["name"].as_str()?.to_owned(), ip))
        };
        all.iter().filter_map(address).collect()
    }
}

pub(super) fn furnished(services: usize) -> Stage {
    let (server, cloud) = (ApiServer::start(), Cloud::start());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w0"},
        "spec": {"providerID": format!("openstack:///{SERVER}"), "podCIDR": "10.240.1.0/24", "podCIDRs": ["10.240.1.0/24"]}});
    server.apply(&node.to_string()).unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test"}]}});
    let out = server.kubectl(&["patch", "node", "w0", "--subresource=status", "-p", &status.to_string()], "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let manager = Manager::start(&server, &cloud, "a", &Habits::default());
    let mut stage = Stage { server, cloud, managers: vec![manager] };
    for index in 0..services {
        stage.make(&format!("s{index}"), 8000 + index);
    }
    stage.wait("addresses of all", |stage| stage.published().len() == services);
    stage
}
