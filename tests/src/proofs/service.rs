//! What direct server return promises of a Service.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;

use super::{Background, Counters, target};
use crate::{
    cluster::{Cluster, probe},
    report::Report,
    traffic::Spread,
    wait_for,
};

/// Waits until a VIP answers a good request.
pub fn reachable(cluster: &Cluster<'_>, vip: IpAddr) -> Result<()> {
    wait_for(&format!("an answer from {vip}:80"), Duration::from_secs(120), || {
        let seen: Spread = probe(cluster.lab, &["spread", &target(vip, 80), "--count", "1"])?;
        Ok((seen.lost == 0).then_some(()))
    })
    .map_err(|error| error.context(cluster.as_it_is()))
}

/// The answer carries the VIP as its source, TCP and UDP.
pub fn answers_from_vip(cluster: &Cluster<'_>, vip: IpAddr, report: &mut Report) -> Result<()> {
    let counters = Counters::start(
        cluster.lab,
        "answers",
        &[&format!("ip saddr {vip} tcp sport 80"), "ip daddr 198.51.100.2 tcp sport 8080"],
    )?;
    let seen: Spread = probe(cluster.lab, &["spread", &target(vip, 80), "--count", "20"])?;
    let counts = counters.read()?;
    let datagram: serde_json::Value = probe(cluster.lab, &["udp", &target(vip, 81), "hostname"])?;
    let from = datagram["from"].as_str().unwrap_or_default();
    report.proof(
        "the answer comes from the VIP",
        format!(
            "{} answers of 20 lost {}; {} frames from {vip}:80, {} from a pod's port; UDP from {from}",
            20 - seen.lost,
            seen.lost,
            counts[0],
            counts[1]
        ),
        seen.lost == 0 && counts[0] > 0 && counts[1] == 0 && from == target(vip, 81),
    );
    Ok(())
}

/// The balancers' ports carry requests and no answer.
pub fn past_the_balancer(cluster: &Cluster<'_>, vip: IpAddr, report: &mut Report) -> Result<()> {
    let ports = "{ \"p-balancer\", \"p-balancer2\" }";
    let port = format!("iifname {ports}");
    let counters = Counters::start(
        cluster.lab,
        "balancer",
        &[
            &format!("{port} ip daddr {vip}"),
            &format!("{port} ip saddr {vip}"),
            &format!("iifname != {ports} ip saddr {vip}"),
        ],
    )?;
    let _: Spread = probe(cluster.lab, &["spread", &target(vip, 80), "--count", "100"])?;
    let counts = counters.read()?;
    report.proof(
        "of the frames to or from a VIP the balancer sends only requests",
        format!(
            "{} requests and {} answers left its port; {} answers went past it",
            counts[0], counts[1], counts[2]
        ),
        counts[0] > 0 && counts[1] == 0 && counts[2] > 0,
    );
    Ok(())
}

/// With the Local policy the pod sees the client.
pub fn client_address(cluster: &Cluster<'_>, vip: IpAddr, report: &mut Report) -> Result<()> {
    let seen: Spread =
        probe(cluster.lab, &["spread", &target(vip, 80), "--path", "/clientip", "--count", "20"])?;
    let clients: Vec<_> =
        seen.answers.keys().map(|a| a.rsplit_once(':').map_or(a.as_str(), |(host, _)| host)).collect();
    report.proof(
        "with externalTrafficPolicy Local the pod sees the client's address",
        format!("{} answers, {} lost, clients seen: {:?}", 20 - seen.lost, seen.lost, distinct(&clients)),
        seen.lost == 0 && clients.iter().all(|client| *client == "198.51.100.2") && !clients.is_empty(),
    );
    Ok(())
}

/// 1,000 connections fall on the nodes as the ring says: the pods' own count against the balancer's shares.
pub fn ring(cluster: &Cluster<'_>, vip: IpAddr, report: &mut Report) -> Result<()> {
    let pods = cluster.pods("app=web")?;
    let before = shares(cluster, "web-local")?;
    let seen: Spread = probe(cluster.lab, &["spread", &target(vip, 80), "--count", "1000"])?;
    let after = shares(cluster, "web-local")?;
    let mut holds = seen.lost == 0 && !after.is_empty();
    let mut told = Vec::new();
    for (node, (slots, share, flows)) in &after {
        let pod =
            pods.iter().find(|(_, on, _)| on == node).map(|(name, ..)| name.clone()).unwrap_or_default();
        let answered = seen.answers.get(&pod).copied().unwrap_or_default();
        let counted = flows - before.get(node).map_or(0, |(_, _, flows)| *flows);
        // Four standard deviations of a binomial: wrong once in 16,000 runs.
        let expected = 1000.0 * share;
        let slack = 4.0 * (1000.0 * share * (1.0 - share)).sqrt();
        holds &= (f64::from(answered) - expected).abs() <= slack && u64::from(answered) == counted;
        told.push(format!(
            "{node}: {slots} ring slots, {expected:.0} expected, {counted} sent, {answered} answered"
        ));
    }
    report.proof("1,000 connections fall on the nodes as the ring says", told.join("; "), holds);
    Ok(())
}

type Shares = std::collections::BTreeMap<String, (u64, f64, u64)>;

/// Per member of a Service's own pool: slots of the ring, its share, flows so far.
fn shares(cluster: &Cluster<'_>, service: &str) -> Result<Shares> {
    let service = cluster.get(&["service", service])?;
    let pool = format!("/local-{}", service["metadata"]["uid"].as_str().unwrap_or_default());
    let status = cluster.lab.balancer_status()?;
    let mut found: Vec<(String, u64, u64)> = Vec::new();
    for own in status["pools"].as_array().into_iter().flatten() {
        if !own["owner"].as_str().is_some_and(|owner| owner.ends_with(&pool)) {
            continue;
        }
        for member in own["members"].as_array().into_iter().flatten() {
            let number = |key: &str| member[key].as_u64().unwrap_or_default();
            let name = member["name"].as_str().unwrap_or_default().to_owned();
            found.push((name, number("slots"), number("new_flows")));
        }
    }
    let all: u64 = found.iter().map(|(_, slots, _)| slots).sum();
    Ok(found
        .into_iter()
        .map(|(name, slots, flows)| (name, (slots, slots as f64 / all.max(1) as f64, flows)))
        .collect())
}

/// A worker ends under a request loop to a Service of policy Local, whose members the balancer checks pod by pod
/// (with policy Cluster the other node's kube-proxy goes on trying the lost pod until Kubernetes gives the node up):
/// how many requests are lost, and until when. First it loses power and comes back, then it is shut down.
pub fn ending_worker(
    cluster: &Cluster<'_>,
    vip: IpAddr,
    server: &str,
    tenant: &crate::tenant::Tenant<'_>,
    report: &mut Report,
) -> Result<()> {
    under_load(cluster, vip, "a worker loses power and comes back under a request loop", report, |report| {
        report.command(&format!("ake-lab exec {server} -- systemctl reboot -ff"));
        let begun = cluster.exec(server, "cut -d' ' -f22 /proc/1/stat")?;
        // The machine is gone before it can answer.
        cluster.lab.exec(server, &["systemctl", "reboot", "-ff"])?;
        wait_for(&format!("{server} to come back"), Duration::from_secs(400), || {
            let now = cluster.exec(server, "cut -d' ' -f22 /proc/1/stat")?;
            Ok((now != begun).then_some(()))
        })?;
        // Its kube-proxy speaks for its pod before the pod runs again; the loop goes on until it does.
        wait_for(&format!("the pod on {server} to answer again"), Duration::from_secs(400), || {
            let members = shares(cluster, "web-local")?;
            let taken = members.get(server).is_some_and(|(slots, ..)| *slots > 0);
            let pods = cluster.get(&[
                "pods",
                "-l",
                "app=web",
                "--field-selector",
                &format!("spec.nodeName={server}"),
            ])?;
            let ready = crate::cluster::items(&pods).iter().any(|pod| {
                pod["status"]["containerStatuses"][0]["ready"] == true
                    && pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default() > 0
            });
            Ok((taken && ready).then_some(()))
        })
    })?;
    under_load(cluster, vip, "a worker is stopped under a request loop", report, |report| {
        report.command(&format!("openstack server stop {server}"));
        tenant.openstack(&["server", "stop", server]).map(drop)
    })
}

/// Requests at 50 a second while something is done, and until none has failed for some seconds.
fn under_load(
    cluster: &Cluster<'_>,
    vip: IpAddr,
    claim: &str,
    report: &mut Report,
    deed: impl FnOnce(&mut Report) -> Result<()>,
) -> Result<()> {
    let running = Background::start_until_calm(cluster.lab, &target(vip, 80), "/hostname", 50, CALM)?;
    std::thread::sleep(Duration::from_secs(1));
    let done = deed(report);
    std::thread::sleep(Duration::from_secs(CALM));
    let seen = running.end()?;
    done?;
    let calm: Spread = probe(cluster.lab, &["spread", &target(vip, 80), "--count", "100"])?;
    report.proof(
        claim,
        format!(
            "{} of {} requests lost{}, {:.1} s until none fails, then {} of 100 lost{}",
            seen.lost,
            seen.sent,
            met(&seen.complaints),
            seen.seconds_of_loss(),
            calm.lost,
            met(&calm.complaints)
        ),
        calm.lost == 0 && seen.sent > seen.lost,
    );
    Ok(())
}

/// What failed requests met, in brackets; nothing where none failed.
fn met(complaints: &std::collections::BTreeMap<String, u32>) -> String {
    if complaints.is_empty() {
        return String::new();
    }
    let met: Vec<String> = complaints.iter().map(|(what, count)| format!("{count} {what}")).collect();
    format!(" ({})", met.join(", "))
}

/// So many seconds without a failed request end an episode.
const CALM: u64 = 9;

fn distinct<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut words = words.to_vec();
    words.sort_unstable();
    words.dedup();
    words
}
