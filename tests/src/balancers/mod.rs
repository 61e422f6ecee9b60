//! Requests through `ake-xdp`, HAProxy (TCP mode) and nftables DNAT, and past them all, in turns on one machine.
//!
//! One processor is the balancer's, whichever it is: what it receives is worked on there (receive packet steering), and
//! its process is pinned to it. All else (client, servers, the switch between them) is on another. So what balancing
//! costs is the time of that processor in interrupts, less that of a quiet moment, and the time of the balancer's own
//! process; other processes of the computer count for nothing.

mod site;
mod witness;

use std::{fmt, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    load::Load,
    measure::{Row, spread_of},
    page::Section,
};
use site::Site;

/// Turns of each.
const ROUNDS: usize = 5;
/// Of one turn.
const TURN: Duration = Duration::from_secs(2);
/// Of looking at what interrupts the balancer's processor by itself.
const QUIET: Duration = Duration::from_millis(500);
/// Connections at a time.
const CONNECTIONS: usize = 16;

/// What a request goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Xdp,
    Haproxy,
    Nftables,
}

const WAYS: [Way; 4] = [Way::Direct, Way::Xdp, Way::Haproxy, Way::Nftables];

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "no balancer",
            Self::Xdp => "ake-xdp",
            Self::Haproxy => "HAProxy",
            Self::Nftables => "nftables",
        })
    }
}

/// One turn.
#[derive(Debug, Clone)]
struct Turn {
    load: Load,
    /// Microseconds that the balancer's processor was busy per request.
    cost: f64,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.load.requests as f64 / self.load.seconds
    }
}

/// Measures; takes a bit more than a minute. To be run apart.
pub fn measure() -> Result<Vec<Row>> {
    let site = Site::build()?;
    let mut rows = Vec::new();
    for (kind, kept) in [("a connection each", false), ("kept connections", true)] {
        let mut rounds: Vec<Vec<Turn>> = Vec::new();
        for round in 0..ROUNDS {
            let (quiet, ()) = site.busy_during(Way::Direct, || {
                std::thread::sleep(QUIET);
                Ok(())
            })?;
            let quiet = quiet / QUIET.as_secs_f64();
            let mut turns = Vec::new();
            for way in WAYS {
                let before = site.witness()?;
                let (busy, load) = site.busy_during(way, || site.load(way, CONNECTIONS, TURN, kept))?;
                ensure!(load.requests > 0, "{kind}, {way}: no request was answered");
                if load.failed > 0 {
                    let changed = site.since(&before)?;
                    let round = round + 1;
                    bail!(
                        "{kind}, {way}, round {round}: requests failed: {:?}; meanwhile:\n{changed}",
                        load.complaints
                    );
                }
                let cost = (busy - quiet * load.seconds).max(0.0) * 1e6 / load.requests as f64;
                turns.push(Turn { load, cost });
            }
            eprintln!("{kind}, round {}: {}", round + 1, told(&turns));
            rounds.push(turns);
        }
        rows.extend(rows_of(kind, &rounds));
    }
    Ok(rows)
}

/// The page's section.
#[must_use]
pub fn section(rows: Vec<Row>) -> Section {
    Section {
        title: "Beside other balancers",
        text: "Small requests over HTTP, 16 at a time, from a client to two servers, in namespaces of one machine and in turns of \
               2 s: past any balancer, through `ake-xdp`, through HAProxy (TCP mode, one thread) and through nftables (DNAT and \
               its way back). Servers take them as nodes do, with DNAT to a pod's address. One processor is the balancer's: \
               what it receives is worked on there, and its process is pinned there; everything else is on another one, which \
               limits requests per second. A balancer's processor time is that of its processor in interrupts, less that of a \
               quiet moment, and that of its process. Ratios (x) are of turns of one round.",
        rows,
    }
}

fn told(turns: &[Turn]) -> String {
    let each =
        WAYS.iter().zip(turns).map(|(way, turn)| format!("{way} {:.0}/s, {:.1} us", turn.rate(), turn.cost));
    each.collect::<Vec<_>>().join("; ")
}

fn rows_of(kind: &str, rounds: &[Vec<Turn>]) -> Vec<Row> {
    let all = |at: usize, value: &dyn Fn(&Turn) -> f64| -> Vec<f64> {
        rounds.iter().map(|turns| value(&turns[at])).collect()
    };
    let ratio = |at: usize, to: usize, value: &dyn Fn(&Turn) -> f64| -> Vec<f64> {
        let ratios = rounds.iter().map(|turns| value(&turns[at]) / value(&turns[to]));
        // Against a time that was too short to be seen there is none.
        ratios.filter(|ratio| ratio.is_finite()).collect()
    };
    let (direct, xdp) = (0, 1);
    let mut rows = Vec::new();
    let mut row = |what: String, values: &[f64], unit: &str| {
        rows.push(Row::new(format!("{kind}: {what}"), spread_of(values, unit), ""));
    };
    for (at, way) in WAYS.iter().enumerate() {
        row(format!("requests a second, {way}"), &all(at, &Turn::rate), "/s");
        if at != direct {
            let what = format!("requests a second, {way}, in those of {}", WAYS[direct]);
            row(what, &ratio(at, direct, &Turn::rate), "x");
        }
    }
    for (name, value) in [
        ("p50", (&|turn: &Turn| turn.load.p50) as &dyn Fn(&Turn) -> f64),
        ("p99", &|turn: &Turn| turn.load.p99),
    ] {
        for (at, way) in WAYS.iter().enumerate() {
            row(format!("{name}, {way}"), &all(at, value), "us");
            if at != direct {
                let what = format!("{name}, {way}, in that of {}", WAYS[direct]);
                row(what, &ratio(at, direct, value), "x");
            }
        }
    }
    for (at, way) in WAYS.iter().enumerate() {
        let what = format!("balancer's processor time per request, {way}");
        row(what.clone(), &all(at, &|turn| turn.cost), "us");
        if at > xdp {
            row(format!("{what}, in that of {}", WAYS[xdp]), &ratio(at, xdp, &|turn| turn.cost), "x");
        }
    }
    rows
}

/// Seconds that a processor has been in interrupts since the computer started (proc(5), `/proc/stat`, irq and softirq in
/// hundredths of a second).
fn interrupts(stat: &str, processor: usize) -> Result<f64> {
    let begin = format!("cpu{processor} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&begin));
    let line = line.with_context(|| format!("/proc/stat has no {begin}: two processors are needed"))?;
    seconds(line, [5, 6])
}

/// Seconds that a process has run (proc(5), `/proc/PID/stat`, utime and stime in hundredths of a second).
fn processed(stat: &str) -> Result<f64> {
    let (_, fields) = stat.rsplit_once(") ").context("no stat of a process")?;
    seconds(fields.trim_start_matches(char::is_alphabetic), [10, 11])
}

fn seconds(fields: &str, which: [usize; 2]) -> Result<f64> {
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let of =
        |field: usize| -> Result<f64> { Ok(fields.get(field).context("too few fields")?.parse::<f64>()?) };
    Ok((of(which[0])? + of(which[1])?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_kernel_writes_them() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 100 20 30 4000 500 6 44 70 0 0\nintr 1\n";
        assert_eq!(interrupts(stat, 1).unwrap(), 0.5);
        assert!(interrupts(stat, 2).unwrap_err().to_string().contains("two processors"));
        let process = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 98765 1000 20";
        assert_eq!(processed(process).unwrap(), 2.0);
    }

    #[test]
    fn ratios_are_of_turns_of_one_round() {
        let turn = |requests, p50, cost| Turn {
            load: Load { requests, seconds: 2.0, p50, p99: 2.0 * p50, ..Load::default() },
            cost,
        };
        let round = |factor: u64| {
            let scaled = factor as f64;
            vec![
                turn(1000 * factor, 10.0, 0.0),
                turn(900 * factor, 20.0, 2.0 * scaled),
                turn(500 * factor, 30.0, 20.0 * scaled),
                turn(800 * factor, 40.0, 6.0 * scaled),
            ]
        };
        let rows = rows_of("kind", &[round(1), round(2), round(3)]);
        let measured = |what: &str| {
            let mut found = rows.iter().filter(|row| row.what == format!("kind: {what}"));
            found.next().unwrap().measured.clone()
        };
        assert_eq!(
            measured("requests a second, ake-xdp"),
            "900.00 /s (minimum 450.00, maximum 1350.00, 3 times)"
        );
        assert_eq!(
            measured("requests a second, HAProxy, in those of no balancer"),
            "0.50 x (minimum 0.50, maximum 0.50, 3 times)"
        );
        assert_eq!(
            measured("balancer's processor time per request, nftables, in that of ake-xdp"),
            "3.00 x (minimum 3.00, maximum 3.00, 3 times)"
        );
        assert_eq!(measured("p99, HAProxy"), "60.00 us (minimum 60.00, maximum 60.00, 3 times)");
    }
}
