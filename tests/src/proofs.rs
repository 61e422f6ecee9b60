//! What is measured in a run, claim by claim. Each takes a cluster that serves `fixtures/web.yaml`.

use std::{
    net::IpAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use ake_lab::Lab;
use anyhow::{Context, Result};

use crate::{
    checkout,
    cluster::{Cluster, probe, probe_command},
    output,
    report::Report,
    tenant::Tenant,
    traffic::{Latency, Loop, Spread},
    wait_for,
};

mod counters;
mod dual;
mod security;
mod service;

pub use counters::Counters;
pub use dual::{dual_services, dual_stack};
pub use security::{metadata, spoofing};
pub use service::{answers_from_vip, client_address, ending_worker, past_the_balancer, reachable, ring};

/// A loop of requests that runs beside the work.
pub struct Background {
    child: std::process::Child,
    stop: std::path::PathBuf,
}

impl Background {
    /// Starts asking `target` at so many requests a second.
    pub fn start(lab: &Lab, target: &str, path: &str, rate: u32) -> Result<Self> {
        Self::start_until_calm(lab, target, path, rate, 0)
    }

    /// The same, which goes on after its end was asked for until none failed for so many seconds.
    pub fn start_until_calm(lab: &Lab, target: &str, path: &str, rate: u32, calm: u64) -> Result<Self> {
        let stop = lab
            .dirs()
            .state
            .join("tenants")
            .join(format!("stop-{}", target.replace([':', '.', '[', ']'], "-")));
        let _ = std::fs::remove_file(&stop);
        let child = probe_command(lab)?
            .args([
                "loop",
                target,
                "--path",
                path,
                "--seconds",
                "600",
                "--rate",
                &rate.to_string(),
                "--calm",
                &calm.to_string(),
                "--until",
            ])
            .arg(&stop)
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { child, stop })
    }

    /// Ends it; what it met.
    pub fn end(self) -> Result<Loop> {
        std::fs::write(&self.stop, "")?;
        let out = self.child.wait_with_output()?;
        let _ = std::fs::remove_file(&self.stop);
        serde_json::from_slice(&out.stdout).context("a loop of requests that did not report")
    }
}

/// `address:port`, or `[address]:port`.
#[must_use]
pub fn target(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// Pods on two nodes reach each other over a plain route, and what is on the wire is the pods' own packets.
pub fn host_gateway(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let pods = cluster.pods("app=web")?;
    let [(first, near, _), (_, far, address), ..] = pods.as_slice() else {
        anyhow::bail!("two pods of app=web are needed, there are {}", pods.len());
    };
    let counters = Counters::start(cluster.lab, "pods", &["ip saddr 10.240.0.0/12 ip daddr 10.240.0.0/12"])?;
    let answer = cluster.in_pod(first, &format!("curl -sm20 http://{address}:8080/clientip"))?;
    let plain = counters.read()?[0];
    let route = cluster.exec(near, &format!("ip route get {address}"))?;
    let route = route.lines().next().unwrap_or_default().trim().to_owned();
    let direct = route.contains(" via ") && route.contains("dev e") && near != far;
    report.proof(
        "pods of two nodes meet over host-gw, without encapsulation",
        format!("{route}; {plain} plain pod-to-pod frames in the switch; the pod saw {answer}"),
        direct && plain > 0 && answer.starts_with("10.2"),
    );
    Ok(())
}

/// Round trip and throughput through the balancer, against straight to the node.
pub fn speed(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    cluster.apply(&fixture("iperf.yaml")?)?;
    // On the host network a pod has its address before anything listens there, and the VIP answers from another node.
    cluster.rolled_out("daemonset/iperf")?;
    let vip = cluster.vip("iperf")?;
    let pods = cluster.pods("app=iperf")?;
    let (_, _, node) = pods.first().context("a pod of app=iperf")?;
    let node: IpAddr = node.parse()?;
    wait_for("iperf through the VIP", Duration::from_secs(180), || {
        let seen: Spread = probe(cluster.lab, &["spread", &target(vip, 5280), "--count", "3"])?;
        Ok((seen.lost == 0).then_some(()))
    })?;
    let latency =
        |to: IpAddr| probe::<Latency>(cluster.lab, &["latency", &target(to, 5280), "--path", "/hostname"]);
    // In turn, so that a slow moment of the machine meets both.
    let (straight, through) = (latency(node)?, latency(vip)?);
    let throughput = |to: IpAddr| -> Result<f64> {
        let mut command = cluster.lab.client("timeout");
        command.args(["20", "iperf3", "-J", "-t", "3", "-p", "5201", "-c", &to.to_string()]);
        let text = output(&mut command)?;
        let read: serde_json::Value = serde_json::from_str(&text)?;
        Ok(read["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 without a sum")? / 1e9)
    };
    let (fast, balanced) = (throughput(node)?, throughput(vip)?);
    report.proof(
        "round trip through the balancer against straight to the node",
        format!(
            "median {:.0} µs against {:.0} µs, p99 {:.0} against {:.0} ({} requests each)",
            through.median, straight.median, through.p99, straight.p99, through.count
        ),
        through.count > 0 && straight.count == through.count,
    );
    report.proof(
        "throughput through the balancer against straight to the node",
        format!("{balanced:.2} Gbit/s against {fast:.2} Gbit/s"),
        balanced > 0.0 && fast > 0.0,
    );
    cluster.remove(&fixture("iperf.yaml")?)
}

/// What was written on a volume is there when its pod has moved to the other node.
pub fn data_moves(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let pod = |except: Option<&str>| {
        wait_for("a running pod of app=data", Duration::from_secs(180), || {
            let pods = cluster.get(&["pods", "-l", "app=data", "--field-selector=status.phase=Running"])?;
            Ok(crate::cluster::items(&pods)
                .iter()
                .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
                .map(|pod| (&pod["metadata"]["name"], &pod["spec"]["nodeName"]))
                .filter_map(|(name, node)| Some((name.as_str()?.to_owned(), node.as_str()?.to_owned())))
                .find(|(name, _)| Some(name.as_str()) != except))
        })
    };
    let (first, from) = pod(None)?;
    cluster.in_pod(&first, "echo kept > /data/word && sync")?;
    let device = cluster.in_pod(&first, "df /data | tail -1")?;
    cluster.kubectl(&["cordon", &from])?;
    let begun = Instant::now();
    cluster.kubectl(&["delete", "pod", &first, "--wait=false"])?;
    let (second, to) = pod(Some(&first))?;
    let read = cluster.in_pod(&second, "cat /data/word");
    cluster.kubectl(&["uncordon", &from])?;
    report.proof(
        "the data survived the move",
        format!(
            "{:?} read on {to}, written on {from} ({}), {:.1} s after the pod was deleted",
            read.as_deref().unwrap_or("nothing"),
            device.split_whitespace().next().unwrap_or("?"),
            begun.elapsed().as_secs_f64()
        ),
        read.is_ok_and(|word| word == "kept") && from != to,
    );
    Ok(())
}

/// A Service that goes takes its VIP and its listeners along.
pub fn service_goes(cluster: &Cluster<'_>, report: &mut Report) -> Result<()> {
    let vip = cluster.vip("web-local")?;
    let begun = Instant::now();
    cluster.kubectl(&["delete", "service", "web-local"])?;
    let deleted = begun.elapsed();
    let still = still_with(cluster.lab, &vip.to_string())?;
    report.proof(
        "a deleted Service's VIP is gone",
        format!(
            "deleted after {:.1} s; balancers that have {vip} {:.1} s after that: {still:?}",
            deleted.as_secs_f64(),
            (begun.elapsed() - deleted).as_secs_f64()
        ),
        still.is_empty(),
    );
    Ok(())
}

/// After `stack delete` a project is as it was, and so is the balancer.
pub fn nothing_left(
    tenant: &Tenant<'_>,
    before: &[String],
    cluster: &str,
    lab: &Lab,
    report: &mut Report,
) -> Result<()> {
    let after = tenant.inventory()?;
    let left: Vec<_> = after.iter().filter(|line| !before.contains(line)).cloned().collect();
    let mut balancers = still_with(lab, cluster)?;
    balancers.extend(still_with(lab, tenant.api()?.project())?);
    report.proof(
        "after stack delete every OpenStack list and the balancer are as before",
        if left.is_empty() && balancers.is_empty() {
            format!("{} objects before and after, nothing of {cluster} on any balancer", before.len())
        } else {
            format!("left: {left:?}, on the balancers: {balancers:?}")
        },
        left.is_empty() && balancers.is_empty() && before.iter().all(|line| after.contains(line)),
    );
    Ok(())
}

/// Names of the balancers that have a VIP, or anything of a cluster by its id, as they say of themselves. One that does
/// not answer is an error.
pub fn balancers_with(lab: &Lab, word: &str) -> Result<Vec<&'static str>> {
    let mut with = Vec::new();
    for balancer in lab.balancers() {
        if status_has(&lab.status_of(balancer)?, word).with_context(|| balancer.name)? {
            with.push(balancer.name);
        }
    }
    Ok(with)
}

/// The same once there is none; those that have it still after a while. ake-api answers when its row is gone, and tells
/// the balancers then.
pub(crate) fn still_with(lab: &Lab, word: &str) -> Result<Vec<&'static str>> {
    let begun = Instant::now();
    loop {
        let with = balancers_with(lab, word)?;
        if with.is_empty() || begun.elapsed() > Duration::from_secs(120) {
            return Ok(with);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether a balancer's status has a VIP, or an owner of which the word is a part.
fn status_has(status: &serde_json::Value, word: &str) -> Result<bool> {
    let list =
        |kind: &str| status[kind].as_array().with_context(|| format!("a balancer's status without {kind}"));
    let is_its = |object: &&serde_json::Value| {
        object["vip"] == word
            || object["owner"].as_str().is_some_and(|owner| owner.split('/').any(|part| part == word))
    };
    Ok(list("load_balancers")?.iter().chain(list("pools")?).any(|object| is_its(&object)))
}

/// A manifest of `tests/fixtures`.
pub fn fixture(name: &str) -> Result<String> {
    let path = checkout().join("tests/fixtures").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_vip_and_a_cluster_are_found_in_what_a_balancer_says() {
        let status = json!({"load_balancers": [{"owner": "p/c1/svc-1", "vip": "203.0.113.18"}],
                            "pools": [{"owner": "p/c2/nodes", "members": []}]});
        for (word, has) in [
            ("203.0.113.18", true),
            ("203.0.113.1", false),
            ("c1", true),
            ("c2", true),
            ("c", false),
            ("c3", false),
        ] {
            assert_eq!(status_has(&status, word).unwrap(), has, "{word}");
        }
        assert!(
            status_has(&json!({"load_balancers": []}), "c1").is_err(),
            "one that does not say what it has"
        );
    }
}
