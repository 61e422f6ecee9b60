//! What `make bench` measures on a lab: times, memory, sizes.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    cluster::{Cluster, probe_command},
    load::quantile,
    output,
    proofs::{fixture, target},
    tenant::Tenant,
    wait_for,
};

/// One row of the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What it came to.
    pub measured: String,
    /// What is aimed at.
    pub aim: String,
}

impl Row {
    /// A row.
    pub fn new(what: impl Into<String>, measured: impl Into<String>, aim: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), aim: aim.into() }
    }
}

/// Minimum, median and maximum, in words.
#[must_use]
pub fn spread_of(values: &[f64], unit: &str) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(least), Some(middle), Some(most)) => {
            format!("{middle:.2} {unit} (minimum {least:.2}, maximum {most:.2}, {} times)", values.len())
        }
        _ => "not measured".to_owned(),
    }
}

/// Seconds within which half of all and 99 of 100 are, and their ends, in words.
#[must_use]
pub fn quantiles_of(seconds: &[f64]) -> String {
    let mut sorted = seconds.to_vec();
    let [least, p50, p99, most] = [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&mut sorted, share));
    let times = seconds.len();
    format!("p50 {p50:.2} s, p99 {p99:.2} s (minimum {least:.2}, maximum {most:.2}, {times} times)")
}

/// Seconds from the moment a client begins to send a Service to the API server, its login included, to the first answer
/// through its VIP, several times.
pub fn services(cluster: &Cluster<'_>, tenant: &Tenant<'_>, times: usize) -> Result<Vec<f64>> {
    cluster.apply(&fixture("web.yaml")?)?;
    cluster.rolled_out("deployment/web")?;
    // A Service that names its address can be asked from the first moment. The last ones of the block are free.
    let blocks: Vec<String> = serde_json::from_str(&tenant.stack_output(&cluster.stack, "vip_blocks")?)?;
    let block = blocks.iter().find(|block| block.contains('.')).context("no IPv4 block")?;
    let first: std::net::Ipv4Addr = block.split('/').next().unwrap_or_default().parse()?;
    let address = std::net::Ipv4Addr::from(u32::from(first) + 14);
    // Looked up before the clock runs: OpenStack's own client takes a second or two to tell it.
    let services =
        format!("{}/api/v1/namespaces/default/services", tenant.stack_output(&cluster.stack, "api_url")?);
    let mut seconds = Vec::new();
    for number in 0..times {
        let name = format!("bench-{number}");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
            "type": "LoadBalancer", "loadBalancerIP": address, "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        let waiting = probe_command(cluster.lab)?
            .args(["first", &target(address.into(), 80)])
            .stdout(Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(300));
        let begun = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        post(cluster, tenant, &services, &service.to_string())?;
        let out = waiting.wait_with_output()?;
        let answered: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().context("no first answer")?;
        seconds.push(answered - begun);
        cluster.kubectl(&["delete", "service", &name])?;
    }
    Ok(seconds)
}

/// A POST to the API server with the tenant's certificate.
fn post(cluster: &Cluster<'_>, tenant: &Tenant<'_>, url: &str, body: &str) -> Result<()> {
    let home = tenant.home();
    output(
        cluster
            .lab
            .client("curl")
            .args([
                "-sS",
                "--fail-with-body",
                "-o",
                "/dev/null",
                "-X",
                "POST",
                "-H",
                "Content-Type: application/json",
            ])
            .arg("--cacert")
            .arg(home.join("ca.crt"))
            .arg("--cert")
            .arg(home.join("admin.crt"))
            .arg("--key")
            .arg(home.join("admin.key"))
            .args(["-d", body, url]),
    )
    .map(drop)
}

/// Resident memory of every process of AKE's, in MiB, by program and machine.
pub fn memory(cluster: &Cluster<'_>) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    let line = "for p in /proc/[0-9]*; do n=$(cat $p/cmdline 2>/dev/null | tr '\\0' ' ' | cut -d' ' -f1,2); \
                case $n in */ake-*) echo \"$(grep VmRSS $p/status | tr -s '\\t ' ' ' | cut -d' ' -f2) $n\";; esac; done";
    for machine in ["master-0", "worker-0"] {
        let server = format!("{}-{machine}", cluster.stack);
        for row in cluster.exec(&server, line)?.lines() {
            let (size, program) = row.split_once(' ').context("a row without a program")?;
            let program = program.trim().trim_start_matches("/usr/bin/");
            let program = program.split(" --").next().unwrap_or(program);
            found.push((
                format!("{program} on a {}", machine.trim_end_matches("-0")),
                size.parse::<f64>()? / 1024.0,
            ));
        }
    }
    for service in ["ake-api", "ake-xdp"] {
        let pid = cluster.lab.pid(service).with_context(|| format!("{service} does not run"))?;
        let status = output(cluster.lab.command("control", "cat").arg(format!("/proc/{pid}/status")))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("{service}: no resident memory in its status"))?;
        found.push((service.to_owned(), resident.parse::<f64>()? / 1024.0));
    }
    Ok(found)
}

/// Sizes of AKE's programs, stripped, in MiB.
pub fn sizes(lab: &ake_lab::Lab) -> Result<Vec<(String, f64)>> {
    let folder = tempfile::tempdir()?;
    let mut found = Vec::new();
    for program in ["ake-cloud-controller-manager", "ake-node-agent", "ake-api", "ake-xdp", "ake-heat"] {
        let stripped = folder.path().join(program);
        output(Command::new("strip").arg("-o").arg(&stripped).arg(lab.built(program)?))?;
        found.push((program.to_owned(), size_of(&stripped)? / f64::from(1 << 20)));
    }
    Ok(found)
}

fn size_of(path: &Path) -> Result<f64> {
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64)
}

/// Waits until a cluster has so many Ready nodes.
pub fn ready(cluster: &Cluster<'_>, nodes: usize) -> Result<()> {
    wait_for("nodes Ready", Duration::from_secs(120), || {
        Ok((cluster.ready_nodes()?.len() == nodes).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_values_is_told_by_its_middle_and_ends() {
        assert_eq!(spread_of(&[3.0, 1.0, 2.0], "s"), "2.00 s (minimum 1.00, maximum 3.00, 3 times)");
        assert_eq!(spread_of(&[], "s"), "not measured");
        assert_eq!(
            quantiles_of(&[3.0, 1.0, 2.0]),
            "p50 2.00 s, p99 3.00 s (minimum 1.00, maximum 3.00, 3 times)"
        );
    }
}
