//! When something whose owner is gone may be removed: seen twice, a period apart, and not too much at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What was seen before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Since when each thing has been without its owner.
    since: BTreeMap<String, Duration>,
}

/// What may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// May be removed.
    pub ripe: BTreeSet<String>,
    /// Why nothing may be removed, though there is something ripe.
    pub stopped: Option<String>,
}

/// At most this many at once, or a tenth of all if that is more.
const BUDGET: usize = 3;

impl Sweep {
    /// Takes in what is without an owner at `now`, of `total` things. Time is counted from any fixed point.
    pub fn observe(
        &mut self,
        now: Duration,
        orphans: &BTreeSet<String>,
        total: usize,
        period: Duration,
    ) -> Verdict {
        self.since.retain(|name, _| orphans.contains(name));
        for name in orphans {
            self.since.entry(name.clone()).or_insert(now);
        }
        let ripe: BTreeSet<String> = self
            .since
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= period)
            .map(|(name, _)| name.clone())
            .collect();
        let budget = BUDGET.max(total / 10);
        if ripe.len() > budget {
            let stopped = format!(
                "{} of {total} would be removed, more than the budget of {budget}: {}",
                ripe.len(),
                ripe.iter().take(10).cloned().collect::<Vec<_>>().join(", ")
            );
            return Verdict { ripe: BTreeSet::new(), stopped: Some(stopped) };
        }
        Verdict { ripe, stopped: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn names(range: std::ops::Range<u32>) -> BTreeSet<String> {
        range.map(|n| n.to_string()).collect()
    }

    #[test]
    fn once_seen_is_not_enough() {
        let mut sweep = Sweep::default();
        let at = |seconds| Duration::from_secs(seconds);
        assert_eq!(sweep.observe(at(100), &names(0..1), 5, PERIOD), Verdict::default());
        assert_eq!(sweep.observe(at(109), &names(0..1), 5, PERIOD), Verdict::default());
        assert_eq!(sweep.observe(at(110), &names(0..1), 5, PERIOD).ripe, names(0..1));
    }

    #[test]
    fn one_that_came_back_starts_anew() {
        let mut sweep = Sweep::default();
        let at = |seconds| Duration::from_secs(seconds);
        sweep.observe(at(0), &names(0..1), 5, PERIOD);
        sweep.observe(at(5), &names(0..0), 5, PERIOD);
        assert_eq!(sweep.observe(at(12), &names(0..1), 5, PERIOD), Verdict::default());
    }

    #[test]
    fn above_the_budget_nothing_goes() {
        let mut sweep = Sweep::default();
        sweep.observe(Duration::ZERO, &names(0..5), 20, PERIOD);
        let verdict = sweep.observe(PERIOD, &names(0..5), 20, PERIOD);
        assert!(verdict.ripe.is_empty() && verdict.stopped.is_some());
    }
}
