//! Owners whose last write was refused are left alone for a while, longer each time.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::step::Owner;
use crate::{cluster::Backoff, nodes::pairs};

/// As upstream's service controller.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

struct Hold {
    failures: u32,
    until: Instant,
}

/// Who is left alone, and until when.
#[derive(Default)]
pub struct Holds {
    holds: BTreeMap<Owner, Hold>,
}

impl Holds {
    /// A write for this owner was refused.
    pub fn refused(&mut self, owner: Owner, now: Instant) {
        let hold = self.holds.entry(owner).or_insert(Hold { failures: 0, until: now });
        hold.failures += 1;
        hold.until = now + BACKOFF.pause(hold.failures);
    }

    /// The owner has changed, or has succeeded.
    pub fn lift(&mut self, owner: &Owner) {
        self.holds.remove(owner);
    }

    /// Something was freed that others may have waited for.
    pub fn lift_all(&mut self) {
        for hold in self.holds.values_mut() {
            hold.until = Instant::now();
        }
    }

    /// Who is to be left alone now, as [`super::wanted::World::held`] takes it.
    pub fn held(&self, now: Instant) -> impl Iterator<Item = String> + '_ {
        self.holds.iter().filter(move |(_, hold)| hold.until > now).map(|(owner, _)| match owner {
            Owner::Service(uid) => uid.clone(),
            Owner::Node(name) => pairs::held(name),
            Owner::All => String::new(),
        })
    }

    /// When the next one may be tried again.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.holds.values().map(|hold| hold.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_holds_for_longer() {
        let mut holds = Holds::default();
        let owner = || Owner::Service("u".into());
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        holds.refused(owner(), begun);
        assert_eq!(holds.held(begun).collect::<Vec<_>>(), ["u"]);
        assert_eq!(holds.held(later(7)).count(), 0);
        holds.refused(owner(), later(7));
        assert_eq!(holds.held(later(16)).count(), 1);
        assert_eq!(holds.held(later(20)).count(), 0);
        holds.refused(owner(), later(20));
        holds.lift(&owner());
        assert_eq!(holds.held(later(20)).count(), 0);
    }
}
