//! Asks members whether they are well.

mod ask;
mod tracker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ask::Asker;
use lb_driver::model::{self, MacAddr};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc::UnboundedSender,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tracker::Tracker;

use crate::{
    config::Check,
    probe::{ProbeError, Prober},
};

/// From the first check of a target that nobody knows yet to its second, and the longest wait for an answer. What lets
/// the check in may still be under way: it is asked again soon, then ever more slowly, up to the period.
const SOON: Duration = Duration::from_millis(100);

/// What is asked: pools that check one address in one way share a check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// A member's own address.
    pub address: IpAddr,
    /// How it is checked.
    pub check: model::Check,
}

impl Target {
    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.check.port().get())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.check {
            model::Check::Tcp { .. } => write!(f, "{}", self.socket()),
            model::Check::Http { path, .. } => write!(f, "http://{}{path}", self.socket()),
            model::Check::Vip { vip, port } => {
                write!(f, "{} by way of {}", SocketAddr::new(*vip, port.get()), self.address)
            }
        }
    }
}

/// What is known of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What checks said; none before the first.
    pub healthy: Option<bool>,
    /// What the last failed check said, while it is not healthy.
    pub reason: Option<String>,
    /// Before the first check: it took flows when we stopped, and keeps them until checks say otherwise.
    pub presumed: bool,
    /// While nothing comes back from it, `check.fall` times in a row; or has come back yet.
    pub silence: Option<Silence>,
}

/// Of a target from which nothing comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It was well right before.
    OfTheWell,
    /// It was not, or was never asked.
    OfTheUnwell,
    /// Of one that is new: nothing came back yet, which says nothing before it was asked often enough, and for long enough.
    NotYet,
}

impl Health {
    /// Whether its members take packets.
    pub fn verdict(&self) -> Result<(), String> {
        match (self.healthy, &self.reason) {
            (Some(true), _) => Ok(()),
            (None, _) if self.presumed => Ok(()),
            (None, _) => Err("not checked yet".to_owned()),
            (Some(false), reason) => Err(reason.clone().unwrap_or_else(|| "failed its check".to_owned())),
        }
    }

    /// Whether something comes back from it; none while that is not known.
    pub fn heard(&self) -> Option<bool> {
        match self.silence {
            Some(Silence::NotYet) => None,
            Some(Silence::OfTheWell | Silence::OfTheUnwell) => Some(false),
            None => (self.presumed || self.healthy.is_some()).then_some(true),
        }
    }
}

/// Checks targets, each on its own, and reports changes.
pub struct Checker {
    settings: Check,
    client: reqwest::Client,
    reports: UnboundedSender<(Target, Health)>,
    tasks: BTreeMap<Target, JoinHandle<()>>,
    prober: Option<Prober>,
}

impl Checker {
    /// One that reports to `reports`.
    pub fn new(settings: Check, reports: UnboundedSender<(Target, Health)>) -> Result<Self, reqwest::Error> {
        // A connection per check: a kept one says nothing of a listener that went.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_built_in_root_certs(false)
            .pool_max_idle_per_host(0)
            .http1_only()
            .connect_timeout(ask::connecting(&settings))
            .user_agent("ake-xdp")
            .build()?;
        Ok(Self { settings, client, reports, tasks: BTreeMap::new(), prober: None })
    }

    /// One that can check VIPs, too.
    #[must_use]
    pub fn with(mut self, prober: Prober) -> Self {
        self.prober = Some(prober);
        self
    }

    /// Knows the MAC addresses of the members whose VIPs are checked; how many writes that took.
    pub fn know(&mut self, members: &BTreeMap<IpAddr, Option<MacAddr>>) -> Result<u64, ProbeError> {
        self.prober.as_mut().map_or(Ok(0), |prober| prober.assign(members))
    }

    /// Knows nothing of these any more: they are new to the next [`watch`](Self::watch).
    pub fn forget<'a>(&mut self, targets: impl IntoIterator<Item = &'a Target>) {
        targets.into_iter().filter_map(|target| self.tasks.remove(target)).for_each(|task| task.abort());
    }

    /// Checks exactly `targets` from now on; with what is known of those that are new.
    pub fn watch(&mut self, targets: &BTreeMap<Target, Health>) {
        let gone: BTreeSet<Target> =
            self.tasks.keys().filter(|t| !targets.contains_key(*t)).cloned().collect();
        self.forget(&gone);
        for (target, health) in targets {
            if !self.tasks.contains_key(target) {
                let asker = Asker {
                    target: target.clone(),
                    client: self.client.clone(),
                    mark: self.prober.as_ref().and_then(|prober| prober.mark(target.address)),
                    patience: self.settings.timeout(),
                };
                let task = check_for_ever(asker, health.clone(), self.settings.clone(), self.reports.clone());
                self.tasks.insert(target.clone(), tokio::spawn(task));
            }
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn check_for_ever(
    asker: Asker,
    health: Health,
    settings: Check,
    reports: UnboundedSender<(Target, Health)>,
) {
    let target = &asker.target;
    let mut tracker = Tracker::of(health);
    let mut pace = Pace::of(target, &settings);
    if !tracker.new {
        // A restart: all are presumed well, and asked one after the other.
        sleep(pace.phase.take().unwrap_or_default()).await;
    }
    loop {
        let begun = Instant::now();
        let (patience, pause) = pace.next(tracker.new, &settings);
        if tracker.observe(asker.ask(patience, tracker.new).await, &settings) {
            let health = tracker.health.clone();
            match &health.reason {
                None => tracing::info!(%target, "member is well"),
                Some(reason) => tracing::warn!(%target, %reason, "member is not well"),
            }
            if reports.send((target.clone(), health)).is_err() {
                return;
            }
        }
        sleep_until(begun + pause).await;
    }
}

/// How long is waited for an answer, and how long from one check to the next.
#[derive(Debug, Default)]
struct Pace {
    /// What was waited before, as long as the target is new.
    last: Option<Duration>,
    /// Once it is no longer new, its first pause is this: targets that came together are not asked together for ever.
    phase: Option<Duration>,
}

impl Pace {
    /// A target's own share of the period, always the same.
    fn of(target: &Target, settings: &Check) -> Self {
        let hash = Sha256::digest(target.to_string());
        let share = f64::from(u16::from_be_bytes([hash[0], hash[1]])) / f64::from(u16::MAX);
        Self { phase: Some(settings.period().mul_f64(share)), ..Self::default() }
    }

    /// Of the check that begins now. A new target waits a third longer each time, so whatever opens the way to it costs
    /// about a third of the time that this took, and not a period.
    fn next(&mut self, new: bool, settings: &Check) -> (Duration, Duration) {
        let (timeout, period) = (settings.timeout(), settings.period());
        if !new {
            return (timeout, self.phase.take().unwrap_or(period));
        }
        let pause = self.last.map_or(SOON, |last| last.saturating_mul(4) / 3).min(period);
        self.last = Some(pause);
        // Whoever is slow gets as long as it may have once the pauses have grown.
        (if pause < period { pause.min(timeout) } else { timeout }, pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Check = Check { period_ms: 1000, timeout_ms: 100, rise: 2, fall: 3 };

    #[test]
    fn a_new_member_is_asked_soon_and_then_ever_more_slowly() {
        let mut pace = Pace::default();
        let mut waited = Duration::ZERO;
        let mut pauses = 0;
        loop {
            let (patience, pause) = pace.next(true, &SETTINGS);
            if pause == SETTINGS.period() {
                assert_eq!(patience, SETTINGS.timeout(), "whoever is slow is waited for in the end");
                break;
            }
            assert!(
                patience <= SETTINGS.timeout() && pause <= SOON + waited / 2,
                "{pause:?} after {waited:?}"
            );
            waited += pause;
            pauses += 1;
        }
        assert!((5..12).contains(&pauses), "{pauses}");
        assert_eq!(pace.next(false, &SETTINGS), (SETTINGS.timeout(), SETTINGS.period()));
    }

    #[test]
    fn targets_that_came_together_are_asked_all_over_the_period() {
        let mut quarters = [0; 4];
        for last in 0..200 {
            let check = model::Check::Tcp { port: 80.try_into().unwrap() };
            let target = Target { address: [192, 168, 77, last].into(), check };
            let mut pace = Pace::of(&target, &SETTINGS);
            assert_eq!(pace.next(true, &SETTINGS).1, SOON, "a new one is asked again soon");
            let (_, first) = pace.next(false, &SETTINGS);
            assert_eq!(Pace::of(&target, &SETTINGS).next(false, &SETTINGS).1, first, "always the same");
            quarters[(first.as_millis() / 250).min(3) as usize] += 1;
            assert_eq!(pace.next(false, &SETTINGS).1, SETTINGS.period());
        }
        assert!(quarters.iter().all(|count| *count > 25), "{quarters:?}");
    }
}
