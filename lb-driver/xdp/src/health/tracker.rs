//! From results of checks to health.

use super::{
    Health, Silence,
    ask::{Sign, Unwell},
};
use crate::config::Check;

/// Turns results of checks into health.
#[derive(Debug, Clone)]
pub(super) struct Tracker {
    pub(super) health: Health,
    /// Results in a row that speak against what is held.
    against: u32,
    /// Checks in a row from which nothing came back.
    silent: u32,
    /// Whether it has never been well, nor was presumed to be: then it has not fallen either, and need not rise.
    pub(super) new: bool,
}

impl Tracker {
    pub(super) fn of(health: Health) -> Self {
        let new = !health.presumed && health.healthy != Some(true);
        Self { health, against: 0, silent: 0, new }
    }

    /// Takes a result in; true if health is another one now. The first result of a target that nobody
    /// presumed anything of counts at once, and so does the first good one.
    pub(super) fn observe(&mut self, result: Result<(), Unwell>, settings: &Check) -> bool {
        let before = self.health.clone();
        let holds = self.health.healthy.or(self.health.presumed.then_some(true));
        let good = result.is_ok();
        let sign = result.as_ref().err().map_or(Sign::Life, |unwell| unwell.sign);
        self.silent = match sign {
            Sign::Life => 0,
            Sign::Silence => self.silent.saturating_add(1),
            Sign::Nothing => self.silent,
        };
        let reason = result.err().map(|unwell| unwell.reason);
        let needed = match holds {
            _ if self.new => 1,
            None => 1,
            Some(true) => settings.fall,
            Some(false) => settings.rise,
        };
        self.against = if holds == Some(good) { 0 } else { self.against + 1 };
        if holds == Some(good) || self.against >= needed {
            self.against = 0;
            self.health.healthy = Some(good);
            self.health.presumed = false;
            self.new &= !good;
        }
        match self.health.healthy {
            Some(true) => self.health.reason = None,
            Some(false) if reason.is_some() => self.health.reason = reason,
            _ => {}
        }
        let was = if holds == Some(true) { Silence::OfTheWell } else { Silence::OfTheUnwell };
        self.health.silence = match self.health.silence {
            known if self.silent >= settings.fall => {
                known.filter(|known| *known != Silence::NotYet).or(Some(was))
            }
            _ if self.new && sign != Sign::Life => Some(Silence::NotYet),
            _ => None,
        };
        self.health != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Check = Check { period_ms: 1000, timeout_ms: 100, rise: 2, fall: 3 };

    fn tracker(presumed: bool) -> Tracker {
        Tracker::of(Health { presumed, ..Health::default() })
    }

    fn refused() -> Result<(), Unwell> {
        Err("refused".to_owned().into())
    }

    fn late() -> Result<(), Unwell> {
        Err(Unwell::silent("timed out".to_owned()))
    }

    #[test]
    fn the_first_check_counts_at_once() {
        let mut tracker = tracker(false);
        assert!(tracker.health.verdict().is_err());
        assert!(tracker.observe(Ok(()), &SETTINGS));
        assert_eq!(tracker.health.verdict(), Ok(()));
    }

    #[test]
    fn whoever_was_never_well_need_not_rise() {
        let mut tracker = tracker(false);
        assert!(tracker.observe(refused(), &SETTINGS));
        assert!(!tracker.observe(refused(), &SETTINGS));
        assert!(tracker.observe(Ok(()), &SETTINGS), "the first good one counts");
        for _ in 0..SETTINGS.fall {
            tracker.observe(refused(), &SETTINGS);
        }
        assert!(tracker.health.verdict().is_err());
        tracker.observe(Ok(()), &SETTINGS);
        assert!(tracker.health.verdict().is_err(), "from then on it has to rise");
    }

    #[test]
    fn a_presumed_member_must_fall() {
        let mut tracker = tracker(true);
        for _ in 0..2 {
            assert_eq!(tracker.health.verdict(), Ok(()));
            assert!(!tracker.observe(refused(), &SETTINGS));
        }
        assert!(tracker.observe(refused(), &SETTINGS));
        assert_eq!(tracker.health.verdict(), Err("refused".to_owned()));
        assert!(!tracker.observe(refused(), &SETTINGS));
        assert!(tracker.observe(late(), &SETTINGS), "another reason is news");
    }

    #[test]
    fn rises_and_falls_are_counted_in_a_row() {
        let mut tracker = tracker(false);
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let healthy = results.map(|good| {
            tracker.observe(if good { Ok(()) } else { refused() }, &SETTINGS);
            tracker.health.healthy == Some(true)
        });
        assert_eq!(healthy, [true, true, true, true, true, true, false, false, false, false, true]);
    }

    #[test]
    fn silence_is_counted_in_a_row_and_knows_what_was_before() {
        let silences = |mut tracker: Tracker, results: &[fn() -> Result<(), Unwell>]| {
            let heard = results.iter().map(|result| {
                tracker.observe(result(), &SETTINGS);
                tracker.health.silence
            });
            heard.collect::<Vec<_>>()
        };
        let (well, unwell) = (Some(Silence::OfTheWell), Some(Silence::OfTheUnwell));
        let not_yet = Some(Silence::NotYet);
        let nothing: fn() -> Result<(), Unwell> =
            || Err(Unwell { reason: "asked for a moment".to_owned(), sign: Sign::Nothing });
        let good = || Ok(());
        for (presumed, results, expected) in [
            (true, vec![late, late, late, late, good], vec![None, None, well, well, None]),
            (true, vec![late, late, refused, late, late], vec![None; 5]),
            (
                true,
                vec![refused, refused, refused, late, late, late],
                vec![None, None, None, None, None, unwell],
            ),
            (false, vec![late, late, late, refused, late], vec![not_yet, not_yet, unwell, None, not_yet]),
            (false, vec![nothing; 4], vec![not_yet; 4]),
            (false, vec![late, nothing, late, late, good], vec![not_yet, not_yet, not_yet, unwell, None]),
            (false, vec![good, late, late, late, refused], vec![None, None, None, well, None]),
        ] {
            assert_eq!(silences(tracker(presumed), &results), expected, "{presumed}");
        }
    }
}
