//! Objects of clusters that the database does not know: they stay on a balancer until it is sure that nobody wants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lb_driver::model::State;
use tokio::time::Instant;

use crate::{
    decide::orphans::{Sweep, Terms},
    metrics::Metrics,
};

/// What was seen of them so far, by balancer.
pub struct Orphans {
    sweeps: Mutex<BTreeMap<String, Sweep>>,
    begun: Instant,
    terms: Terms,
}

impl Orphans {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(period: Duration, budget: usize) -> Self {
        Self { sweeps: Mutex::default(), begun: Instant::now(), terms: Terms { period, budget } }
    }

    /// What a balancer shall have: what is wanted, and what of `actual` is not to be removed yet. `clusters`: those that
    /// the database knows. `leads`: whether it is this instance that would write.
    pub(super) fn keep(
        &self,
        url: &str,
        wanted: &State,
        actual: &State,
        clusters: &BTreeSet<String>,
        leads: bool,
        metrics: &Metrics,
    ) -> Kept {
        self.keep_at(self.begun.elapsed(), (url, leads), wanted, actual, clusters, metrics)
    }

    fn keep_at(
        &self,
        now: Duration,
        (url, leads): (&str, bool),
        wanted: &State,
        actual: &State,
        clusters: &BTreeSet<String>,
        metrics: &Metrics,
    ) -> Kept {
        let orphans = unknown(actual, clusters);
        let objects = orphans.values().sum();
        let mut sweeps = self.sweeps.lock().unwrap_or_else(PoisonError::into_inner);
        let sweep = sweeps.entry(url.to_owned()).or_default();
        // one that holds a later state was written by whoever knows more than we do
        if actual.version > wanted.version {
            sweep.reset();
            metrics.orphans(url, 0, false);
            return Kept { state: wanted.clone(), going: 0 };
        }
        if !leads {
            sweep.reset();
            metrics.orphans(url, 0, false);
            return Kept { state: with(wanted, actual, &orphans.into_keys().collect()), going: 0 };
        }
        let verdict = sweep.observe(now, &orphans, clusters.len(), self.terms);
        drop(sweeps);
        metrics.orphans(url, objects, verdict.stopped.is_some());
        if let Some(reason) = &verdict.stopped {
            let whose: Vec<&String> = orphans.keys().take(10).collect();
            tracing::error!(device = url, reason, clusters = ?whose, "objects of clusters that the database does not know stay on the balancer");
        }
        for cluster in &verdict.ripe {
            let objects = orphans.get(cluster).copied().unwrap_or_default();
            tracing::warn!(
                device = url,
                cluster,
                objects,
                "the database has not known this cluster for a period; its objects go"
            );
        }
        let going = verdict.ripe.iter().filter_map(|cluster| orphans.get(cluster)).sum();
        let stay = orphans.into_keys().filter(|cluster| !verdict.ripe.contains(cluster)).collect();
        Kept { state: with(wanted, actual, &stay), going }
    }
}

/// What a balancer shall have.
pub(super) struct Kept {
    /// What is wanted, and what is not to be removed yet.
    pub(super) state: State,
    /// How many objects go that nobody's row knows.
    pub(super) going: usize,
}

/// How many objects of clusters that the database does not know a balancer has, by cluster.
pub(crate) fn unknown(actual: &State, clusters: &BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut orphans = BTreeMap::new();
    for owner in actual.pools.keys().chain(actual.load_balancers.keys()) {
        if !clusters.contains(owner.cluster()) {
            *orphans.entry(owner.cluster().to_owned()).or_default() += 1;
        }
    }
    orphans
}

/// What is wanted, and what `actual` has of these clusters. A VIP that somebody wants is not kept for them: that it was
/// given away says that theirs is over.
fn with(wanted: &State, actual: &State, clusters: &BTreeSet<String>) -> State {
    let mut state = wanted.clone();
    let stays = |cluster: &str| clusters.contains(cluster);
    for (owner, pool) in actual.pools.iter().filter(|(owner, _)| stays(owner.cluster())) {
        state.pools.entry(owner.clone()).or_insert_with(|| pool.clone());
    }
    let given: BTreeSet<IpAddr> = wanted.load_balancers.values().map(|balancer| balancer.vip).collect();
    for (owner, balancer) in actual.load_balancers.iter().filter(|(owner, _)| stays(owner.cluster())) {
        let whole = balancer.listeners.values().all(|pool| state.pools.contains_key(pool));
        if whole && !given.contains(&balancer.vip) {
            state.load_balancers.entry(owner.clone()).or_insert_with(|| balancer.clone());
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use lb_driver::model::{Affinity, Endpoint, LoadBalancer, Owner, Pool, Protocol, Version};

    use super::*;

    fn state(number: u64, clusters: &[(&str, &str)]) -> State {
        let mut state = State { version: Version { epoch: 1, number }, ..State::default() };
        for (cluster, vip) in clusters {
            let pool = Owner::new("p", cluster, "nodes").unwrap();
            let port = NonZeroU16::new(80).unwrap();
            let endpoint = Endpoint { protocol: Protocol::Tcp, port };
            let balancer = LoadBalancer {
                vip: vip.parse().unwrap(),
                listeners: BTreeMap::from([(endpoint, pool.clone())]),
                source_ranges: BTreeSet::new(),
                affinity: Affinity::None,
            };
            state.pools.insert(pool, Pool { members: BTreeMap::new(), checks: BTreeSet::new() });
            state.load_balancers.insert(Owner::new("p", cluster, "svc").unwrap(), balancer);
        }
        state
    }

    fn names(state: &State) -> Vec<String> {
        state.load_balancers.keys().map(|owner| owner.cluster().to_owned()).collect()
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    const A: (&str, &str) = ("a", "203.0.113.16");
    const B: (&str, &str) = ("b", "203.0.113.32");

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_cluster_that_nobody_knows_stays_for_a_period() {
        let metrics = Metrics::new().unwrap();
        let orphans = Orphans::new(at(300), 20);
        let (wanted, actual) = (state(2, &[A]), state(1, &[A, B]));
        let keep = |now, leads, known: &[&str]| {
            let kept = orphans.keep_at(at(now), ("u", leads), &wanted, &actual, &ids(known), &metrics);
            (names(&kept.state), kept.going)
        };
        let counted = |number: usize| {
            let text = metrics.text().unwrap();
            assert!(text.contains(&format!("ake_api_orphans{{place=\"u\"}} {number}\n")), "{text}");
        };
        let both = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(keep(0, true, &["a"]), (both.clone(), 0));
        assert_eq!(keep(299, true, &["a"]), (both.clone(), 0));
        assert_eq!(keep(300, true, &["a"]), (vec!["a".to_owned()], 2));
        counted(2);
        // who does not write does not judge, and begins anew when it does
        assert_eq!(keep(600, false, &["a"]), (both.clone(), 0));
        counted(0);
        assert_eq!(keep(700, true, &["a"]), (both, 0));
        // what a cluster that is known does not want goes at once
        assert_eq!(keep(701, true, &["a", "b"]), (vec!["a".to_owned()], 0));
        let text = metrics.text().unwrap();
        assert!(text.contains("ake_api_orphans{place=\"u\"} 0"), "{text}");
    }

    #[test]
    fn an_empty_database_or_too_much_removes_nothing() {
        let metrics = Metrics::new().unwrap();
        let cases = [(20, state(2, &[]), &[][..]), (1, state(2, &[A]), &["a"])];
        // in the end another instance leads, or the balancer holds a later state: then nothing is said of it any more
        let ends = [(false, state(1, &[A, B])), (true, state(3, &[A, B]))];
        let pairs = cases.iter().flat_map(|case| ends.iter().map(move |end| (case, end)));
        for ((budget, wanted, known), (leads, last)) in pairs {
            let orphans = Orphans::new(at(300), *budget);
            let actual = state(1, &[A, B]);
            let stopped = |one: u8| {
                let text = metrics.text().unwrap();
                let line = format!("ake_api_orphan_sweep_stopped{{place=\"u\"}} {one}\n");
                assert!(text.contains(&line), "{text}");
            };
            for now in [0, 300, 600] {
                let kept = orphans.keep_at(at(now), ("u", true), wanted, &actual, &ids(known), &metrics);
                assert_eq!((names(&kept.state), kept.going), (vec!["a".to_owned(), "b".to_owned()], 0));
            }
            stopped(1);
            orphans.keep_at(at(900), ("u", *leads), wanted, last, &ids(known), &metrics);
            stopped(0);
        }
    }

    #[test]
    fn a_vip_that_was_given_to_another_is_not_kept() {
        let orphans = Orphans::new(at(300), 20);
        let (wanted, metrics) = (state(2, &[("new", B.1)]), Metrics::new().unwrap());
        let kept = orphans.keep("u", &wanted, &state(1, &[B]), &ids(&["new"]), true, &metrics).state;
        assert_eq!((names(&kept), kept.check()), (vec!["new".to_owned()], Ok(())));
    }

    #[test]
    fn what_a_later_state_holds_is_not_judged() {
        let metrics = Metrics::new().unwrap();
        let orphans = Orphans::new(at(300), 20);
        let actual = state(5, &[A, B]);
        let keep = |now, wanted| {
            let wanted = state(wanted, &[A]);
            names(&orphans.keep_at(at(now), ("u", true), &wanted, &actual, &ids(&["a"]), &metrics).state)
        };
        assert_eq!(keep(0, 4), ["a"], "as it is wanted; nothing is written to it");
        assert_eq!(keep(300, 6), ["a", "b"], "from now on it counts");
        assert_eq!(keep(600, 6), ["a"]);
    }
}
