//! Which instance writes to the devices. Clocks of different machines are never compared: an instance that sees no
//! new sign of life for a while, by its own clock, takes the post.

use std::time::Duration;

/// How often the holder gives a sign of life.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long a holder may be silent before another takes its post.
pub const SILENCE: Duration = Duration::from_secs(4);
/// How long after its last sign of life a holder still writes: it stops before another begins.
pub const TRUST: Duration = Duration::from_secs(3);

/// The post of the writer, as it stands in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Post {
    /// Whose it is; empty while it is free.
    pub holder: String,
    /// Counts its signs of life.
    pub beat: u64,
    /// Raised with each new holder: devices refuse what comes from an older one.
    pub epoch: u64,
}

/// What an instance does about the post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is ours: give a sign of life.
    Beat,
    /// It is ours, and the last sign of life is fresh.
    Hold,
    /// Nobody has it. Whoever had it has ended in order.
    Take,
    /// Whoever has it is silent, and may come back: take it, and make sure of the devices.
    Seize,
    /// Somebody else has it.
    Wait,
}

/// Decides. `unchanged` is how long the post has stood like this, by the own clock.
#[must_use]
pub fn step(post: &Post, unchanged: Duration, me: &str) -> Step {
    if post.holder == me {
        return if unchanged >= BEAT { Step::Beat } else { Step::Hold };
    }
    match (post.holder.is_empty(), unchanged >= SILENCE) {
        (true, _) => Step::Take,
        (false, true) => Step::Seize,
        (false, false) => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(holder: &str) -> Post {
        Post { holder: holder.into(), beat: 7, epoch: 3 }
    }

    #[test]
    fn the_post_is_taken_when_it_is_free_or_its_holder_is_silent() {
        for (holder, unchanged, expected) in [
            ("me", 0, Step::Hold),
            ("me", 1000, Step::Beat),
            ("me", 60_000, Step::Beat),
            ("", 0, Step::Take),
            ("other", 0, Step::Wait),
            ("other", 3999, Step::Wait),
            ("other", 4000, Step::Seize),
        ] {
            assert_eq!(
                step(&post(holder), Duration::from_millis(unchanged), "me"),
                expected,
                "{holder} {unchanged}"
            );
        }
    }

    /// An instance in the model: what it saw, since when, and until when it trusts its own post.
    #[derive(Clone, Default)]
    struct Instance {
        seen: Post,
        since: u64,
        trusted_until: u64,
    }

    proptest! {
        /// Instances wake when they like, and are stopped for any time. No two trust that they hold the post at
        /// once, and epochs are never used twice.
        #[test]
        fn never_do_two_write_in_trust(wakes in proptest::collection::vec((0usize..3, 1u64..6000), 1..200)) {
            let (beat, silence, trust) =
                (BEAT.as_millis() as u64, SILENCE.as_millis() as u64, TRUST.as_millis() as u64);
            prop_assert!(beat < trust && trust < silence);
            let mut row = Post::default();
            let mut all = vec![Instance::default(); 3];
            let (mut now, mut epochs) = (0, Vec::new());
            for (who, pause) in wakes {
                now += pause;
                let me = format!("i{who}");
                let instance = &mut all[who];
                if instance.seen != row {
                    (instance.seen, instance.since) = (row.clone(), now);
                }
                match step(&row, Duration::from_millis(now - instance.since), &me) {
                    Step::Beat => {
                        row.beat += 1;
                        instance.trusted_until = now + trust;
                    }
                    Step::Take | Step::Seize => {
                        row = Post { holder: me, beat: row.beat + 1, epoch: row.epoch + 1 };
                        prop_assert!(!epochs.contains(&row.epoch));
                        epochs.push(row.epoch);
                        instance.trusted_until = now + trust;
                    }
                    Step::Hold | Step::Wait => {}
                }
                (instance.seen, instance.since) = if instance.seen == row { (instance.seen.clone(), instance.since) } else { (row.clone(), now) };
                let trusting = all.iter().filter(|i| i.trusted_until > now).count();
                prop_assert!(trusting <= 1, "{trusting} at {now}");
            }
        }
    }
}
