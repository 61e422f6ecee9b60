//! Owners whose last write was refused are left alone for a while, longer each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::step::Owner;
use crate::cluster::Backoff;

/// As upstream's service controller.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

/// The longest that we stay away because we were asked to.
const LONGEST_PATIENCE: Duration = Duration::from_secs(300);

/// The pause after so many failures in a row, the last of which `asked` us to stay away for so long.
pub(super) fn patience(backoff: Backoff, failures: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_default().min(LONGEST_PATIENCE).max(backoff.pause(failures))
}

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
    /// A write for this owner was refused, by somebody who `asked` us to stay away for so long, if that was said.
    pub fn refused(&mut self, owner: Owner, now: Instant, asked: Option<Duration>) {
        let hold = self.holds.entry(owner).or_insert(Hold { failures: 0, until: now });
        hold.failures += 1;
        hold.until = now + patience(BACKOFF, hold.failures, asked);
    }

    /// Services of these UIDs have changed. What all of them lack is tried again with them: so they hear of it.
    pub fn changed(&mut self, uids: BTreeSet<String>) {
        if let Some(checks) = self.holds.get_mut(&Owner::Checks).filter(|_| !uids.is_empty()) {
            checks.until = Instant::now();
        }
        uids.into_iter().for_each(|uid| self.lift(&Owner::Service(uid)));
    }

    /// The owner has succeeded.
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
    pub fn held(&self, now: Instant) -> impl Iterator<Item = Owner> + '_ {
        self.holds.iter().filter(move |(_, hold)| hold.until > now).map(|(owner, _)| owner.clone())
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

    fn owner(uid: &str) -> Owner {
        Owner::Service(uid.into())
    }

    #[test]
    fn each_refusal_holds_for_longer() {
        let mut holds = Holds::default();
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        holds.refused(owner("u"), begun, None);
        assert_eq!(holds.held(begun).collect::<Vec<_>>(), [owner("u")]);
        assert_eq!(holds.held(later(7)).count(), 0);
        holds.refused(owner("u"), later(7), None);
        assert_eq!(holds.held(later(16)).count(), 1);
        assert_eq!(holds.held(later(20)).count(), 0);
        holds.refused(owner("u"), later(20), None);
        holds.lift(&owner("u"));
        assert_eq!(holds.held(later(20)).count(), 0);
    }

    #[test]
    fn who_is_asked_to_stay_away_does_so_and_not_for_ever() {
        let mut holds = Holds::default();
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        for (uid, asked) in
            [("none", None), ("short", Some(1)), ("long", Some(60)), ("endless", Some(86_400))]
        {
            holds.refused(owner(uid), begun, asked.map(Duration::from_secs));
        }
        let held = |at| -> Vec<Owner> { holds.held(later(at)).collect() };
        assert_eq!(held(4), ["endless", "long", "none", "short"].map(owner));
        assert_eq!(held(7), ["endless", "long"].map(owner));
        assert_eq!(held(59), ["endless", "long"].map(owner));
        assert_eq!(held(61), [owner("endless")]);
        assert_eq!(holds.next(later(61)), Some(begun + LONGEST_PATIENCE));
        assert!(held(301).is_empty());
    }

    #[test]
    fn a_service_that_changes_has_what_all_lack_tried_again() {
        let mut holds = Holds::default();
        let begun = Instant::now();
        for owner in [owner("u"), owner("other"), Owner::Checks] {
            holds.refused(owner, begun, None);
        }
        holds.changed(BTreeSet::new());
        assert_eq!(holds.held(begun).count(), 3);
        holds.changed(["u".to_owned()].into());
        assert_eq!(holds.held(Instant::now()).collect::<Vec<_>>(), [owner("other")]);
        // It is not a first refusal that follows.
        let now = Instant::now();
        holds.refused(Owner::Checks, now, None);
        assert!(holds.held(now + Duration::from_secs(6)).any(|held| held == Owner::Checks));
    }
}
