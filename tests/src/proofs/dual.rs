//! What Services of two families promise.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{fixture, reachable, target};
use crate::{
    cluster::{Cluster, probe},
    report::Report,
    traffic::Spread,
    wait_for,
};

/// The VIPs of a Service, in the order of its status, once it has two.
fn vips(cluster: &Cluster<'_>, service: &str) -> Result<Vec<IpAddr>> {
    wait_for(&format!("two VIPs of Service {service}"), Duration::from_secs(60), || {
        let service = cluster.get(&["service", service])?;
        let entries = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let vips: Vec<IpAddr> =
            entries.iter().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
        Ok((vips.len() == 2).then_some(vips))
    })
}

/// Both VIPs answer, TCP and UDP; with policy Local the pod sees the client's address of either family. Leaves nothing.
pub fn dual_stack(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let (web, dual) = (fixture("web.yaml")?, fixture("dual.yaml")?);
    cluster.apply(&web)?;
    cluster.apply(&dual)?;
    cluster.rolled_out("deployment/web")?;
    let mut measured = Vec::new();
    let mut holds = true;
    for service in ["web-dual", "web-dual-local"] {
        let vips = vips(cluster, service)?;
        // the status is in the order of spec.ipFamilies
        ensure!(vips[0].is_ipv6() == (service == "web-dual-local"), "{service}: status says {vips:?}");
        for vip in vips {
            reachable(cluster, vip)?;
            let path = ["spread", &target(vip, 80), "--count", "20", "--path", "/clientip"];
            let seen: Spread = probe(cluster.lab, &path)?;
            holds &= seen.lost == 0;
            if service == "web-dual-local" {
                let own = if vip.is_ipv6() { "[2001:db8:51::2]:" } else { "198.51.100.2:" };
                let kept = seen.answers.keys().all(|client| client.starts_with(own));
                holds &= kept && !seen.answers.is_empty();
                measured.push(format!("{vip}: {} lost, client's address kept: {kept}", seen.lost));
            } else {
                let datagram: serde_json::Value = probe(cluster.lab, &["udp", &target(vip, 81), "hostname"])?;
                let from = datagram["from"].as_str().context("no answer to a datagram")?.to_owned();
                holds &= from == target(vip, 81);
                measured.push(format!("{vip}: {} lost, UDP from {from}", seen.lost));
            }
        }
    }
    report.proof("Services of two families answer by both", measured.join("; "), holds);
    cluster.remove(&dual)?;
    cluster.remove(&web)
}
