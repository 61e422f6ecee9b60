//! Members of pools that are about to go have their time to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A member of a pool: the pool's name, and the node's.
type Place = (String, String);

/// Since when each member has been about to go, and until when it may stay. Time is counted from any fixed point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    since: BTreeMap<Place, (Duration, Duration)>,
}

impl Drains {
    /// Takes in who is about to go at `now`, each with the seconds that it has. Whoever is not any more is forgotten.
    pub fn observe(&mut self, now: Duration, leaving: &BTreeMap<Place, u32>) {
        self.since.retain(|place, _| leaving.contains_key(place));
        for (place, seconds) in leaving {
            let (since, until) = self.since.entry(place.clone()).or_insert((now, now));
            *until = *since + Duration::from_secs((*seconds).into());
        }
    }

    /// Whose time is over.
    #[must_use]
    pub fn over(&self, now: Duration) -> BTreeSet<Place> {
        self.since.iter().filter(|(_, (_, until))| *until <= now).map(|(place, _)| place.clone()).collect()
    }

    /// When the next one's is.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.since.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(places: &[(&str, u32)]) -> BTreeMap<Place, u32> {
        places.iter().map(|(node, seconds)| (("nodes".to_owned(), (*node).to_owned()), *seconds)).collect()
    }

    #[test]
    fn each_has_its_time_from_when_it_was_first_seen() {
        let at = Duration::from_secs;
        let mut drains = Drains::default();
        drains.observe(at(100), &leaving(&[("a", 30)]));
        drains.observe(at(110), &leaving(&[("a", 30), ("b", 5)]));
        assert!(drains.over(at(114)).is_empty());
        assert_eq!(drains.next(at(114)), Some(at(115)));
        assert_eq!(drains.over(at(115)).len(), 1);
        assert_eq!(drains.next(at(115)), Some(at(130)));
        assert_eq!(drains.over(at(130)).len(), 2);
        assert_eq!(drains.next(at(130)), None);
    }

    #[test]
    fn one_that_stays_after_all_begins_anew_the_next_time() {
        let at = Duration::from_secs;
        let mut drains = Drains::default();
        drains.observe(at(0), &leaving(&[("a", 30)]));
        drains.observe(at(20), &leaving(&[]));
        drains.observe(at(25), &leaving(&[("a", 30)]));
        assert!(drains.over(at(40)).is_empty());
    }

    #[test]
    fn the_time_may_change_on_the_way() {
        let at = Duration::from_secs;
        let mut drains = Drains::default();
        drains.observe(at(0), &leaving(&[("a", 30)]));
        drains.observe(at(10), &leaving(&[("a", 0)]));
        assert_eq!(drains.over(at(10)).len(), 1);
    }
}
