//! What Services of two families promise.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{balancers_with, fixture, reachable, still_with, target};
use crate::{
    cluster::{Cluster, probe},
    report::Report,
    traffic::Spread,
    wait_for,
};

/// The VIPs of a Service, in the order of its status, once it has so many.
fn vips(cluster: &Cluster<'_>, service: &str, count: usize) -> Result<Vec<IpAddr>> {
    wait_for(&format!("{count} VIPs of Service {service}"), Duration::from_secs(240), || {
        let service = cluster.get(&["service", service])?;
        let entries = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let vips: Vec<IpAddr> =
            entries.iter().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
        Ok((vips.len() == count).then_some(vips))
    })
}

/// Both VIPs answer, TCP and UDP; with policy Local the pod sees the client's address of either family; a Service that gives up
/// a family loses the VIP of that one alone, and gets one again with it. Leaves nothing.
pub fn dual_stack(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let web = fixture("web.yaml")?;
    cluster.apply(&web)?;
    cluster.rolled_out("deployment/web")?;
    dual_services(cluster, report)?;
    cluster.remove(&web)
}

/// The same where `fixtures/web.yaml` is served already.
pub fn dual_services(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let dual = fixture("dual.yaml")?;
    cluster.apply(&dual)?;
    let mut measured = Vec::new();
    let mut holds = true;
    for service in ["web-dual", "web-dual-local"] {
        let vips = vips(cluster, service, 2)?;
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
    families_change(cluster, report)?;
    cluster.remove(&dual)
}

/// A Service gives up its second family, and takes it again.
fn families_change(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let service = "web-dual";
    let becomes = |policy: &str| {
        let patch = serde_json::json!({"spec": {"ipFamilyPolicy": policy}}).to_string();
        cluster.kubectl(&["patch", "service", service, "-p", &patch]).map(drop)
    };
    let before = vips(cluster, service, 2)?;
    becomes("SingleStack")?;
    let single = vips(cluster, service, 1)?;
    let gone = still_with(cluster.lab, &before[1].to_string())?;
    let kept = balancers_with(cluster.lab, &before[0].to_string())?.len();
    reachable(cluster, single[0])?;
    becomes("RequireDualStack")?;
    let after = vips(cluster, service, 2)?;
    for vip in &after {
        reachable(cluster, *vip)?;
    }
    report.proof(
        "a Service that changes its families keeps the VIP of the one that stays",
        format!(
            "{before:?}, then {single:?} (balancers with the other: {gone:?}), then {after:?}, which answer"
        ),
        single[..] == before[..1]
            && after[0] == before[0]
            && after[1].is_ipv6()
            && gone.is_empty()
            && kept == cluster.lab.balancers().len(),
    );
    Ok(())
}
