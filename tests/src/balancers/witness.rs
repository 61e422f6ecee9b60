//! What the hosts of the comparison count, for whoever wants to know why a request failed.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use anyhow::Result;

use crate::{apart::inside, output};

/// Counters by name, and how far the balancer's log went.
pub(super) struct Witness {
    counters: BTreeMap<String, f64>,
    said: usize,
}

impl Witness {
    /// Looks at the counters of the network stack on `hosts` and of tracked connections there, and at those of a
    /// balancer, by the URL of its metrics, which `balancer` can ask.
    pub(super) fn look(hosts: &[&str], balancer: &str, metrics: &str, log: &Path) -> Result<Self> {
        let mut counters = BTreeMap::new();
        for host in hosts {
            let files = ["snmp", "netstat", "stat/nf_conntrack"].map(|file| format!("/proc/net/{file}"));
            let [snmp, netstat, tracked] =
                files.map(|file| output(inside(host, "cat").arg(file)).unwrap_or_default());
            for (name, value) in [stack(&snmp), stack(&netstat), tracking(&tracked)].concat() {
                *counters.entry(format!("{host} {name}")).or_default() += value;
            }
        }
        let text = output(inside(balancer, "curl").args(["-sS", metrics]).stderr(Stdio::null()))?;
        counters.extend(exposed(&text));
        Ok(Self { counters, said: fs::read(log)?.len() })
    }

    /// What became more or less since, and what the balancer said of members.
    pub(super) fn since(&self, before: &Self, log: &Path) -> Result<String> {
        let mut lines = Vec::new();
        for (name, now) in &self.counters {
            let was = before.counters.get(name).copied().unwrap_or_default();
            if *now != was && TELLING.iter().any(|word| name.contains(word)) {
                lines.push(format!("{name} {:+}", now - was));
            }
        }
        let said = fs::read(log)?;
        let said = String::from_utf8_lossy(said.get(before.said..).unwrap_or_default());
        lines.extend(said.lines().filter(|line| line.contains("member is")).map(str::to_owned));
        Ok(lines.join("\n"))
    }
}

/// Parts of the names of counters that tell why a connection was not made.
const TELLING: [&str; 18] = [
    "ake_xdp_drops_total",
    "ake_xdp_map_writes_total",
    "ake_xdp_member_up",
    "tracking",
    "OutRsts",
    "EstabResets",
    "AttemptFails",
    "RetransSegs",
    "Timeouts",
    "SynRetrans",
    "Listen",
    "PAWS",
    "TWKilled",
    "TWRecycled",
    "ChallengeACK",
    "Drop",
    "Discards",
    "Skipped",
];

/// proc_net(5), `snmp` and `netstat`: of each two lines, the first has the names of what the second says.
fn stack(text: &str) -> Vec<(String, f64)> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.as_chunks::<2>().0.iter();
    let fields = pairs.flat_map(|[names, values]| names.split_whitespace().zip(values.split_whitespace()));
    fields.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// `/proc/net/stat/nf_conntrack`: a line of names, then one of hexadecimal numbers for each processor.
fn tracking(text: &str) -> Vec<(String, f64)> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut sums = BTreeMap::<String, f64>::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_whitespace()) {
            // entries are no counter, and each line has all of them
            if *name != "entries" {
                let value = u32::from_str_radix(value, 16).unwrap_or_default();
                *sums.entry(format!("tracking {name}")).or_default() += f64::from(value);
            }
        }
    }
    sums.into_iter().collect()
}

/// Prometheus' text.
fn exposed(text: &str) -> Vec<(String, f64)> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_hosts_write_them() {
        assert_eq!(
            stack("Tcp: RtoAlgorithm OutRsts\nTcp: 1 7\nUdp: A\nUdp: x\n"),
            [("RtoAlgorithm".to_owned(), 1.0), ("OutRsts".to_owned(), 7.0)]
        );
        let tracked =
            tracking("entries insert_failed drop\n0000ff 00000a 00000001\n0000ff 00000001 0000000f\n");
        assert_eq!(
            tracked,
            [("tracking drop".to_owned(), 16.0), ("tracking insert_failed".to_owned(), 11.0)]
        );
        assert_eq!(exposed("# TYPE a counter\na{b=\"c d\"} 3\n"), [("a{b=\"c d\"}".to_owned(), 3.0)]);
    }

    #[test]
    fn only_what_changed_and_tells_is_told() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let at = |resets: f64, other: f64, said: usize| Witness {
            counters: BTreeMap::from([("n1 OutRsts".to_owned(), resets), ("n1 InOctets".to_owned(), other)]),
            said,
        };
        fs::write(log.path(), "member is well\nmember is not well: n1\n").unwrap();
        let told = at(3.0, 9.0, 15).since(&at(1.0, 2.0, 15), log.path()).unwrap();
        assert_eq!(told, "n1 OutRsts +2\nmember is not well: n1");
    }
}
