//! A real API server with its etcd on loopback, and as much of a client of it as is needed to make thousands of objects.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{apart::Running, output};

const TOKEN: &str = "administrator";
const SERVER: &str = "https://127.0.0.1:6443";
/// Requests at a time.
const AT_ONCE: usize = 16;

/// Runs until dropped.
pub(super) struct Kubernetes {
    _running: Vec<Running>,
    /// How the programs reach it.
    pub(super) kubeconfig: PathBuf,
    http: reqwest::Client,
}

impl Kubernetes {
    /// Starts both, and returns when the API server is ready.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let programs = programs()?;
        let at = |name: &str| folder.join(name).display().to_string();
        let etcd = "http://127.0.0.1:2379";
        let mut command = Command::new(programs.join("etcd"));
        command.arg(format!("--data-dir={}", at("etcd")));
        command.args([&format!("--listen-client-urls={etcd}"), &format!("--advertise-client-urls={etcd}")]);
        // Nothing here outlives the measurement.
        command.args(["--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync"]);
        let mut running = vec![Running::start(&mut command, folder.join("etcd.log"))?];
        output(Command::new("openssl").args(["genrsa", "-out", &at("account.pem"), "2048"]))?;
        std::fs::write(at("tokens.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n"))?;
        let mut command = Command::new(programs.join("kube-apiserver"));
        command.args([
            &format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--secure-port=6443",
            &format!("--cert-dir={}", at("certificates")),
            &format!("--token-auth-file={}", at("tokens.csv")),
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", at("account.pem")),
            &format!("--service-account-signing-key-file={}", at("account.pem")),
            // There is no controller manager that would make accounts for it.
            "--disable-admission-plugins=ServiceAccount",
        ]);
        running.push(Running::start(&mut command, folder.join("kube-apiserver.log"))?);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": SERVER, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "admin"}}],
        });
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string())?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .danger_accept_invalid_certs(true)
            .connect_timeout(Duration::from_secs(5))
            .build()?;
        let server = Self { _running: running, kubeconfig, http };
        let ready = async {
            while server.get("/readyz").await.is_err() {
                pause().await
            }
        };
        tokio::time::timeout(Duration::from_secs(90), ready).await.context("the API server is not ready")?;
        // What others wait for: the namespace that objects are made in.
        let there = async {
            while server.get("/api/v1/namespaces/default").await.is_err() {
                pause().await
            }
        };
        tokio::time::timeout(Duration::from_secs(30), there).await.context("there is no namespace")?;
        Ok(server)
    }

    /// What a path answers.
    pub(super) async fn get(&self, path: &str) -> Result<String> {
        let answer = self.http.get(format!("{SERVER}{path}")).bearer_auth(TOKEN).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// An answer that goes on.
    pub(super) async fn stream(&self, path: &str) -> Result<reqwest::Response> {
        let answer = self.http.get(format!("{SERVER}{path}")).bearer_auth(TOKEN).send().await?;
        Ok(answer.error_for_status()?)
    }

    /// Makes an object.
    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let answer = self.http.post(format!("{SERVER}{path}")).bearer_auth(TOKEN).json(object).send().await?;
        told(path, answer).await
    }

    /// Deletes an object.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        let answer = self.http.delete(format!("{SERVER}{path}")).bearer_auth(TOKEN).send().await?;
        told(path, answer).await
    }

    /// Changes an object by a merge patch.
    pub(super) async fn merge(&self, path: &str, change: &Value) -> Result<()> {
        let request = self.http.patch(format!("{SERVER}{path}")).bearer_auth(TOKEN);
        let request = request.header("Content-Type", "application/merge-patch+json");
        told(path, request.body(change.to_string()).send().await?).await
    }

    /// Makes objects, several at a time; `made` is told each one's place when the API server has it.
    pub(super) async fn create_all(
        &self,
        path: &str,
        objects: Vec<Value>,
        mut made: impl FnMut(usize),
    ) -> Result<()> {
        let mut under_way = JoinSet::new();
        let mut waiting = objects.into_iter().enumerate();
        loop {
            while under_way.len() < AT_ONCE
                && let Some((place, object)) = waiting.next()
            {
                let request = self.http.post(format!("{SERVER}{path}")).bearer_auth(TOKEN).json(&object);
                let path = path.to_owned();
                under_way.spawn(async move { (place, request.send().await.map(|answer| (path, answer))) });
            }
            let Some(done) = under_way.join_next().await else { return Ok(()) };
            let (place, answer) = done?;
            let (path, answer) = answer?;
            told(&path, answer).await?;
            made(place);
        }
    }

    /// Writes to Services, Nodes and their status that the API server has taken, by anybody.
    pub(super) async fn writes(&self) -> Result<f64> {
        let text = self.get("/metrics").await?;
        let counted = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let counted = counted.filter(|line| {
            ["services", "nodes"].iter().any(|kind| line.contains(&format!("resource=\"{kind}\"")))
                && ["POST", "PUT", "PATCH", "DELETE", "APPLY"]
                    .iter()
                    .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
        });
        Ok(counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}

async fn told(path: &str, answer: reqwest::Response) -> Result<()> {
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("{path}: {status}: {text}");
    }
    Ok(())
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Where `make image` puts them.
fn programs() -> Result<PathBuf> {
    let folder = ake_lab::Dirs::of("bench")?.cache.join("kubernetes");
    if !folder.join("kube-apiserver").exists() {
        bail!("{}: expected what `make image` puts there", folder.display());
    }
    Ok(folder)
}
