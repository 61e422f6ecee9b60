//! The balancers: one task keeps them at what is wanted, and remembers what they said.

mod election;
mod follow;
mod reconcile;
pub mod translate;
mod view;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lb_driver::{
    driver::{Driver, DriverError, Status},
    fit::Fitted,
    model::State,
    vendor::xdp,
};
use tokio::sync::{Notify, watch};

pub use election::{Election, Leadership};
use follow::Changed;
pub use reconcile::Reconciler;
pub use view::{applied, member_health};

use crate::{
    config::{Config, DriverKind},
    feed::Feed,
};

/// How long a balancer may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A balancer, as it was seen last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What it has; as far as it could be read.
    pub state: Option<Arc<State>>,
    /// Health and counters; as far as they could be read.
    pub status: Option<Arc<Status>>,
    /// Why it does not have what is wanted.
    pub failure: Option<String>,
    /// What was asked of it, and what it cannot do.
    pub fitted: Arc<Fitted>,
}

/// All balancers, as they were seen last.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Which signal was the last that is answered here.
    pub answered: u64,
    /// By URL.
    pub devices: BTreeMap<String, Seen>,
}

/// Signals the task that keeps the balancers, and reads what it saw.
#[derive(Clone)]
pub struct Devices {
    inner: Arc<Inner>,
}

struct Inner {
    changed: Notify,
    signals: AtomicU64,
    /// The number of the wanted state that was compared last.
    compared: AtomicU64,
    view: watch::Sender<View>,
    feed: Feed,
}

impl Default for Devices {
    fn default() -> Self {
        let view = watch::Sender::new(View::default());
        let (changed, feed) = (Notify::new(), Feed::default());
        let (signals, compared) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { changed, signals, compared, view, feed }) }
    }
}

impl Devices {
    /// Says that something that is wanted has changed. The answer is what [`Devices::wait`] waits for.
    pub fn signal(&self) -> u64 {
        let signal = self.inner.signals.fetch_add(1, Ordering::SeqCst) + 1;
        self.inner.changed.notify_one();
        signal
    }

    /// Says that the wanted state has this number now, whoever changed it.
    pub fn changed_elsewhere(&self, number: u64) {
        if number > self.inner.compared.load(Ordering::SeqCst) {
            self.signal();
        }
    }

    /// Waits until a signal is answered; the view then, or the last one when it takes too long.
    pub async fn wait(&self, signal: u64, longest: Duration) -> View {
        let mut view = self.inner.view.subscribe();
        // The sender lives as long as we do, so the only other outcome is the deadline.
        let _ = tokio::time::timeout(longest, view.wait_for(|view| view.answered >= signal)).await;
        let view = view.borrow();
        view.clone()
    }

    /// Wakes those who wait for a cluster's news.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// Takes in what a comparison saw.
    fn publish(&self, mut view: View) {
        let mut changed = Changed::All;
        self.inner.view.send_modify(|old| {
            for (url, seen) in &mut view.devices {
                let newer = old.devices.get(url).and_then(|old| old.status.as_ref());
                let mark = |status: &Arc<Status>| status.mark;
                if let Some(newer) = newer
                    && newer.mark > seen.status.as_ref().and_then(mark)
                {
                    // the balancer told more while the comparison went on
                    seen.status = Some(Arc::clone(newer));
                }
            }
            changed = follow::changed(old, &view);
            *old = view;
        });
        self.tell(changed);
    }

    /// Takes in what a balancer says of its members; none where it does not answer.
    fn heard(&self, url: &str, status: Option<Status>) {
        let mut changed = Changed::All;
        self.inner.view.send_modify(|view| {
            let old = view.clone();
            view.devices.entry(url.to_owned()).or_default().status = status.map(Arc::new);
            changed = follow::changed(&old, view);
        });
        self.tell(changed);
    }

    fn tell(&self, changed: Changed) {
        match changed {
            Changed::All => self.inner.feed.touch_all(),
            Changed::Those(those) => self.inner.feed.touch_those(those),
        }
    }

    /// What was seen last.
    #[must_use]
    pub fn view(&self) -> View {
        self.inner.view.borrow().clone()
    }
}

/// Sets up the drivers that the configuration names, by URL.
pub fn drivers(config: &Config) -> anyhow::Result<BTreeMap<String, Arc<dyn Driver>>> {
    let device = &config.device;
    let mut drivers: BTreeMap<String, Arc<dyn Driver>> = BTreeMap::new();
    for url in &device.endpoints {
        let driver = match device.driver {
            DriverKind::Xdp => xdp::XdpDriver::new(&xdp::Settings {
                url: url.clone(),
                ca: std::fs::read(&device.ca)?,
                certificate: std::fs::read(&device.certificate)?,
                key: std::fs::read(&device.key)?,
                timeout: TIMEOUT,
            })
            .map_err(|e: DriverError| anyhow::anyhow!("device: {e}"))?,
        };
        drivers.insert(url.clone(), Arc::new(driver));
    }
    Ok(drivers)
}
