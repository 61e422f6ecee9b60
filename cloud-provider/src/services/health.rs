//! What the balancers say of members: a set of nodes of which none is well is told on its Services, and that some are
//! again.

use std::{collections::BTreeMap, time::Duration};

use ake_api_client::{ClusterState, Member, Pool};

use super::names;

/// Nodes that were never well, as right after a Service was made, have so long to become it.
const GRACE: Duration = Duration::from_secs(10);

/// Between two losses of one set that are told; a little longer than one and the same warning is kept quiet for.
const PAUSE: Duration = Duration::from_secs(330);

/// Names of members that a message has at most.
const NAMED: usize = 3;

/// A set of nodes has lost its last well one, or has one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Name of the pool.
    pub pool: String,
    /// Whether none is well.
    pub down: bool,
    /// In words for people.
    pub message: String,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether one was ever well.
    was_well: bool,
    /// Since when none is.
    since: Option<Duration>,
    /// Whether that was told.
    told: bool,
    /// When it was last told.
    at: Option<Duration>,
}

impl Known {
    /// When its loss is to be told, if there is one that was not.
    fn due(&self) -> Option<Duration> {
        let since = self.since.filter(|_| !self.told)?;
        let after_grace = since + if self.was_well { Duration::ZERO } else { GRACE };
        Some(self.at.map_or(after_grace, |at| after_grace.max(at + PAUSE)))
    }
}

/// What is known of pools, and what was told. Times are since any common moment.
#[derive(Debug, Default)]
pub struct Health {
    pools: BTreeMap<String, Known>,
    /// Sets of which it is known that no member is well.
    down: usize,
    /// When it was last looked at what is known.
    seen: Duration,
}

impl Health {
    /// Takes in what ake-api shows now; what is to be told of it.
    pub fn observe(&mut self, now: Duration, state: &ClusterState) -> Vec<Turn> {
        self.pools.retain(|name, _| state.pools.contains_key(name));
        (self.seen, self.down) = (now, 0);
        let mut turns = Vec::new();
        for (name, pool) in &state.pools {
            if !names::is_pool_of_services(name) {
                continue;
            }
            let Some(well) = is_well(pool) else { continue };
            let known = self.pools.entry(name.clone()).or_default();
            if well {
                if known.told {
                    turns.push(Turn { pool: name.clone(), down: false, message: regained(pool) });
                }
                *known = Known { was_well: true, at: known.at, ..Known::default() };
                continue;
            }
            self.down += 1;
            known.since.get_or_insert(now);
            if known.due().is_some_and(|due| due <= now) {
                (known.told, known.at) = (true, Some(now));
                turns.push(Turn { pool: name.clone(), down: true, message: lost(pool) });
            }
        }
        turns
    }

    /// When a loss is to be told that is not by now. One that was due at the last look and was not told, as nobody knew
    /// then how its members are, waits for news and for no clock.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.pools.values().filter_map(Known::due).filter(|due| *due > self.seen).min()
    }

    /// How many sets were known at the last look to have no well member.
    #[must_use]
    pub fn down(&self) -> usize {
        self.down
    }
}

/// Members that take new flows: what the others are like is no matter.
fn takers(pool: &Pool) -> impl Iterator<Item = (&String, &Member)> {
    pool.members.iter().filter(|(_, member)| !member.draining && member.weight > 0)
}

/// Whether a member that takes new flows is well; none where nobody knows, or where there is none.
fn is_well(pool: &Pool) -> Option<bool> {
    let takers: Vec<Option<bool>> = takers(pool).map(|(_, member)| member.healthy).collect();
    if takers.contains(&Some(true)) {
        return Some(true);
    }
    let all_bad = !takers.is_empty() && takers.iter().all(|healthy| *healthy == Some(false));
    all_bad.then_some(false)
}

fn lost(pool: &Pool) -> String {
    let reason =
        |member: &Member| member.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let mut named: Vec<String> = takers(pool)
        .take(NAMED)
        .map(|(name, member)| format!("{name} {}{}", member.address, reason(member)))
        .collect();
    let more = takers(pool).skip(NAMED).count();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    format!("No node behind the load balancer passes its checks: {}", named.join(", "))
}

fn regained(pool: &Pool) -> String {
    let well = takers(pool).filter(|(_, member)| member.healthy == Some(true)).count();
    format!("{well} of {} nodes behind the load balancer pass their checks again", takers(pool).count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn member(healthy: Option<bool>, draining: bool) -> Member {
        Member {
            address: [192, 168, 77, 20].into(),
            mac: String::new(),
            weight: 1,
            draining,
            healthy,
            reason: healthy.filter(|well| !well).map(|_| "refused".to_owned()),
        }
    }

    fn with(members: &[(Option<bool>, bool)]) -> ClusterState {
        let state = json!({
            "cluster": {"id": "11111111-1111-1111-1111-111111111111", "name": "demo", "project": "p", "network": "n",
                        "deleting": false, "pod_range": "10.240.0.0/16", "vip_blocks": [], "check_sources": []},
            "addresses": {}, "pools": {}, "load_balancers": {}, "node_ports": {}, "lease_transitions": 0,
        });
        let mut state: ClusterState = serde_json::from_value(state).unwrap();
        let members = members.iter().enumerate();
        let members = members.map(|(n, (healthy, draining))| (format!("w{n}"), member(*healthy, *draining)));
        let pool = Pool { members: members.collect(), ..Pool::default() };
        // Masters are told by whoever made them.
        state.pools = ["nodes", "masters"].map(|name| (name.to_owned(), pool.clone())).into();
        state
    }

    #[test]
    fn a_set_is_down_where_nobody_who_takes_flows_is_well() {
        let (well, ill, unknown) = ((Some(true), false), (Some(false), false), (None, false));
        for (members, expected) in [
            (vec![], None),
            (vec![well], Some(true)),
            (vec![ill, well], Some(true)),
            (vec![ill, ill], Some(false)),
            (vec![ill, unknown], None),
            // One that leaves takes no new flows.
            (vec![ill, (Some(true), true)], Some(false)),
            (vec![(Some(false), true)], None),
        ] {
            assert_eq!(is_well(&with(&members).pools["nodes"]), expected, "{members:?}");
        }
    }

    #[test]
    fn a_turn_is_told_once_and_a_flutter_is_not() {
        let (up, down) = (with(&[(Some(true), false)]), with(&[(Some(false), false)]));
        let mut health = Health::default();
        let mut told = |at: u64, state: &ClusterState| {
            let turns = health.observe(seconds(at), state);
            (turns.iter().map(|turn| turn.down).collect::<Vec<_>>(), health.down(), health.next())
        };
        assert_eq!(told(0, &up), (vec![], 0, None));
        assert_eq!(told(1, &down), (vec![true], 1, None), "at once: it was well");
        assert_eq!(told(2, &down), (vec![], 1, None));
        assert_eq!(told(3, &up), (vec![false], 0, None));
        // It flutters: that is told as one loss, once it lasts.
        for at in 2..100 {
            assert_eq!(told(2 * at, &down).0, [] as [bool; 0]);
            assert_eq!(told(2 * at + 1, &up).0, [] as [bool; 0]);
        }
        let due = seconds(1) + PAUSE;
        assert_eq!(told(300, &down), (vec![], 1, Some(due)));
        assert_eq!(told(due.as_secs(), &down), (vec![true], 1, None));
    }

    #[test]
    fn what_was_never_well_has_a_while_to_become_it() {
        let (up, down, unknown) =
            (with(&[(Some(true), false)]), with(&[(Some(false), false)]), with(&[(None, false)]));
        let mut health = Health::default();
        assert_eq!(health.observe(seconds(0), &down), []);
        assert_eq!(health.next(), Some(GRACE));
        assert_eq!(health.observe(seconds(1), &up), []);
        let mut health = Health::default();
        assert_eq!(health.observe(seconds(0), &down), []);
        // That nobody knows is no news.
        assert_eq!(health.observe(seconds(5), &unknown), []);
        let turns = health.observe(GRACE, &down);
        assert_eq!(turns.len(), 1, "{turns:?}");
        assert!(turns[0].message.ends_with(": w0 192.168.77.20 (refused)"), "{turns:?}");
    }

    #[test]
    fn what_nobody_knows_when_it_is_due_waits_for_news_and_for_no_clock() {
        let (up, down) = (with(&[(Some(true), false)]), with(&[(Some(false), false)]));
        let gone = [with(&[]), with(&[(None, false)]), with(&[(Some(false), true)])];
        for unknown in gone {
            // One that was never well, and one whose loss was told a moment ago.
            for looks in [&[(0, &down)][..], &[(0, &up), (1, &down), (2, &up), (3, &down)]] {
                let mut health = Health::default();
                for (at, state) in looks {
                    health.observe(seconds(*at), state);
                }
                let due = health.next().unwrap();
                assert_eq!((health.observe(due, &unknown), health.next()), (vec![], None));
                assert_eq!(health.down(), 0, "nobody knows it to be down");
                let later = due + seconds(1);
                assert_eq!(health.observe(later, &down).len(), 1);
                assert_eq!((health.down(), health.next()), (1, None));
            }
        }
    }

    #[test]
    fn only_members_that_take_flows_are_told_of() {
        let (ill, well, leaves) = ((Some(false), false), (Some(true), false), (Some(true), true));
        let of = |members: &[(Option<bool>, bool)]| with(members).pools["nodes"].clone();
        assert_eq!(
            lost(&of(&[leaves, ill, leaves, ill])),
            "No node behind the load balancer passes its checks: w1 192.168.77.20 (refused), w3 192.168.77.20 (refused)"
        );
        let told = lost(&of(&[leaves, ill, ill, ill, ill, ill]));
        assert!(told.contains(": w1 ") && told.ends_with(", and 2 more"), "{told}");
        let told = regained(&of(&[leaves, ill, well]));
        assert!(told.starts_with("1 of 2 nodes"), "{told}");
    }
}
