//! What a node and its pods cannot do.

use anyhow::{Context, Result};

use super::Counters;
use crate::{checkout, cluster::Cluster, report::Report};

/// A node that claims another cluster's VIP by ARP, by NA or as a source address is not heard.
pub fn spoofing(
    cluster: &Cluster<'_>,
    node: &str,
    victim: &str,
    victim6: &str,
    report: &mut Report,
) -> Result<()> {
    let script = std::fs::read_to_string(checkout().join("tests/fixtures/spoof.py"))?;
    let device = cluster.exec(node, "ip -o route get 192.168.77.1 | sed 's/.* dev \\([^ ]*\\).*/\\1/'")?;
    // Counted where they would arrive: on the router's side of its port.
    let arrived = [
        format!("arp saddr ip {victim}"),
        format!("icmpv6 type nd-neighbor-advert ip6 saddr {victim6}"),
        format!("ip saddr {victim} udp dport 9"),
        format!("ip6 saddr {victim6} udp dport 9"),
    ];
    let conditions: Vec<_> = arrived.iter().map(|c| format!("{c} oifname \"p-router\"")).collect();
    let sent =
        Counters::start(cluster.lab, "spoofed", &arrived.iter().map(String::as_str).collect::<Vec<_>>())?;
    let through =
        Counters::leaving(cluster.lab, "passed", &conditions.iter().map(String::as_str).collect::<Vec<_>>())?;
    let line = format!(
        "cat > /run/spoof.py <<'EOF'\n{script}\nEOF\npython3 /run/spoof.py {device} 192.168.77.1 {victim} {victim6}"
    );
    let frames = cluster.exec(node, &line).context("the attacker's script")?;
    let (tried, passed) = (sent.read()?, through.read()?);
    report.proof(
        "a node that spoofs neighbour's VIP by ARP, by NA or as IP source is dropped",
        format!(
            "{frames} frames sent; entered the switch (ARP, NA, IPv4, IPv6): {tried:?}, left it: {passed:?}"
        ),
        tried.iter().all(|count| *count >= 10) && passed.iter().all(|count| *count == 0),
    );
    Ok(())
}

/// A node reads the metadata service, a pod on it gets no answer.
pub fn metadata(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let url = "http://169.254.169.254/openstack/latest/meta_data.json";
    let pods = cluster.pods("app=web")?;
    let (pod, node, _) = pods.first().context("a pod of app=web")?;
    let own = cluster.exec(node, &format!("curl -sm20 {url}"))?;
    let read: serde_json::Value = serde_json::from_str(&own).unwrap_or_default();
    let pod_gets = cluster.in_pod(pod, &format!("curl -sm3 -o /dev/null {url}; echo $?"))?;
    report.proof(
        "the node gets an answer from the metadata service, a pod on it none",
        format!("{node} is {}; curl in the pod ends with status {pod_gets}", read["name"]),
        read["name"] == node.as_str() && pod_gets != "0",
    );
    Ok(())
}
