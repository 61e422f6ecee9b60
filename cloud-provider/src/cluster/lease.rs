//! Leader election with a Lease, as client-go does it, so that either can follow the other.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Cluster, Error};
use crate::metrics;

/// Longest wait for the Lease to be given back; otherwise it runs out.
const RELEASE: Duration = Duration::from_secs(5);

/// How a Lease is held.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How long others wait after the last renewal.
    pub duration: Duration,
    /// How long the holder goes on without a renewal.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry_period: Duration,
}

/// Why there is no leadership.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// We were asked to stop while waiting.
    #[error("stopped while waiting for the lease")]
    Stopped,
    /// The times do not fit.
    #[error(
        "--leader-elect-lease-duration {duration:?}: expected more than the renew deadline ({renew_deadline:?}), and that more than 1.2 times the retry period ({retry_period:?})"
    )]
    Times {
        /// Given.
        duration: Duration,
        /// Given.
        renew_deadline: Duration,
        /// Given.
        retry_period: Duration,
    },
}

/// Held for as long as [`Leadership::lost`] is not cancelled.
#[derive(Clone)]
pub struct Leadership {
    inner: Arc<Inner>,
}

struct Inner {
    transitions: AtomicU64,
    /// A count that others have seen and that ours must pass; 0 for none.
    wanted: AtomicU64,
    renewed: Mutex<Instant>,
    renew_deadline: Duration,
    lost: CancellationToken,
    give_up: CancellationToken,
    released: CancellationToken,
}

impl Leadership {
    /// Leadership without an election, for `--leader-elect=false`.
    #[must_use]
    pub fn alone() -> Self {
        Self::held(0, Duration::MAX)
    }

    fn held(transitions: u64, renew_deadline: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                transitions: AtomicU64::new(transitions),
                wanted: AtomicU64::new(0),
                renewed: Mutex::new(Instant::now()),
                renew_deadline,
                lost: CancellationToken::new(),
                give_up: CancellationToken::new(),
                released: CancellationToken::new(),
            }),
        }
    }

    /// Waits until the Lease is ours, or until `stop`, and renews it from then on.
    pub async fn acquire(
        cluster: &Cluster,
        settings: LeaseSettings,
        identity: String,
        stop: CancellationToken,
    ) -> Result<Self, LeaseError> {
        let LeaseSettings { duration, renew_deadline, retry_period, .. } = settings;
        if duration <= renew_deadline || renew_deadline <= retry_period.mul_f64(1.2) {
            return Err(LeaseError::Times { duration, renew_deadline, retry_period });
        }
        let mut holder = Holder { cluster: cluster.clone(), settings, identity, seen: None };
        let (mut lease, transitions) = loop {
            match holder.try_acquire(Instant::now()).await {
                Ok(Some(held)) => break held,
                Ok(None) => {}
                Err(error) if error.is_conflict() || error.is_already_exists() => {}
                Err(error) => tracing::warn!(%error, "cannot try for the lease"),
            }
            tokio::select! {
                () = stop.cancelled() => return Err(LeaseError::Stopped),
                () = tokio::time::sleep(holder.settings.retry_period) => {}
            }
        };
        tracing::info!(lease = %holder.settings.name, identity = %holder.identity, transitions, "leading");
        let leadership = Self::held(transitions, renew_deadline);
        let kept = leadership.clone();
        tokio::spawn(async move {
            let period = holder.settings.retry_period;
            loop {
                tokio::select! {
                    () = kept.inner.give_up.cancelled() => {
                        kept.inner.lost.cancel();
                        holder.release(lease).await;
                        kept.inner.released.cancel();
                        return;
                    }
                    () = tokio::time::sleep(period) => {}
                }
                match tokio::time::timeout(renew_deadline, holder.renew(&lease, &kept)).await {
                    Ok(Ok(renewed)) => {
                        lease = renewed;
                        *kept.inner.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }
                    Ok(Err(error)) if error.is_conflict() => match holder.reread().await {
                        Ok(Some(fresh)) if is_older(&fresh, &lease) => {
                            tracing::error!(
                                "the API server's store is older than before, as after a restore: what was seen of it is worth nothing"
                            );
                            kept.inner.lost.cancel();
                            return;
                        }
                        Ok(Some(fresh)) => lease = fresh,
                        Ok(None) => {
                            tracing::error!("the lease has another holder");
                            kept.inner.lost.cancel();
                            return;
                        }
                        Err(error) => tracing::warn!(%error, "cannot read the lease"),
                    },
                    Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease"),
                    Err(_) => tracing::warn!("cannot renew the lease in time"),
                }
                if !kept.is_valid() {
                    tracing::error!(?renew_deadline, "the lease was not renewed in time");
                    kept.inner.lost.cancel();
                    return;
                }
            }
        });
        Ok(leadership)
    }

    /// The Lease's count of transitions, by which others tell an old leader from a new one.
    #[must_use]
    pub fn transitions(&self) -> u64 {
        self.inner.transitions.load(Ordering::Acquire)
    }

    /// Makes the count at least `count` with the next renewal: someone has seen a higher one than ours, as
    /// after the Lease was deleted. Only the true holder can write it.
    pub fn raise(&self, count: u64) {
        self.inner.wanted.fetch_max(count, Ordering::AcqRel);
    }

    /// Cancelled once leadership is gone.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.inner.lost.clone()
    }

    /// Whether writes may still be made.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let renewed = *self.inner.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        !self.inner.lost.is_cancelled() && renewed.elapsed() < self.inner.renew_deadline
    }

    /// Gives the Lease back, so that another can lead at once.
    pub async fn release(&self) {
        self.inner.give_up.cancel();
        if self.inner.renew_deadline < Duration::MAX && !self.inner.lost.is_cancelled() {
            let _ = tokio::time::timeout(RELEASE, self.inner.released.cancelled()).await;
        }
    }
}

/// Whether a later read gave an earlier version. Then the API server's store was put back, and watches that go on from later
/// versions tell nothing until those come again. Versions can be compared since Kubernetes 1.35 (KEP-5504).
fn is_older(read: &Lease, before: &Lease) -> bool {
    let version = |lease: &Lease| lease.metadata.resource_version.as_deref()?.parse::<u128>().ok();
    version(read).zip(version(before)).is_some_and(|(read, before)| read < before)
}

struct Holder {
    cluster: Cluster,
    settings: LeaseSettings,
    identity: String,
    /// Another holder's Lease as last read, and when by our own clock.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Holder {
    async fn read(&self) -> Result<Option<Lease>, Error> {
        self.cluster.get::<Lease>(Some(&self.settings.namespace), &self.settings.name).await
    }

    /// Takes the Lease if it is free or has run out by our own clock.
    async fn try_acquire(&mut self, now: Instant) -> Result<Option<(Lease, u64)>, Error> {
        let Some(mut lease) = self.read().await? else {
            let spec = self.spec(Timestamp::now(), 0);
            let metadata = ObjectMeta {
                name: Some(self.settings.name.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..ObjectMeta::default()
            };
            let lease = self.cluster.create(&Lease { metadata, spec: Some(spec) }).await?;
            return Ok(Some((lease, 0)));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.has_run_out(&spec, now) {
            return Ok(None);
        }
        let transitions = u64::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0) + 1;
        lease.spec = Some(self.spec(Timestamp::now(), transitions));
        let lease = self.cluster.replace(&lease).await?;
        Ok(Some((lease, transitions)))
    }

    /// Clocks of two machines are never compared: what counts is for how long we have seen no change.
    fn has_run_out(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
                now.duration_since(*since) > Duration::from_secs(seconds)
            }
            _ => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    fn spec(&self, now: Timestamp, transitions: u64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: i32::try_from(transitions).ok(),
            ..LeaseSpec::default()
        }
    }

    async fn renew(&self, lease: &Lease, leadership: &Leadership) -> Result<Lease, Error> {
        let mut lease = lease.clone();
        let transitions = leadership.transitions().max(leadership.inner.wanted.load(Ordering::Acquire));
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            spec.lease_transitions = i32::try_from(transitions).ok();
        }
        let lease = self.cluster.replace(&lease).await?;
        leadership.inner.transitions.store(transitions, Ordering::Release);
        Ok(lease)
    }

    /// The Lease as it stands, if it is still ours.
    async fn reread(&self) -> Result<Option<Lease>, Error> {
        metrics::lease_reread(&self.settings.name);
        let lease = self.read().await?;
        Ok(lease.filter(|lease| {
            lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity)
        }))
    }

    async fn release(&self, mut lease: Lease) {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match self.cluster.replace(&lease).await {
            Ok(_) => tracing::info!("lease released"),
            Err(error) => tracing::warn!(%error, "cannot release the lease"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_put_back_shows() {
        let lease = |version: &str| {
            let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
            Lease { metadata, spec: None }
        };
        for (read, before, older) in [
            ("99", "100", true),
            ("100", "99", false),
            ("100", "100", false),
            ("18446744073709551616", "18446744073709551617", true),
            ("a", "100", false),
            ("99", "b", false),
        ] {
            assert_eq!(is_older(&lease(read), &lease(before)), older, "{read} after {before}");
        }
        assert!(!is_older(&Lease::default(), &lease("1")));
    }
}
