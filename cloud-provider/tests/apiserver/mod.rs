//! A real API server with its etcd on loopback, from the programs that nodes are baked from.

use std::{
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Whom the API server lets do anything.
const TOKEN: &str = "administrator";

/// Runs until dropped.
pub(crate) struct ApiServer {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// etcd and the API server, each with its words.
    plan: [(&'static str, Vec<String>); 2],
    running: Vec<Child>,
}

impl ApiServer {
    /// Starts both, and returns when the API server is ready.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let [client, peer, secure] = free_ports();
        let etcd = format!("http://127.0.0.1:{client}");
        let words_of_etcd = vec![
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            // Nothing here outlives the test.
            "--unsafe-no-fsync".to_owned(),
        ];
        let key = Command::new("openssl").args(["genrsa", "-out", &at("key.pem"), "2048"]).output().unwrap();
        assert!(key.status.success(), "{}", String::from_utf8_lossy(&key.stderr));
        std::fs::write(at("tokens.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n")).unwrap();
        let words = vec![
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={secure}"),
            format!("--cert-dir={}", at("certificates")),
            format!("--token-auth-file={}", at("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", at("key.pem")),
            format!("--service-account-signing-key-file={}", at("key.pem")),
            // There is no controller manager that would make accounts for it.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{secure}"), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        });
        std::fs::write(at("kubeconfig"), config.to_string()).unwrap();
        let plan = [("etcd", words_of_etcd), ("kube-apiserver", words)];
        let mut server = Self { folder, programs, plan, running: Vec::new() };
        server.go_on();
        server
    }

    /// Starts both, and returns when the API server is ready.
    fn go_on(&mut self) {
        for (name, words) in &self.plan {
            let log = self.folder.path().join(format!("{name}.log"));
            self.running.push(start(&self.programs, name, &log, words));
        }
        let begun = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"], "").status.success() {
            assert!(begun.elapsed() < Duration::from_secs(300), "{}", self.log());
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Ends both at once, as a loss of power does.
    fn halt(&mut self) {
        for mut child in self.running.drain(..).rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the API server in the midst of its work, or lets it go on; etcd is left alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.running[1].id()).unwrap()), signal).unwrap();
    }

    /// Where all of it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps a copy of what etcd has now.
    pub(crate) fn keep_etcd(&self) {
        let etcd = Pid::from_raw(i32::try_from(self.running[0].id()).unwrap());
        // What it has written so far is what it would find after a loss of power.
        kill(etcd, Signal::SIGSTOP).unwrap();
        copy(&self.folder.path().join("etcd"), &self.folder.path().join("kept"));
        kill(etcd, Signal::SIGCONT).unwrap();
    }

    /// Both go on with what was kept.
    pub(crate) fn put_back_etcd(&mut self) {
        self.halt();
        std::fs::remove_dir_all(self.folder.path().join("etcd")).unwrap();
        copy(&self.folder.path().join("kept"), &self.folder.path().join("etcd"));
        self.go_on();
    }

    /// Both go on with nothing.
    pub(crate) fn lose_etcd(&mut self) {
        self.halt();
        std::fs::remove_dir_all(self.folder.path().join("etcd")).unwrap();
        self.go_on();
    }

    /// How it is reached.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// kubectl with these words and this standard input.
    pub(crate) fn kubectl(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(self.programs.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["--request-timeout=60s", "--cache-dir"])
            .arg(self.folder.path().join("cache"))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Applies an object; what it was refused with, if it was.
    pub(crate) fn apply(&self, object: &str) -> Result<(), String> {
        let out = self.kubectl(&["apply", "-f", "-"], object);
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("apiserver.log")).unwrap_or_default()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.halt();
    }
}

fn copy(from: &Path, to: &Path) {
    let out = Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn start(programs: &Path, name: &str, log: &Path, words: &[String]) -> Child {
    let log = std::fs::File::create(log).unwrap();
    let errors = log.try_clone().unwrap();
    Command::new(programs.join(name))
        .args(words)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("{name} (made by `make image`): {error}"))
}

/// Where `make image` puts them.
fn programs() -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned())).join(".cache");
    std::env::var("XDG_CACHE_HOME").map_or_else(|_| home(), PathBuf::from).join("ake/kubernetes")
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
