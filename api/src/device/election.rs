//! The task that keeps, or waits for, the post of the writer, and sees what other instances change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Devices;
use crate::{
    decide::election::{self, Post, Step, TRUST},
    metrics::Metrics,
    store::{Pulse, Store, StoreError},
};

/// How often the database is asked who writes and what changed.
const LOOK: Duration = Duration::from_millis(250);

/// Whether this instance writes to the devices.
#[derive(Debug, Clone, Default)]
pub struct Leadership {
    inner: Arc<Mutex<Role>>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Role {
    /// There is no other instance.
    #[default]
    Alone,
    /// Another instance writes.
    Waits,
    /// This one writes, as long as it gave a sign of life lately.
    Holds { since: Instant, seized: bool, epoch: u64 },
}

impl Leadership {
    /// Of an instance beside others: it waits at first.
    #[must_use]
    pub fn beside_others() -> Self {
        Self { inner: Arc::new(Mutex::new(Role::Waits)) }
    }

    fn role(&self) -> Role {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, role: Role) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }

    /// Whether this instance may write to devices now.
    #[must_use]
    pub fn may_write(&self) -> bool {
        match self.role() {
            Role::Alone => true,
            Role::Waits => false,
            Role::Holds { since, .. } => since.elapsed() < TRUST,
        }
    }

    /// The same for a state of this epoch: one that was read in an older one may no longer be what is wanted.
    #[must_use]
    pub fn may_write_in(&self, epoch: u64) -> bool {
        let own = match self.role() {
            Role::Alone => true,
            Role::Waits => false,
            Role::Holds { epoch: own, .. } => own == epoch,
        };
        own && self.may_write()
    }

    /// Whether the one before may come back, so that devices must be told of the new epoch at once.
    #[must_use]
    pub fn seized(&self) -> bool {
        matches!(self.role(), Role::Holds { seized: true, .. })
    }
}

/// Keeps or waits for the post.
pub struct Election {
    /// Where the post is.
    pub store: Store,
    /// This instance, unlike any other.
    pub me: String,
    /// What comes of it.
    pub leadership: Leadership,
    /// Told of what other instances change.
    pub devices: Devices,
    /// Counts what came of it.
    pub metrics: Metrics,
}

/// The post as it was seen, and since when it stands like that.
struct Watched {
    pulse: Pulse,
    since: Instant,
}

impl Election {
    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut watched: Option<Watched> = None;
        loop {
            watched = match self.look(watched.as_ref()).await {
                Ok(seen) => Some(seen),
                Err(error) => {
                    tracing::warn!(%error, "the database does not say who writes to the balancers");
                    watched
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Frees the post, once nothing is written any more.
    pub async fn leave(store: &Store, me: &str) {
        if let Err(error) = store.leave_post(me).await {
            tracing::warn!(%error, "the post of the writer stays taken; another instance takes it in some seconds");
        }
    }

    async fn look(&self, before: Option<&Watched>) -> Result<Watched, StoreError> {
        let asked = Instant::now();
        let pulse = self.store.pulse().await?;
        if before.is_some_and(|before| before.pulse.number != pulse.number) {
            self.devices.changed_elsewhere(pulse.number);
        }
        let since = match before {
            Some(before) if before.pulse.post == pulse.post => before.since,
            _ => asked,
        };
        let step = election::step(&pulse.post, asked.duration_since(since), &self.me);
        let holds = match step {
            Step::Hold => true,
            Step::Wait => false,
            Step::Beat => self.store.beat(&pulse.post).await?,
            Step::Take | Step::Seize => self.store.take_post(&pulse.post, &self.me).await?,
        };
        self.become_what(step, holds, asked, &pulse.post);
        Ok(Watched { pulse, since })
    }

    fn become_what(&self, step: Step, holds: bool, asked: Instant, post: &Post) {
        let before = self.leadership.role();
        let seized = match before {
            Role::Holds { seized, .. } => seized,
            // where it is ours without our knowing, an answer was lost: that is as good as seized
            Role::Alone | Role::Waits => step != Step::Take,
        };
        let after = match (step, before) {
            _ if !holds => Role::Waits,
            // the operator may have raised the epoch
            (Step::Hold, Role::Holds { since, .. }) => Role::Holds { since, seized, epoch: post.epoch },
            (Step::Hold | Step::Wait, before) => before,
            (Step::Beat, _) => Role::Holds { since: asked, seized, epoch: post.epoch },
            (Step::Take | Step::Seize, _) => Role::Holds { since: asked, seized, epoch: post.epoch + 1 },
        };
        self.leadership.set(after);
        match (before, after) {
            (Role::Holds { .. }, Role::Waits) => {
                tracing::warn!(holder = post.holder, "another instance writes to the balancers now");
            }
            (Role::Waits | Role::Alone, Role::Holds { .. }) => {
                tracing::info!(before = post.holder, seized, "this instance writes to the balancers now");
                self.devices.signal();
            }
            _ => {}
        }
        self.metrics.leads(matches!(after, Role::Holds { .. }));
    }
}
