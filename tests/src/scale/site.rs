//! A cluster of many nodes without machines: the API server, `ake-api`, the controller manager and `ake-xdp` are the
//! real programs; one host answers ARP, health checks and VIPs for all nodes.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    cloud::{self, Cloud, server_id},
    kubernetes::Kubernetes,
    services::{FIRST_PORT, MOST_SHARING},
};
use crate::apart::{self, Running, built, inside, run};

const CLUSTER: &str = "c1000000-0000-4000-8000-000000000001";
/// This host's, at the switch: clients, `ake-api` and the controller manager are here.
const OWN: &str = "172.20.0.1";
const BALANCER: &str = "172.20.0.2";
/// The host that stands for all nodes, and its MAC address.
const NODES: (&str, &str) = ("172.20.0.3", "02:00:00:00:00:03");
/// kube-proxy's, where it tells whether its node takes traffic.
const HEALTH_PORT: u16 = 10256;
const API: &str = "https://127.0.0.1:9511";
/// VIPs; RFC 2544 has set the range aside for measurements.
const VIPS: (&str, &str, &str) = ("198.18.0.0/16", "198.18.0.0", "198.18.255.255");

/// A cluster and all that it needs.
pub(super) struct Site {
    pub(super) folder: TempDir,
    pub(super) cloud: Arc<Cloud>,
    pub(super) kubernetes: Arc<Kubernetes>,
    pub(super) api: Option<Running>,
    pub(super) manager: Option<Running>,
    pub(super) balancer: Running,
    _nodes: Running,
    http: reqwest::Client,
}

impl Site {
    /// Without nodes and Services; the controller manager does not run yet. `check_ms`: from one health check of a node
    /// to the next.
    pub(super) async fn build(check_ms: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let here = folder.path();
        apart::bridge(Some(&format!("{OWN}/16")))?;
        apart::host("balancer", "02:00:00:00:00:02", &format!("{BALANCER}/16"))?;
        apart::host("nodes", NODES.1, &format!("{}/16", NODES.0))?;
        // All addresses of nodes and all VIPs are its own: it answers ARP for the first, and takes both.
        run("ip -n nodes route add local 172.20.32.0/19 dev lo")?;
        run(&format!("ip -n nodes route add local {} dev lo", VIPS.0))?;
        run(&format!("ip route add {} via {BALANCER}", VIPS.0))?;
        let mut command = inside("nodes", built("ake-probe")?);
        let ports = (FIRST_PORT..FIRST_PORT + MOST_SHARING).chain([HEALTH_PORT]);
        command.arg("serve").args(ports.map(|port| format!("0.0.0.0:{port}")));
        let mut nodes = Running::start(&mut command, here.join("nodes.log"))?;
        nodes.wait_for("ready")?;

        let local: IpAddr = Ipv4Addr::LOCALHOST.into();
        apart::certificates(here, &[local, BALANCER.parse()?])?;
        let check = format!("[check]\nperiod_ms = {check_ms}\ntimeout_ms = {}", check_ms.min(5000));
        let config = apart::balancer_config(here, BALANCER, &check)?;
        let mut command = inside("balancer", built("ake-xdp")?);
        let mut balancer =
            Running::start(command.args(["serve", "--config"]).arg(config), here.join("xdp.log"))?;
        balancer.wait_for("ready")?;

        let cloud = Cloud::start().await?;
        let kubernetes = Arc::new(Kubernetes::start(here).await?);
        let ca = reqwest::Certificate::from_pem(&std::fs::read(here.join("ca.crt"))?)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .add_root_certificate(ca)
            // The controller manager's certificate is its own.
            .danger_accept_invalid_certs(true)
            .build()?;
        let mut site =
            Self { folder, cloud, kubernetes, api: None, manager: None, balancer, _nodes: nodes, http };
        site.start_api().await?;
        site.register().await?;
        Ok(site)
    }

    /// Starts `ake-api`, and returns when it is well.
    pub(super) async fn start_api(&mut self) -> Result<()> {
        let config = self.folder.path().join("api.toml");
        std::fs::write(&config, api_config(self.folder.path()))?;
        let mut command = Command::new(built("ake-api")?);
        let command = command.args(["serve", "--config"]).arg(config);
        self.api = Some(Running::start(command, self.folder.path().join("api.log"))?);
        self.until("ake-api is well", Duration::from_secs(60), async || {
            let answer = self.http.get(format!("{API}/healthz")).send().await?;
            Ok(answer.status().is_success().then_some(()))
        })
        .await
    }

    async fn register(&self) -> Result<()> {
        let request =
            self.http.put(format!("{API}/v1/clusters/{CLUSTER}")).header("X-Auth-Token", cloud::TENANT);
        let answer = request.json(&json!({"name": "bench", "network": cloud::NETWORK})).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "registration: {status}: {text}");
        Ok(())
    }

    /// Starts the controller manager.
    pub(super) fn start_manager(&mut self) -> Result<()> {
        let here = self.folder.path();
        let config = here.join("cloud.conf");
        let text = format!(
            "[Global]\nauth-url = {}/v3\nregion = RegionOne\napplication-credential-id = bench\n\
             application-credential-secret = secret\n[AKE]\ncluster-id = {CLUSTER}\napi-url = {API}\n\
             api-ca-file = {}\n",
            cloud::URL,
            here.join("ca.crt").display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(built("ake-cloud-controller-manager")?);
        command.arg("--kubeconfig").arg(&self.kubernetes.kubeconfig).arg("--cloud-config").arg(config);
        command.args(["--bind-address", "127.0.0.1", "--controllers=*,-volume-controller"]);
        self.manager = Some(Running::start(&mut command, here.join("manager.log"))?);
        Ok(())
    }

    /// Makes nodes: their servers, and, as kubelet would, their Nodes.
    pub(super) async fn make_nodes(&self, numbers: std::ops::Range<u32>) -> Result<()> {
        for number in numbers.clone() {
            self.cloud.add(&node_name(number), number, node_address(number), NODES.1);
        }
        let nodes = numbers.map(|number| node(number, true)).collect();
        self.kubernetes.create_all("/api/v1/nodes", nodes, |_| {}).await
    }

    /// A new node, as kubelet begins it.
    pub(super) async fn join_node(&self, number: u32) -> Result<()> {
        self.cloud.add(&node_name(number), number, node_address(number), NODES.1);
        self.kubernetes.create("/api/v1/nodes", &node(number, false)).await
    }

    /// A node goes, with its server.
    pub(super) async fn remove_node(&self, number: u32) -> Result<()> {
        self.kubernetes.delete(&format!("/api/v1/nodes/{}", node_name(number))).await?;
        self.cloud.remove(number);
        Ok(())
    }

    /// What the balancer counts.
    pub(super) async fn balancer_metrics(&self) -> Result<Counts> {
        Counts::of(&self.http, &format!("http://{BALANCER}:9513/metrics")).await
    }

    /// What `ake-api` counts.
    pub(super) async fn api_metrics(&self) -> Result<Counts> {
        Counts::of(&self.http, "http://127.0.0.1:9510/metrics").await
    }

    /// What the controller manager counts.
    pub(super) async fn manager_metrics(&self) -> Result<Counts> {
        Counts::of(&self.http, "https://127.0.0.1:10258/metrics").await
    }

    /// Waits until it is so; at most so long.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        longest: Duration,
        mut look: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = tokio::time::Instant::now() + longest;
        loop {
            let seen = look().await;
            if let Ok(Some(found)) = seen {
                return Ok(found);
            }
            if tokio::time::Instant::now() > end {
                let logs = self.folder.path();
                let last = |name: &str| tail(&logs.join(name));
                let said = format!("{}\n{}\n{}", last("manager.log"), last("api.log"), last("xdp.log"));
                return Err(seen.err().unwrap_or_else(|| anyhow::anyhow!("it is not so")))
                    .with_context(|| format!("{what}: not within {} s: {said}", longest.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let cut = |line: &&str| line.chars().take(400).collect::<String>();
    lines[lines.len().saturating_sub(8)..].iter().map(cut).collect::<Vec<_>>().join("\n")
}

/// Prometheus' text, line by line.
pub(super) struct Counts(String);

impl Counts {
    async fn of(http: &reqwest::Client, url: &str) -> Result<Self> {
        Ok(Self(http.get(url).send().await?.error_for_status()?.text().await?))
    }

    /// The sum of all lines of a metric whose labels have these words.
    pub(super) fn sum(&self, name: &str, words: &[&str]) -> f64 {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let lines =
            lines.filter(|rest| rest.starts_with(['{', ' ']) && words.iter().all(|word| rest.contains(word)));
        lines.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Whether there is a line of a metric whose labels have this word.
    pub(super) fn has(&self, name: &str, word: &str) -> bool {
        self.0.lines().any(|line| line.starts_with(name) && line.contains(word))
    }
}

/// Where a VIP's port is asked.
pub(super) fn at_port(vip: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(vip.parse()?, port))
}

pub(super) fn node_name(number: u32) -> String {
    format!("node-{number:05}")
}

fn node_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 20, 32, 1)) + number)
}

/// `settled`: as the controller manager has left it, and not as kubelet begins it.
fn node(number: u32, settled: bool) -> Value {
    let name = node_name(number);
    let addresses = json!([{"type": "InternalIP", "address": node_address(number)}, {"type": "Hostname", "address": name}]);
    let range = format!("{}/24", Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number << 8)));
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
    });
    if settled {
        node["spec"]["providerID"] = json!(format!("openstack:///{}", server_id(number)));
    } else {
        let taint = json!({"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"});
        node["spec"]["taints"] = json!([taint]);
    }
    node
}

fn api_config(folder: &Path) -> String {
    let here = folder.display();
    format!(
        "listen = \"127.0.0.1:9511\"\nmetrics_listen = \"127.0.0.1:9510\"\ndatabase = \"{here}/api.sqlite\"\n\
         audit_log = \"{here}/audit.jsonl\"\n\
         [tls]\ncertificate = \"{here}/own.crt\"\nkey = \"{here}/own.key\"\n\
         [keystone]\nauth_url = \"{}/v3\"\nusername = \"ake\"\npassword = \"secret\"\nregion = \"RegionOne\"\n\
         [[network]]\nnetwork = \"{}\"\npod_pool = \"10.0.0.0/8\"\npod_prefix = 8\n\
         [[network.vip]]\nnetwork = \"{}\"\nsubnet = \"vips-v4\"\nfirst = \"{}\"\nlast = \"{}\"\nblock_prefix = 24\n\
         [device]\ndriver = \"xdp\"\nendpoints = [\"https://{BALANCER}:9512\"]\nca = \"{here}/ca.crt\"\n\
         certificate = \"{here}/own.crt\"\nkey = \"{here}/own.key\"\ncheck_sources = [\"{BALANCER}/32\"]\n\
         [quota]\naddresses = -1\nmembers = -1\nload_balancers = -1\nlisteners = -1\n",
        cloud::URL,
        cloud::NETWORK,
        cloud::VIPS,
        VIPS.1,
        VIPS.2
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_summed_by_name_and_labels() {
        let counts = Counts(
            "# HELP a A\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4\nab 7\na_total 9\nup{m=\"1\"} 1\nup{m=\"2\"} 0\n"
                .to_owned(),
        );
        assert_eq!(counts.sum("a", &[]), 7.0);
        assert_eq!(counts.sum("a", &["x=\"1\""]), 3.0);
        assert_eq!(counts.sum("ab", &[]), 7.0);
        assert!(counts.has("up", "m=\"2\"") && !counts.has("up", "m=\"3\""));
    }

    #[test]
    fn nodes_have_addresses_and_ranges_of_their_own() {
        assert_eq!(node_address(0).to_string(), "172.20.32.1");
        assert_eq!(node_address(5000).to_string(), "172.20.51.137");
        assert_eq!(node(300, true)["spec"]["podCIDR"], "10.1.44.0/24");
        assert!(node(1, false)["spec"]["providerID"].is_null());
    }
}
