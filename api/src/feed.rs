//! The change feed: which clusters look otherwise than they did, so that who waits for news is woken at once.
//!
//! A mark counts how often what a cluster is shown has changed in this process; with what is kept in the database
//! it makes the cluster's ETag, so that asking whether there is news costs no more than a look-up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use ake_api_client::ClusterId;
use tokio::sync::watch;

use crate::decide::wanted::ClusterRecord;

/// Marks of all clusters. A clone marks the same ones.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    /// Tells this process's marks from another one's.
    process: u64,
    marks: Mutex<Marks>,
    bell: watch::Sender<Bell>,
}

#[derive(Default)]
struct Marks {
    last: u64,
    all: u64,
    of: HashMap<ClusterId, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bell {
    touched: u64,
    rung: u64,
    ended: bool,
}

impl Default for Feed {
    fn default() -> Self {
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let process = u64::try_from(begun.as_micros()).unwrap_or_default();
        Self { inner: Arc::new(Inner { process, marks: Mutex::default(), bell: watch::Sender::default() }) }
    }
}

/// Waits for news of one cluster. What happens from its making on is not missed.
pub struct Waiter {
    feed: Feed,
    cluster: ClusterId,
    mark: u64,
    rung: u64,
    bell: watch::Receiver<Bell>,
}

impl Waiter {
    /// Waits until the cluster may look otherwise. False when nothing more will come.
    pub async fn rung(&mut self) -> bool {
        loop {
            let bell = *self.bell.borrow_and_update();
            if bell.ended {
                return false;
            }
            let (mark, rung) = (self.feed.mark(self.cluster), bell.rung);
            if (mark, rung) != (self.mark, self.rung) {
                (self.mark, self.rung) = (mark, rung);
                return true;
            }
            if self.bell.changed().await.is_err() {
                return false;
            }
        }
    }
}

impl Feed {
    /// Says that a cluster looks otherwise now.
    pub fn touch(&self, cluster: ClusterId) {
        self.touch_those(std::iter::once(cluster));
    }

    /// Says that these clusters look otherwise now.
    pub fn touch_those(&self, clusters: impl IntoIterator<Item = ClusterId>) {
        let mut marks = self.marks();
        let mut any = false;
        for cluster in clusters {
            any = true;
            marks.last += 1;
            let last = marks.last;
            marks.of.insert(cluster, last);
        }
        drop(marks);
        if any {
            self.inner.bell.send_modify(|bell| bell.touched += 1);
        }
    }

    /// Says that all clusters may look otherwise now.
    pub fn touch_all(&self) {
        let mut marks = self.marks();
        marks.last += 1;
        marks.all = marks.last;
        marks.of.clear();
        drop(marks);
        self.inner.bell.send_modify(|bell| bell.touched += 1);
    }

    /// Has everybody who waits look again: somebody else changed the database.
    pub fn ring(&self) {
        self.inner.bell.send_modify(|bell| bell.rung += 1);
    }

    /// Sends everybody home.
    pub fn end(&self) {
        self.inner.bell.send_modify(|bell| bell.ended = true);
    }

    /// Whoever waits for news of a cluster.
    #[must_use]
    pub fn waiter(&self, cluster: ClusterId) -> Waiter {
        let bell = self.inner.bell.subscribe();
        let rung = bell.borrow().rung;
        Waiter { feed: self.clone(), cluster, mark: self.mark(cluster), rung, bell }
    }

    /// A cluster's mark. To be taken before what it stands for is read: then a change in between is told once more
    /// rather than not at all.
    #[must_use]
    pub fn mark(&self, cluster: ClusterId) -> u64 {
        let marks = self.marks();
        marks.of.get(&cluster).copied().unwrap_or_default().max(marks.all)
    }

    /// The ETag of a cluster as it is shown with this mark.
    #[must_use]
    pub fn etag(&self, record: &ClusterRecord, mark: u64) -> String {
        format!("\"{}.{}-{:x}.{mark}\"", record.revision, record.lease_transitions, self.inner.process)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // every change of the marks is a single assignment
        self.inner.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The revision of what is wanted that an ETag of [`Feed::etag`] speaks of. Health and what the balancers have may
/// have changed since without making a plan stale.
#[must_use]
pub fn revision(tag: &str) -> Option<u64> {
    let tag = tag.trim();
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let end = inner.find(['.', '-']).unwrap_or(inner.len());
    inner.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u128, revision: u64) -> ClusterRecord {
        ClusterRecord {
            revision,
            lease_transitions: 3,
            ..ClusterRecord::new(
                ClusterId::from_u128(id),
                ["demo", "demo", "net-1"],
                "10.240.0.0/16".parse().unwrap(),
            )
        }
    }

    fn tag(feed: &Feed, record: &ClusterRecord) -> String {
        feed.etag(record, feed.mark(record.id))
    }

    #[test]
    fn a_mark_changes_the_tag_of_its_cluster_alone_and_not_its_revision() {
        let feed = Feed::default();
        let (a, b) = (record(1, 7), record(2, 7));
        let (tag_a, tag_b) = (tag(&feed, &a), tag(&feed, &b));
        feed.touch(a.id);
        assert_ne!(tag(&feed, &a), tag_a);
        assert_eq!(tag(&feed, &b), tag_b);
        assert_eq!((revision(&tag_a), revision(&tag(&feed, &a))), (Some(7), Some(7)));
        let touched = tag(&feed, &a);
        feed.touch_all();
        assert!(tag(&feed, &a) != touched && tag(&feed, &b) != tag_b);
        assert_ne!(tag(&feed, &record(1, 8)), tag(&feed, &a));
    }

    #[test]
    fn the_tags_of_a_process_that_is_gone_are_none_of_ours() {
        let gone = Feed::default();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_ne!(tag(&gone, &record(1, 7)), tag(&Feed::default(), &record(1, 7)));
    }

    #[test]
    fn what_is_no_tag_has_no_revision() {
        for (tag, expected) in [
            ("\"7\"", Some(7)),
            ("\"7.1-f.0\"", Some(7)),
            ("7", None),
            ("\"\"", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(revision(tag), expected, "{tag}");
        }
    }

    #[tokio::test]
    async fn a_waiter_misses_nothing_and_is_woken_for_its_own_cluster() {
        use futures::FutureExt;
        let feed = Feed::default();
        let mut waiter = feed.waiter(ClusterId::from_u128(1));
        feed.touch(ClusterId::from_u128(1));
        assert!(waiter.rung().await);
        feed.touch(ClusterId::from_u128(2));
        assert_eq!(waiter.rung().now_or_never(), None, "another cluster's news is none of ours");
        feed.ring();
        assert_eq!(waiter.rung().now_or_never(), Some(true));
        feed.end();
        assert!(!waiter.rung().await);
    }
}
