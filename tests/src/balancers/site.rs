//! The network of the comparison: a client, two nodes, and a host for each balancer, all on one switch.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::{Way, interrupts, processed, witness::Witness};
use crate::{
    apart::{self, Running, bridge, built, host, inside, run, set},
    load::Load,
    output, wait_for,
};

/// Of all but the balancers.
const OTHERS: usize = 0;
/// Of the balancers.
const BALANCERS: usize = 1;

const CLIENT: &str = "192.168.77.9";
/// The client's address towards what comes back by way of nftables' host.
const CLIENT_BACK: &str = "192.168.78.9";
/// The client's address towards ake-xdp. Servers see no other difference between what comes by that way and by none: a
/// port that the client takes again would meet there the other way's connection in TIME-WAIT. Timestamps begin elsewhere for
/// each destination; where those are earlier, the server takes the SYN for an old one (RFC 7323, section 5), and the client
/// tries again a second later.
const CLIENT_XDP: &str = "192.168.79.9";
/// Name, MAC address and address.
const NODES: [(&str, &str, &str); 2] =
    [("n1", "02:00:00:00:00:21", "192.168.77.21"), ("n2", "02:00:00:00:00:22", "192.168.77.22")];
/// Host, MAC address, address and VIP of each balancer.
const XDP: (&str, &str, &str, &str) = ("xdp", "02:00:00:00:00:11", "192.168.77.11", "203.0.113.1");
const HAPROXY: (&str, &str, &str, &str) = ("haproxy", "02:00:00:00:00:12", "192.168.77.12", "203.0.113.2");
const NFTABLES: (&str, &str, &str, &str) = ("nftables", "02:00:00:00:00:13", "192.168.77.13", "203.0.113.3");

/// All that is needed; it runs until this goes.
pub(super) struct Site {
    _folder: TempDir,
    _nodes: Vec<Running>,
    xdp: Running,
    haproxy: Running,
}

impl Site {
    pub(super) fn build() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        bridge(None)?;
        client()?;
        let nodes = NODES.map(|(name, mac, address)| node(folder.path(), name, mac, address));
        let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
        let (xdp, haproxy) = (xdp(folder.path())?, haproxy(folder.path())?);
        nftables(folder.path())?;
        for (name, processor) in [
            ("client", OTHERS),
            ("n1", OTHERS),
            ("n2", OTHERS),
            (XDP.0, BALANCERS),
            (HAPROXY.0, BALANCERS),
            (NFTABLES.0, BALANCERS),
        ] {
            steer(name, &[name], processor)?;
        }
        let site = Self { _folder: folder, _nodes: nodes, xdp, haproxy };
        for way in [Way::Direct, Way::Xdp, Way::Haproxy, Way::Nftables] {
            wait_for(&format!("an answer by {way}"), Duration::from_secs(20), || {
                let load = site.load(way, 1, Duration::from_millis(50), false)?;
                ensure!(load.requests > 0 && load.failed == 0, "{load:?}");
                Ok(Some(()))
            })?;
        }
        Ok(site)
    }

    /// Requests by one way for so long.
    pub(super) fn load(&self, way: Way, connections: usize, length: Duration, kept: bool) -> Result<Load> {
        let target = match way {
            // One node after the other would be another load: it stands for what the path itself allows.
            Way::Direct => NODES[0].2,
            Way::Xdp => XDP.3,
            Way::Haproxy => HAPROXY.3,
            Way::Nftables => NFTABLES.3,
        };
        let target: SocketAddr = format!("{target}:80").parse()?;
        let mut command = pinned("client", OTHERS);
        command.arg(built("ake-probe")?).args(["load", &target.to_string()]);
        command.args(["--connections", &connections.to_string()]);
        command.args(["--milliseconds", &length.as_millis().to_string()]);
        if kept {
            command.arg("--kept");
        }
        serde_json::from_str(&output(&mut command)?).context("ake-probe load")
    }

    /// What hosts and `ake-xdp` count now.
    pub(super) fn witness(&self) -> Result<Witness> {
        let (name, _, address, _) = XDP;
        let hosts = ["client", NODES[0].0, NODES[1].0, XDP.0];
        Witness::look(&hosts, name, &format!("http://{address}:9513/metrics"), &self.xdp.log)
    }

    /// What changed, for people.
    pub(super) fn since(&self, before: &Witness) -> Result<String> {
        self.witness()?.since(before, &self.xdp.log)
    }

    /// Seconds that a balancer's processor was in interrupts meanwhile, and its process ran.
    pub(super) fn busy_during<T>(&self, way: Way, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
        let process = match way {
            Way::Xdp => Some(self.xdp.pid()),
            Way::Haproxy => Some(self.haproxy.pid()),
            Way::Direct | Way::Nftables => None,
        };
        let now = || -> Result<f64> {
            let own = match process {
                Some(process) => processed(&fs::read_to_string(format!("/proc/{process}/stat"))?)?,
                None => 0.0,
            };
            Ok(own + interrupts(&fs::read_to_string("/proc/stat")?, BALANCERS)?)
        };
        let before = now()?;
        let done = work()?;
        Ok((now()? - before, done))
    }
}

/// A command on a host and a processor.
fn pinned(name: &str, processor: usize) -> Command {
    let mut command = inside(name, "taskset");
    command.args(["-c", &processor.to_string()]);
    command
}

/// Has a processor work on what hosts receive, and the switch's ports to them on what those send.
fn steer(what: &str, hosts: &[&str], processor: usize) -> Result<()> {
    let mask = |processor: usize| format!("{:x}", 1 << processor);
    let file = |device: &str| format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
    for name in hosts {
        let write = format!("echo {} > {}", mask(processor), file("eth0"));
        output(inside(name, "sh").args(["-c", &write])).with_context(|| format!("steering of {what}"))?;
        fs::write(file(name), mask(OTHERS)).with_context(|| format!("steering of the switch to {what}"))?;
    }
    Ok(())
}

fn client() -> Result<()> {
    host("client", "02:00:00:00:00:09", &format!("{CLIENT}/24"))?;
    for address in [CLIENT_BACK, CLIENT_XDP] {
        run(&format!("ip -n client address add {address}/32 dev lo"))?;
    }
    for ((_, _, address, vip), own) in [(XDP, CLIENT_XDP), (HAPROXY, CLIENT), (NFTABLES, CLIENT_BACK)] {
        run(&format!("ip -n client route add {vip}/32 via {address} src {own}"))?;
    }
    set("client", &[("ipv4.ip_local_port_range", "1024 65535")])
}

/// A node: a server at a pod's address, and what kube-proxy would have made of its own address and of VIPs.
fn node(folder: &Path, name: &str, mac: &str, address: &str) -> Result<Running> {
    host(name, mac, &format!("{address}/24"))?;
    let pod = address.replace("192.168.77.", "10.240.77.");
    run(&format!("ip -n {name} address add {pod}/32 dev lo"))?;
    for (own, by) in [(CLIENT_BACK, NFTABLES.2), (CLIENT_XDP, CLIENT)] {
        run(&format!("ip -n {name} route add {own}/32 via {by}"))?;
    }
    rules(
        folder,
        name,
        &format!(
            "table ip services {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat;\n\
             ip daddr {{ {address}, {} }} tcp dport 80 dnat to {pod}:8080\n}}\n}}\n",
            XDP.3
        ),
    )?;
    let mut command = pinned(name, OTHERS);
    command.arg(built("ake-probe")?).args(["serve", &format!("{pod}:8080")]);
    let mut server = Running::start(&mut command, folder.join(format!("{name}.log")))?;
    server.wait_for("ready")?;
    Ok(server)
}

/// Loads rules of netfilter. Connections that have ended are forgotten soon, or their table would be full.
fn rules(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(format!("{name}.nft"));
    fs::write(&file, text)?;
    output(inside(name, "nft").arg("-f").arg(&file))?;
    let timeouts = ["time_wait", "close", "close_wait", "last_ack", "fin_wait"]
        .map(|state| format!("netfilter.nf_conntrack_tcp_timeout_{state}"));
    set(name, &timeouts.each_ref().map(|key| (key.as_str(), "1")))
}

fn xdp(folder: &Path) -> Result<Running> {
    let (name, mac, address, vip) = XDP;
    host(name, mac, &format!("{address}/24"))?;
    apart::certificates(folder, &[address.parse()?])?;
    let config = apart::balancer_config(folder, address, "")?;
    let members: Vec<_> = NODES
        .iter()
        .map(|(name, mac, address)| json!({"name": name, "address": address, "mac": mac, "weight": 1}))
        .collect();
    // The state that it would have kept; it is in force before it listens.
    let state = json!({
        "version": {"epoch": 1, "number": 1},
        "pools": [{"owner": "bench/bench/nodes", "members": members, "checks": [{"type": "tcp", "port": 80}]}],
        "load_balancers": [{"owner": "bench/bench/web", "vip": vip,
                            "listeners": [{"protocol": "TCP", "port": 80, "pool": "bench/bench/nodes"}]}],
    });
    fs::write(folder.join("state.json"), state.to_string())?;
    let mut command = pinned(name, BALANCERS);
    command.arg(built("ake-xdp")?).args(["serve", "--config"]).arg(config);
    let mut balancer = Running::start(&mut command, folder.join("xdp.log"))?;
    balancer.wait_for("ready")?;
    wait_for("both nodes well", Duration::from_secs(20), || {
        let url = format!("http://{address}:9513/metrics");
        let text = output(inside(name, "curl").args(["-sS", &url]).stderr(Stdio::null()))?;
        let well = text.lines().filter(|line| line.starts_with("ake_xdp_member_up") && line.ends_with(" 1"));
        Ok((well.count() == NODES.len()).then_some(()))
    })?;
    Ok(balancer)
}

fn haproxy(folder: &Path) -> Result<Running> {
    let (name, mac, address, vip) = HAPROXY;
    host(name, mac, &format!("{address}/24"))?;
    run(&format!("ip -n {name} address add {vip}/32 dev lo"))?;
    set(name, &[("ipv4.ip_local_port_range", "1024 65535")])?;
    let servers = NODES.map(|(name, _, address)| format!("  server {name} {address}:80 check inter 1s\n"));
    let text = format!(
        "global\n  maxconn 4000\n  nbthread 1\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend clients\n  bind {vip}:80\n  default_backend nodes\n\
         backend nodes\n  balance roundrobin\n{}",
        servers.concat()
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = pinned(name, BALANCERS);
    command.args(["haproxy", "-db", "-f"]).arg(file);
    Running::start(&mut command, folder.join("haproxy.log"))
}

fn nftables(folder: &Path) -> Result<()> {
    let (name, mac, address, vip) = NFTABLES;
    host(name, mac, &format!("{address}/24"))?;
    run(&format!("ip -n {name} route add {CLIENT_BACK}/32 via {CLIENT}"))?;
    set(
        name,
        &[
            ("ipv4.ip_forward", "1"),
            ("ipv4.conf.all.send_redirects", "0"),
            ("ipv4.conf.eth0.send_redirects", "0"),
        ],
    )?;
    rules(
        folder,
        name,
        &format!(
            "table ip balancer {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat;\n\
             ip daddr {vip} tcp dport 80 dnat to numgen inc mod 2 map {{ 0 : {}, 1 : {} }}\n}}\n}}\n",
            NODES[0].2, NODES[1].2
        ),
    )
}
