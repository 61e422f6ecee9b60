//! The open connections: on which nodes they are, and what a change made of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use ake_lab::{Lab, balancers::Balancer};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{cluster::probe_command, many::Seen};

/// Longest run of the program that holds the connections, in seconds.
const LONGEST: u32 = 1500;
/// Files that it may have open.
const FILES: &str = "--nofile=16384:16384";

/// A connection: its own end and the VIP's.
type Key = (SocketAddr, SocketAddr);

/// A flow as a balancer tells of it: what `ake-xdp flows --json` prints.
#[derive(Debug, Deserialize)]
struct Flow {
    client: SocketAddr,
    vip: SocketAddr,
    member: String,
    ring: Option<String>,
}

/// Open connections from the lab's client.
pub struct Watch<'a> {
    lab: &'a Lab,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The node of each, when it began.
    nodes: BTreeMap<Key, String>,
    /// Those that are not broken.
    open: BTreeSet<Key>,
}

/// What became of connections since the count before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// By node: lost, and how many there were.
    pub nodes: BTreeMap<String, (usize, usize)>,
    /// What those that are lost met, and how often.
    pub complaints: BTreeMap<String, usize>,
    /// Those that are lost.
    lost: BTreeSet<Key>,
}

impl<'a> Watch<'a> {
    /// Opens so many connections to each of these, and asks the balancer that is active on which nodes they are.
    pub fn open(lab: &'a Lab, wishes: &[(SocketAddr, usize)]) -> Result<Self> {
        let probe = probe_command(lab)?;
        let program = probe.get_args().last().context("a command without a program")?.to_owned();
        let mut child = lab
            .client("prlimit")
            .arg(FILES)
            .arg(program)
            .args(["many", "--seconds", &LONGEST.to_string()])
            .args(wishes.iter().map(|(target, count)| format!("{target}={count}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("a program without an input")?;
        let output = BufReader::new(child.stdout.take().context("a program without an output")?);
        let mut watch = Self { lab, child, input, output, nodes: BTreeMap::new(), open: BTreeSet::new() };
        let seen = watch.ask()?;
        let broken = seen.iter().find_map(|seen| seen.broken.as_ref());
        ensure!(broken.is_none(), "a connection broke at once: {broken:?}");
        watch.open = seen.iter().map(|seen| (seen.local, seen.target)).collect();
        let active = lab.active_balancer()?.context("no balancer is active")?;
        let flows = watch.flows(active)?;
        for key in &watch.open {
            let flow = flows.get(key).with_context(|| format!("{} does not know {key:?}", active.name))?;
            watch.nodes.insert(*key, flow.member.clone());
        }
        Ok(watch)
    }

    /// What became of them since the last count, after each was asked once more.
    pub fn count(&mut self) -> Result<Count> {
        let mut count = Count::default();
        for Seen { local, target, broken, .. } in self.ask()? {
            let key = (local, target);
            if !self.open.contains(&key) {
                continue;
            }
            let node = self.nodes.get(&key).context("a connection without a node")?;
            let of_node = count.nodes.entry(node.clone()).or_default();
            of_node.1 += 1;
            if let Some(complaint) = broken {
                of_node.0 += 1;
                *count.complaints.entry(complaint).or_default() += 1;
                count.lost.insert(key);
            }
        }
        self.open.retain(|key| !count.lost.contains(key));
        Ok(count)
    }

    /// The open ones that the ring has elsewhere: only those who were told of them know where they belong.
    pub fn off_the_ring(&self, balancer: &Balancer) -> Result<BTreeSet<Key>> {
        let flows = self.flows(balancer)?;
        let off = |key: &&Key| flows.get(key).is_some_and(|flow| flow.ring.is_some());
        Ok(self.open.iter().filter(off).copied().collect())
    }

    /// How many of the open ones a balancer knows on their own nodes.
    pub fn known_to(&self, balancer: &Balancer) -> Result<usize> {
        let flows = self.flows(balancer)?;
        let known = |key: &&Key| flows.get(key).map(|flow| &flow.member) == self.nodes.get(key);
        Ok(self.open.iter().filter(known).count())
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Closes them.
    pub fn close(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait()?;
        ensure!(status.success(), "the program that held the connections: {status}");
        Ok(())
    }

    fn flows(&self, balancer: &Balancer) -> Result<BTreeMap<Key, Flow>> {
        let flows: Vec<Flow> = serde_json::from_value(self.lab.flows_of(balancer)?)?;
        Ok(flows.into_iter().map(|flow| ((flow.client, flow.vip), flow)).collect())
    }

    fn ask(&mut self) -> Result<Vec<Seen>> {
        self.input.write_all(b"count\n").context("the program that holds the connections has ended")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the program that holds the connections has ended");
        serde_json::from_str(&line).with_context(|| format!("what became of connections: {line}"))
    }
}

impl Count {
    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Whether those that were lost are all among these.
    #[must_use]
    pub fn only(&self, these: &BTreeSet<Key>) -> bool {
        self.lost.is_subset(these)
    }

    /// Whether all that were lost were on this node.
    #[must_use]
    pub fn only_on(&self, node: &str) -> bool {
        self.nodes.iter().all(|(name, (lost, _))| name == node || *lost == 0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open: usize = self.nodes.values().map(|(_, open)| open).sum();
        write!(f, "{open} open, {} kept, {} lost (", open - self.lost(), self.lost())?;
        for (number, (node, (lost, open))) in self.nodes.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{node}: {lost} of {open}")?;
        }
        write!(f, ")")?;
        for (complaint, times) in &self.complaints {
            write!(f, "; {times} {complaint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_names_nodes_and_what_was_met() {
        let key: Key = ("198.51.100.2:40000".parse().unwrap(), "203.0.113.17:80".parse().unwrap());
        let nodes = BTreeMap::from([("w0".to_owned(), (0, 500)), ("w1".to_owned(), (1, 500))]);
        let complaints = BTreeMap::from([("Connection reset by peer".to_owned(), 1)]);
        let count = Count { nodes, complaints, lost: BTreeSet::from([key]) };
        assert_eq!(
            count.to_string(),
            "1000 open, 999 kept, 1 lost (w0: 0 of 500, w1: 1 of 500); 1 Connection reset by peer"
        );
        assert!(count.only_on("w1") && !count.only_on("w0"));
        assert!(count.only(&BTreeSet::from([key])) && !count.only(&BTreeSet::new()));
        assert!(Count::default().only(&BTreeSet::new()));
    }
}
