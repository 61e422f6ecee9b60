//! Places in the kernel's tables, and what happens when they run out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::memory::Identity;

/// A state that does not fit the maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limits.{limit} is {size}: the state has more {what}; raise it in the configuration and restart")]
pub struct Full {
    /// Key of the limit.
    pub limit: &'static str,
    /// How many fit.
    pub size: u32,
    /// What there are too many of.
    pub what: &'static str,
}

/// Numbers to give out; those that come back go to the end of the queue.
#[derive(Debug, Clone)]
pub(super) struct Places {
    limit: &'static str,
    what: &'static str,
    size: u32,
    end: u32,
    next: u32,
    free: VecDeque<u32>,
    /// Those of a former process, until the first state says whose they are.
    kept: BTreeMap<Identity, u32>,
}

impl Places {
    /// As many as `size`, from `first` on.
    pub(super) fn new(limit: &'static str, what: &'static str, first: u32, size: u32) -> Self {
        let end = first.saturating_add(size);
        Self { limit, what, size, end, next: first, free: VecDeque::new(), kept: BTreeMap::new() }
    }

    /// Keeps places for those who had them.
    pub(super) fn keep(&mut self, kept: impl Iterator<Item = (Identity, u32)>) {
        self.kept = kept.filter(|(_, place)| *place < self.end).collect();
        let kept: BTreeSet<u32> = self.kept.values().copied().collect();
        let first = self.next;
        self.next = kept.last().map_or(first, |last| last + 1);
        self.free = (first..self.next).filter(|place| !kept.contains(place)).collect();
    }

    /// Gives up the kept places of others than these.
    pub(super) fn claim(&mut self, wanted: impl Iterator<Item = Identity>) {
        if self.kept.is_empty() {
            return;
        }
        let wanted: BTreeSet<Identity> = wanted.collect();
        let free = &mut self.free;
        self.kept.retain(|identity, place| {
            let claimed = wanted.contains(identity);
            if !claimed {
                free.push_back(*place);
            }
            claimed
        });
    }

    /// The kept place of somebody, or another one; whether it is a new owner's.
    pub(super) fn take(&mut self, identity: Identity) -> Result<(u32, bool), Full> {
        match self.kept.remove(&identity) {
            Some(place) => Ok((place, false)),
            None => Ok((self.next()?, true)),
        }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Result<u32, Full> {
        if self.next < self.end {
            self.next += 1;
            return Ok(self.next - 1);
        }
        let Self { limit, what, size, .. } = *self;
        self.free.pop_front().ok_or(Full { limit, size, what })
    }

    /// False, for use in `retain`.
    pub(super) fn give(&mut self, place: u32) -> bool {
        self.free.push_back(place);
        false
    }
}
