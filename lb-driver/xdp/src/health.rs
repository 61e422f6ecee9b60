//! Asks members whether they are well.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use lb_driver::model::{self, MacAddr};
use tokio::{
    net::TcpStream,
    sync::mpsc::UnboundedSender,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    config::Check,
    probe::{self, ProbeError, Prober},
};

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
}

/// Turns results of checks into health.
#[derive(Debug, Clone)]
struct Tracker {
    health: Health,
    /// Results in a row that speak against what is held.
    against: u32,
}

impl Tracker {
    /// Takes a result in; true if health is another one now. The first result of a target that nobody
    /// presumed anything of counts at once.
    fn observe(&mut self, result: Result<(), String>, settings: &Check) -> bool {
        let before = self.health.clone();
        let holds = self.health.healthy.or(self.health.presumed.then_some(true));
        let (good, reason) = (result.is_ok(), result.err());
        let needed = match holds {
            None => 1,
            Some(true) => settings.fall,
            Some(false) => settings.rise,
        };
        self.against = if holds == Some(good) { 0 } else { self.against + 1 };
        if holds == Some(good) || self.against >= needed {
            self.against = 0;
            self.health.healthy = Some(good);
            self.health.presumed = false;
        }
        match self.health.healthy {
            Some(true) => self.health.reason = None,
            Some(false) if reason.is_some() => self.health.reason = reason,
            _ => {}
        }
        self.health != before
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

    /// Checks exactly `targets` from now on; with what is known of those that are new.
    pub fn watch(&mut self, targets: &BTreeMap<Target, Health>) {
        let gone: BTreeSet<Target> =
            self.tasks.keys().filter(|t| !targets.contains_key(*t)).cloned().collect();
        for target in gone {
            if let Some(task) = self.tasks.remove(&target) {
                task.abort();
            }
        }
        for (target, health) in targets {
            if !self.tasks.contains_key(target) {
                let asker = Asker {
                    target: target.clone(),
                    client: self.client.clone(),
                    mark: self.prober.as_ref().and_then(|prober| prober.mark(target.address)),
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

/// Asks one target.
struct Asker {
    target: Target,
    client: reqwest::Client,
    /// Of a member whose VIP is checked.
    mark: Option<u32>,
}

async fn check_for_ever(
    asker: Asker,
    health: Health,
    settings: Check,
    reports: UnboundedSender<(Target, Health)>,
) {
    let target = &asker.target;
    let mut tracker = Tracker { health, against: 0 };
    let mut ticks = interval(settings.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = match timeout(settings.timeout(), asker.ask()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer from {target} within {} ms", settings.timeout_ms)),
        };
        if tracker.observe(result, &settings) {
            let health = tracker.health.clone();
            match &health.reason {
                None => tracing::info!(%target, "member is well"),
                Some(reason) => tracing::warn!(%target, %reason, "member is not well"),
            }
            if reports.send((target.clone(), health)).is_err() {
                return;
            }
        }
    }
}

impl Asker {
    async fn ask(&self) -> Result<(), String> {
        let target = &self.target;
        match &target.check {
            model::Check::Vip { vip, port } => {
                let mark = self.mark.ok_or("this balancer has no means to check VIPs")?;
                let vip = SocketAddr::new(*vip, port.get());
                probe::connect(vip, mark).await.map_err(|e| failure(&e, target))
            }
            model::Check::Tcp { .. } => {
                TcpStream::connect(target.socket()).await.map(drop).map_err(|e| failure(&e, target))
            }
            model::Check::Http { .. } => {
                let answer = self.client.get(target.to_string()).send().await.map_err(|error| {
                    let mut source = error.source();
                    while let Some(cause) = source {
                        if let Some(io) = cause.downcast_ref::<io::Error>() {
                            return failure(io, target);
                        }
                        source = cause.source();
                    }
                    format!("GET {target}: {error}")
                })?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(());
                }
                Err(format!("GET {target} answered {}, expected 200 to 299", status.as_u16()))
            }
        }
    }
}

fn failure(error: &io::Error, target: &Target) -> String {
    let socket = match &target.check {
        model::Check::Vip { .. } => target.to_string(),
        _ => target.socket().to_string(),
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused on {socket}"),
        io::ErrorKind::HostUnreachable => format!("no route to {socket}: nobody has its address"),
        io::ErrorKind::NetworkUnreachable => format!("no route to {socket}"),
        io::ErrorKind::ConnectionReset => format!("connection reset by {socket}"),
        _ => format!("{socket}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn tracker(presumed: bool) -> Tracker {
        Tracker { health: Health { presumed, ..Health::default() }, against: 0 }
    }

    const SETTINGS: Check = Check { period_ms: 1000, timeout_ms: 100, rise: 2, fall: 3 };

    #[test]
    fn the_first_check_counts_at_once() {
        let mut tracker = tracker(false);
        assert!(tracker.health.verdict().is_err());
        assert!(tracker.observe(Ok(()), &SETTINGS));
        assert_eq!(tracker.health.verdict(), Ok(()));
    }

    #[test]
    fn a_presumed_member_must_fall() {
        let mut tracker = tracker(true);
        for _ in 0..2 {
            assert_eq!(tracker.health.verdict(), Ok(()));
            assert!(!tracker.observe(Err("refused".to_owned()), &SETTINGS));
        }
        assert!(tracker.observe(Err("refused".to_owned()), &SETTINGS));
        assert_eq!(tracker.health.verdict(), Err("refused".to_owned()));
        assert!(!tracker.observe(Err("refused".to_owned()), &SETTINGS));
        assert!(tracker.observe(Err("timed out".to_owned()), &SETTINGS), "another reason is news");
    }

    #[test]
    fn rises_and_falls_are_counted_in_a_row() {
        let mut tracker = tracker(false);
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let healthy = results.map(|good| {
            tracker.observe(if good { Ok(()) } else { Err(String::new()) }, &SETTINGS);
            tracker.health.healthy == Some(true)
        });
        assert_eq!(healthy, [true, true, true, true, true, true, false, false, false, false, true]);
    }

    #[tokio::test]
    async fn reasons_name_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port().try_into().unwrap();
        let asker = |check| Asker {
            target: Target { address: address.ip(), check },
            client: reqwest::Client::new(),
            mark: None,
        };
        let tcp = asker(model::Check::Tcp { port });
        assert_eq!(tcp.ask().await, Ok(()));
        drop(listener);
        let refused = Err(format!("connection refused on {address}"));
        assert_eq!(tcp.ask().await, refused);
        let http = asker(model::Check::Http { port, path: "/healthz".to_owned() });
        assert_eq!(http.ask().await, refused);

        let listener = std::net::TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            for status in ["503 Service Unavailable", "204 No Content"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
        });
        let unwell = Err(format!("GET http://{address}/healthz answered 503, expected 200 to 299"));
        assert_eq!(http.ask().await, unwell);
        assert_eq!(http.ask().await, Ok(()));
    }
}
