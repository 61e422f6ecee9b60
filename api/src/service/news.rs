//! The change feed: a cluster's state as soon as it looks otherwise than its asker has seen it.

use std::{sync::Arc, time::Duration};

use ake_api_client::{ClusterId, ClusterState};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    decide::access::Caller,
    device::View,
    refusal::Refusal,
    store::{Loaded, Pulse},
};

/// How often the database is asked whether another instance changed it.
const OTHERS: Duration = Duration::from_secs(1);

/// What an asker has seen already.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// The `If-None-Match` of the request.
    pub seen: Option<String>,
    /// How long to wait until it differs.
    pub wait: Duration,
}

impl Service {
    /// A cluster's state and its ETag; none if it is what the asker has seen, after waiting for something else. To
    /// answer that nothing is new costs one row of the database, however much the cluster owns.
    pub async fn news(
        &self,
        caller: &Caller,
        id: ClusterId,
        news: &News,
    ) -> Result<(Option<ClusterState>, String), Refusal> {
        let deadline = Instant::now() + news.wait;
        if let Some(seen) = &news.seen {
            let feed = self.devices.feed();
            let mut waiter = feed.waiter(id);
            loop {
                let mark = feed.mark(id);
                let tag = feed.etag(&self.brief_for(caller, id).await?, mark);
                if !none_match(seen, &tag) {
                    break;
                }
                if !matches!(tokio::time::timeout_at(deadline, waiter.rung()).await, Ok(true)) {
                    return Ok((None, tag));
                }
            }
        }
        let (state, tag) = self.get(caller, id).await?;
        Ok((Some(state), tag))
    }

    /// One thing that a cluster owns, and the ETag of its whole state; none if the asker has seen it.
    pub async fn part<T>(
        &self,
        caller: &Caller,
        id: ClusterId,
        seen: Option<&str>,
        show: impl FnOnce(&Loaded, &View) -> Result<T, Refusal>,
    ) -> Result<(Option<T>, String), Refusal> {
        let mark = self.devices.feed().mark(id);
        let loaded = self.load_for(caller, id).await?;
        let part = show(&loaded, &self.devices.view())?;
        let tag = self.devices.feed().etag(&loaded.record, mark);
        let seen = seen.is_some_and(|seen| none_match(seen, &tag));
        Ok(((!seen).then_some(part), tag))
    }
}

/// Whether a list of `If-None-Match` has this tag (RFC 9110, 13.1.2: the comparison is weak).
fn none_match(list: &str, tag: &str) -> bool {
    list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Notices what other instances write to the same database.
pub struct Others {
    /// Whose database.
    pub service: Arc<Service>,
}

impl Others {
    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut known = None;
        while stop.run_until_cancelled(tokio::time::sleep(OTHERS)).await.is_some() {
            // one that cannot be read says so wherever it is needed
            let Ok(Pulse { number, changes, .. }) = self.service.store.pulse().await else { continue };
            if known.replace((number, changes)).is_some_and(|known| known != (number, changes)) {
                self.service.devices.feed().ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_lists() {
        for (list, expected) in [
            ("\"7\"", true),
            ("W/\"7\"", true),
            ("\"6\", \"7\"", true),
            ("*", true),
            ("\"77\"", false),
            ("7", false),
            ("", false),
        ] {
            assert_eq!(none_match(list, "\"7\""), expected, "{list}");
        }
    }
}
