//! When something that carries our mark, and that no row of the database knows, may be removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What was seen before, in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Since when nobody's row knows each.
    since: BTreeMap<String, Duration>,
}

/// How much may be removed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Between the two observations that it takes.
    pub period: Duration,
    /// Most objects of one sweep; with more nothing is removed. 0 removes nothing ever.
    pub budget: usize,
}

/// What may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// May be removed.
    pub ripe: BTreeSet<String>,
    /// Why nothing may be removed, though there is something that nobody's row knows.
    pub stopped: Option<String>,
}

impl Sweep {
    /// Takes in what nobody's row knows at `now`, each with the number of its objects, from a view that is complete. Time
    /// is counted from any fixed point. `known`: how much the database knows of the same kind.
    pub fn observe(
        &mut self,
        now: Duration,
        orphans: &BTreeMap<String, usize>,
        known: usize,
        terms: Terms,
    ) -> Verdict {
        self.since.retain(|name, _| orphans.contains_key(name));
        for name in orphans.keys() {
            self.since.entry(name.clone()).or_insert(now);
        }
        if orphans.is_empty() {
            return Verdict::default();
        }
        let ripe: BTreeSet<String> = self
            .since
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= terms.period && now > **since)
            .map(|(name, _)| name.clone())
            .collect();
        let objects: usize = ripe.iter().filter_map(|name| orphans.get(name)).sum();
        let stopped = if known == 0 {
            Some("the database knows nothing at all: it may have been lost".to_owned())
        } else if objects > terms.budget {
            Some(format!("{objects} objects would be removed, orphan_budget is {}", terms.budget))
        } else {
            None
        };
        Verdict { ripe: if stopped.is_some() { BTreeSet::new() } else { ripe }, stopped }
    }

    /// Forgets what was seen: whoever looks next begins anew.
    pub fn reset(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { period: Duration::from_secs(300), budget: 5 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(orphans: &[(&str, usize)]) -> BTreeMap<String, usize> {
        orphans.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn it_takes_two_observations_a_period_apart() {
        let mut sweep = Sweep::default();
        let orphans = of(&[("a", 3)]);
        for (now, ripe) in [(100, false), (399, false), (400, true)] {
            assert_eq!(!sweep.observe(at(now), &orphans, 1, TERMS).ripe.is_empty(), ripe, "{now}");
        }
        // one that was known meanwhile, or whose place is looked at by another, begins anew
        sweep.observe(at(500), &of(&[]), 1, TERMS);
        assert!(sweep.observe(at(900), &orphans, 1, TERMS).ripe.is_empty());
        sweep.reset();
        assert!(sweep.observe(at(1300), &orphans, 1, TERMS).ripe.is_empty());
        assert_eq!(sweep.observe(at(1600), &orphans, 1, TERMS).ripe.len(), 1);
    }

    #[test]
    fn too_much_or_an_empty_database_stops_it() {
        for (orphans, known, budget, ripe, words) in [
            (of(&[("a", 3), ("b", 2)]), 1, 5, 2, None),
            (of(&[("a", 3), ("b", 3)]), 1, 5, 0, Some("6 objects would be removed, orphan_budget is 5")),
            (of(&[("a", 1)]), 1, 0, 0, Some("orphan_budget is 0")),
            (of(&[("a", 1)]), 0, 5, 0, Some("may have been lost")),
            (of(&[]), 0, 5, 0, None),
        ] {
            let mut sweep = Sweep::default();
            let terms = Terms { budget, ..TERMS };
            sweep.observe(at(0), &orphans, known, terms);
            let verdict = sweep.observe(at(300), &orphans, known, terms);
            assert_eq!(verdict.ripe.len(), ripe, "{orphans:?}");
            assert_eq!(verdict.stopped.is_some(), words.is_some(), "{verdict:?}");
            assert!(verdict.stopped.unwrap_or_default().contains(words.unwrap_or_default()), "{orphans:?}");
        }
    }

    proptest! {
        /// Whatever comes and goes: what is removed was seen without a break for a period, and never more than the
        /// budget at once.
        #[test]
        fn nothing_goes_early_and_never_too_much(
            looks in proptest::collection::vec((1u64..400, proptest::collection::btree_map("[a-d]", 1usize..4, 0..4), 0usize..2), 1..40)
        ) {
            let mut sweep = Sweep::default();
            let mut now = 0;
            let mut since: BTreeMap<String, u64> = BTreeMap::new();
            for (step, orphans, known) in looks {
                now += step;
                since.retain(|name, _| orphans.contains_key(name));
                for name in orphans.keys() {
                    since.entry(name.clone()).or_insert(now);
                }
                let verdict = sweep.observe(at(now), &orphans, known, TERMS);
                let objects: usize = verdict.ripe.iter().map(|name| orphans[name]).sum();
                prop_assert!(objects <= TERMS.budget);
                prop_assert!(verdict.ripe.iter().all(|name| now - since[name] >= 300));
                prop_assert!(known > 0 || verdict.ripe.is_empty());
                prop_assert!(verdict.stopped.is_none() || verdict.ripe.is_empty());
                let all_ripe = since.iter().filter(|(_, from)| now - **from >= 300).count();
                prop_assert!(verdict.stopped.is_some() || verdict.ripe.len() == all_ripe);
            }
        }
    }
}
