//! ake-api's change feed: what it tells by itself of a cluster, members' health included.

use std::time::Duration;

use ake_api_client::ClusterState;
use tokio::time::Instant;

use crate::{cloud::Cloud, cluster::Backoff};

/// A cluster's state, with the ETag that ake-api gave.
pub(super) type News = (ClusterState, String);

/// How long one question waits for news while the device does not have what was written: then a look is due in any case.
const SOON: Duration = Duration::from_secs(5);

/// The same where nothing is waited for; ake-api takes no longer one. It is asked again then, and nothing is read.
const LONG: Duration = Duration::from_secs(25);

/// How soon it is asked again where it has failed.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// The least between two pieces of news where nothing is waited for.
const PACE: Duration = Duration::from_millis(200);

/// How the feed is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Something is not done yet: a look is due soon in any case.
    Soon,
    /// All is done. The last look took so long: news that comes without end takes no more than half of our time, and is
    /// never put off for longer than where something is not done.
    Long(Duration),
}

/// Waits until ake-api has another state than the one that was seen; none if it is to be looked at without news.
pub(super) async fn follow(cloud: &Cloud, seen: &str, patience: Patience) -> Option<News> {
    match patience {
        Patience::Soon => {
            let asked = Instant::now();
            if let Ok(Some(news)) = ask(cloud, seen, SOON).await {
                return Some(news);
            }
            tokio::time::sleep_until(asked + SOON).await;
            None
        }
        Patience::Long(pace) => {
            tokio::time::sleep(rest(pace)).await;
            let mut failures = 0;
            loop {
                let asked = Instant::now();
                match ask(cloud, seen, LONG).await {
                    Ok(Some(news)) => return Some(news),
                    answer => {
                        tokio::time::sleep(pause(&mut failures, answer.is_err(), asked.elapsed())).await
                    }
                }
            }
        }
    }
}

/// How long nothing is asked after a look that took so long.
fn rest(pace: Duration) -> Duration {
    pace.clamp(PACE, SOON)
}

async fn ask(cloud: &Cloud, seen: &str, wait: Duration) -> Result<Option<News>, ()> {
    match cloud.api.changed(cloud.cluster_id, seen, wait).await {
        Ok(news) => Ok(news.filter(|(_, tag)| tag != seen)),
        Err(error) => {
            tracing::debug!(%error, "ake-api does not tell what changes");
            Err(())
        }
    }
}

/// How long until it is asked again. Whoever answers at once without news, as one that ends or does not know how to wait,
/// has as good as failed.
fn pause(failures: &mut u32, has_failed: bool, took: Duration) -> Duration {
    if has_failed || took < LONG / 2 {
        *failures += 1;
        BACKOFF.pause(*failures)
    } else {
        *failures = 0;
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_took_long_does_not_put_news_off_for_as_long() {
        let seconds = Duration::from_secs;
        for (took, expected) in [(Duration::ZERO, PACE), (seconds(1), seconds(1)), (seconds(90), SOON)] {
            assert_eq!(rest(took), expected, "{took:?}");
        }
    }

    #[test]
    fn who_fails_or_does_not_wait_is_asked_less_and_less() {
        for (has_failed, took) in [(true, Duration::ZERO), (true, LONG), (false, Duration::ZERO)] {
            let mut failures = 0;
            let pauses: Vec<_> = (0..9).map(|_| pause(&mut failures, has_failed, took)).collect();
            assert!(pauses[0] >= BACKOFF.first && pauses[8] >= BACKOFF.longest, "{pauses:?}");
            assert!(pauses.iter().sum::<Duration>() > 3 * BACKOFF.longest, "{pauses:?}");
            // One that has waited is asked again at once, and is in good standing.
            assert_eq!((pause(&mut failures, false, LONG), failures), (Duration::ZERO, 0));
        }
    }
}
