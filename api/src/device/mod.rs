//! The balancers: one task keeps them at what is wanted, and remembers what they said.

mod election;
mod follow;
mod orphans;
mod reconcile;
mod renewed;
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
    vendor::{bigip, xdp},
};
use tokio::sync::{Notify, watch};

pub use election::{Election, Leadership};
use follow::Changed;
pub use orphans::Orphans;
pub(crate) use orphans::unknown;
pub use reconcile::{Reconciler, close};
pub use renewed::Renewed;
pub use view::{applied, member_health};

use crate::{
    config::{Config, DriverKind},
    feed::Feed,
};

/// How long a balancer may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same of a BIG-IP, which takes its time for long lists.
const BIGIP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a BIG-IP that is busy is asked again within one comparison.
const BIGIP_PATIENCE: Duration = Duration::from_secs(15);

/// A balancer, as it was seen last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What it has; as far as it could be read.
    pub state: Option<Arc<State>>,
    /// Health and counters; as far as they could be read.
    pub status: Option<Arc<Status>>,
    /// Why it does not have what is wanted.
    pub failure: Option<String>,
    /// Where it refused what is of some projects alone: why, by project.
    pub refused: BTreeMap<String, String>,
    /// What was asked of it, and what it cannot do.
    pub fitted: Arc<Fitted>,
}

impl Seen {
    /// Why it does not have what is wanted, as a project is told: what was refused another one is not its business.
    #[must_use]
    pub fn failure_of(&self, project: &str) -> Option<String> {
        let all = self.failure.clone().filter(|_| self.refused.is_empty());
        self.refused.get(project).cloned().or(all)
    }
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
    let wrong = |e: DriverError| anyhow::anyhow!("device.{e}");
    let ca = std::fs::read(&device.ca)?;
    let mut drivers: BTreeMap<String, Arc<dyn Driver>> = BTreeMap::new();
    match device.driver {
        DriverKind::Xdp => {
            let (certificate, key) = device.identity()?;
            for url in &device.endpoints {
                let driver = xdp::XdpDriver::new(&xdp::Settings {
                    url: url.clone(),
                    ca: ca.clone(),
                    certificate: std::fs::read(certificate)?,
                    key: std::fs::read(key)?,
                    timeout: TIMEOUT,
                });
                drivers.insert(url.clone(), Arc::new(driver.map_err(wrong)?));
            }
        }
        // both units of a pair are one device: the active one is written, and the other follows
        DriverKind::Bigip => {
            let told = device.bigip()?;
            let driver = bigip::BigIpDriver::new(&bigip::Settings {
                urls: device.endpoints.clone(),
                username: told.username.to_owned(),
                password: told.password,
                ca,
                partition_prefix: told.partition_prefix.to_owned(),
                traffic_group: told.traffic_group.to_owned(),
                sync_group: told.sync_group.map(str::to_owned),
                timeout: BIGIP_TIMEOUT,
                patience: BIGIP_PATIENCE,
            });
            drivers.insert(device.endpoints.join(" "), Arc::new(driver.map_err(wrong)?));
        }
    }
    Ok(drivers)
}
