//! The task that keeps the balancers at what is wanted: woken by changes and by the clock, it compares and
//! writes only where there is a difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lb_driver::{
    diff,
    driver::{Driver, DriverError},
    fit::{self, Fitted},
    model::{State, Version},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Devices, Leadership, Seen, View, follow,
    orphans::{Kept, Orphans},
    translate,
    view::refusal,
};
use crate::{metrics::Metrics, store::Store};

/// Wait after the first failure; doubled with every further one, up to the period.
const RETRY: Duration = Duration::from_secs(1);
/// How often an instance that does not write looks whether the other one has written.
const GLANCE: Duration = Duration::from_millis(200);
/// For how many looks in a row; then it looks ever more slowly.
const GLANCES: u32 = 50;
/// Why a balancer does not have yet what another instance is to write.
const NOT_YET: &str = "the instance of ake-api that writes to it has not written this yet";

/// Keeps the balancers.
pub struct Reconciler {
    /// Where the wanted state is.
    pub store: Store,
    /// The balancers, by URL.
    pub drivers: BTreeMap<String, Arc<dyn Driver>>,
    /// Who signals and reads.
    pub devices: Devices,
    /// How often to compare without a signal.
    pub period: Duration,
    /// Counts what was done.
    pub metrics: Metrics,
    /// Whether this instance is the one that writes.
    pub leadership: Leadership,
    /// What balancers have of clusters that the database does not know.
    pub orphans: Orphans,
}

/// What is wanted, and by whom.
struct Wanted {
    state: State,
    /// All clusters that the database knows.
    clusters: BTreeSet<String>,
}

impl Reconciler {
    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut followers = JoinSet::new();
        let mut failures = 0_u32;
        loop {
            let signals = self.devices.inner.signals.load(Ordering::SeqCst);
            let view = self.reconcile(signals).await;
            failures = if view.devices.values().any(|d| d.failure.is_some()) { failures + 1 } else { 0 };
            let pause = self.pause(&view, failures);
            self.devices.publish(view);
            if followers.is_empty() {
                for (url, driver) in &self.drivers {
                    let driver = Arc::clone(driver);
                    followers.spawn(follow::follow(url.clone(), driver, self.devices.clone(), stop.clone()));
                }
            }
            let next = Instant::now() + pause;
            tokio::select! {
                () = stop.cancelled() => {
                    followers.shutdown().await;
                    close(&self.drivers).await;
                    return;
                }
                () = self.devices.inner.changed.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// How long to wait with the next comparison, unless something changes.
    fn pause(&self, view: &View, failures: u32) -> Duration {
        let other_writes = view.devices.values().any(|seen| seen.failure.as_deref() == Some(NOT_YET));
        if other_writes && failures < GLANCES { GLANCE } else { wait(failures, self.period) }
    }

    async fn reconcile(&self, signals: u64) -> View {
        let mut view = View { answered: signals, devices: BTreeMap::new() };
        let wanted = match self.wanted().await {
            Ok(wanted) => wanted,
            Err(failure) => {
                tracing::error!(%failure, "what is wanted of the balancers cannot be told");
                view.devices = self.devices.view().devices;
                for url in self.drivers.keys() {
                    view.devices.entry(url.clone()).or_default().failure = Some(failure.clone());
                }
                return view;
            }
        };
        let wanted = &wanted;
        let seen = self.drivers.iter().map(|(url, driver)| async move {
            let started = Instant::now();
            let mut seen = self.device(url, driver.as_ref(), wanted).await;
            self.metrics.reconciled(url, seen.failure.is_none(), started.elapsed());
            if let Some(failure) = seen.failure.as_deref().filter(|failure| *failure != NOT_YET) {
                tracing::warn!(device = %url, failure, "a balancer does not have what is wanted");
            }
            if seen.state.is_some() {
                seen.status = driver.status().await.map(Arc::new).ok();
            }
            (url.clone(), seen)
        });
        view.devices = futures::future::join_all(seen).await.into_iter().collect();
        if view.devices.values().any(|seen| seen.failure.as_deref() == Some(NOT_YET)) {
            // whoever waits for its write goes on waiting
            view.answered = self.devices.view().answered;
        }
        view
    }

    async fn wanted(&self) -> Result<Wanted, String> {
        let (version, clusters) = self.store.load_all().await.map_err(|e| e.to_string())?;
        self.devices.inner.compared.fetch_max(version.number, Ordering::SeqCst);
        let state = translate::state(version, &clusters).map_err(|e| e.to_string())?;
        state.check().map_err(|e| e.to_string())?;
        let clusters = clusters.iter().map(|cluster| cluster.record.id.to_string()).collect();
        Ok(Wanted { state, clusters })
    }

    async fn device(&self, url: &str, driver: &dyn Driver, wanted: &Wanted) -> Seen {
        let Wanted { state: wanted, clusters } = wanted;
        let actual = match driver.read().await {
            Ok(actual) => actual,
            Err(e) => return Seen { failure: Some(e.to_string()), ..Seen::default() },
        };
        let fitted = Arc::new(self.fit(url, driver, wanted, &actual));
        let seen = |state: State, failure: Option<String>| Seen {
            state: Some(Arc::new(state)),
            failure,
            fitted: Arc::clone(&fitted),
            ..Seen::default()
        };
        let leads = self.leadership.may_write_in(wanted.version.epoch);
        let Kept { state: target, going } =
            self.orphans.keep(url, &fitted.state, &actual, clusters, leads, &self.metrics);
        let changes = diff::diff(&target, &actual);
        if changes.is_empty() && !self.must_fence(driver, wanted, actual.version) {
            return seen(actual, None);
        }
        if !leads {
            return seen(actual, Some(NOT_YET.to_owned()));
        }
        let wanted = match self.versioned(&target, actual.version).await {
            Ok(wanted) => wanted,
            Err(failure) => return seen(actual, Some(failure)),
        };
        for change in &changes {
            tracing::info!(%change, version = %wanted.version, "to the balancer");
        }
        match driver.apply(&wanted, &changes).await {
            Ok(()) => {
                self.metrics.device_written(changes.len());
                self.metrics.orphans_removed(url, going);
                seen(wanted, None)
            }
            Err(e) => {
                let failure = Some(e.to_string());
                match e {
                    // it has what is of the other projects
                    DriverError::RefusedInPart { reasons, .. } => {
                        let now = driver.read().await.unwrap_or(actual);
                        Seen { refused: reasons, ..seen(now, failure) }
                    }
                    _ => seen(actual, failure),
                }
            }
        }
    }

    /// Where this instance took the post of one that may come back, a balancer is told of the new epoch though
    /// nothing else has changed: from then on it refuses what the other may still have under way.
    fn must_fence(&self, driver: &dyn Driver, wanted: &State, held: Version) -> bool {
        self.leadership.may_write_in(wanted.version.epoch)
            && self.leadership.seized()
            && driver.capabilities().versioned
            && held.epoch < wanted.version.epoch
            && held != Version::default()
    }

    /// What the balancer can do of what is wanted. What it is newly refused is told.
    fn fit(&self, url: &str, driver: &dyn Driver, wanted: &State, actual: &State) -> Fitted {
        let fitted = fit::fit_to(driver, wanted, actual);
        let before = self.devices.view().devices.remove(url).unwrap_or_default().fitted;
        for (owner, reasons) in &fitted.refused {
            if before.refused.get(owner) != Some(reasons) {
                let reasons = refusal(reasons);
                tracing::warn!(device = %url, load_balancer = %owner, %reasons, "not on the balancer");
            }
        }
        fitted
    }

    /// A balancer that holds a newer state than the database was written by a database that is no longer there:
    /// then nothing is written until the operator says which of the two is right. One that holds our very version
    /// with other content gets the next version.
    async fn versioned(&self, wanted: &State, held: Version) -> Result<State, String> {
        if held > wanted.version {
            return Err(format!(
                "the balancer holds state {held}, the database is at {}: it was restored from an older copy or begun \
                 anew; nothing is written before `ake-api take-over` says that the database is right",
                wanted.version
            ));
        }
        let mut wanted = wanted.clone();
        if held == wanted.version {
            wanted.version = self.store.next_version().await.map_err(|e| e.to_string())?;
        }
        Ok(wanted)
    }
}

/// Gives sessions back; one that is not given back ends by itself.
pub async fn close(drivers: &BTreeMap<String, Arc<dyn Driver>>) {
    for (url, driver) in drivers {
        if let Err(error) = driver.close().await {
            tracing::debug!(device = %url, %error, "a session was not given back");
        }
    }
}

fn wait(failures: u32, period: Duration) -> Duration {
    match failures {
        0 => period,
        n => RETRY.saturating_mul(1 << (n - 1).min(16)).min(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_repeated_ever_more_slowly() {
        let period = Duration::from_secs(15);
        let waits: Vec<u64> = (0..7).map(|n| wait(n, period).as_secs()).collect();
        assert_eq!(waits, [15, 1, 2, 4, 8, 15, 15]);
    }
}
