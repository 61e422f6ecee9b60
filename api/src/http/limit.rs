//! How often anybody may ask.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::{
    config,
    refusal::{Kind, Refusal},
};

/// How many strangers are told apart. Whoever falls together with another one by chance shares its allowance; which
/// ones do is different after each start. So what is kept has one size, however many ask.
const CELLS: usize = 4096;
/// After so many requests, projects whose allowance is whole again are forgotten.
const FORGET: usize = 4096;

/// None where there is no limit.
fn quota(per_second: u32, burst: u32) -> Option<Quota> {
    let quota = Quota::per_second(NonZeroU32::new(per_second)?);
    Some(quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
}

fn wait(late: &NotUntil<<DefaultClock as Clock>::Instant>) -> Duration {
    late.wait_time_from(DefaultClock::default().now())
}

/// The allowances of projects, each its own: there are as many as Keystone has.
struct Projects {
    allowances: DefaultKeyedRateLimiter<String>,
    asked: AtomicUsize,
}

impl Projects {
    fn new(quota: Quota) -> Self {
        Self { allowances: RateLimiter::keyed(quota), asked: AtomicUsize::new(0) }
    }

    /// The error is how long to wait until one more may ask.
    fn take(&self, project: &str) -> Result<(), Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET == FORGET - 1 {
            self.allowances.retain_recent();
            self.allowances.shrink_to_fit();
        }
        self.allowances.check_key(&project.to_owned()).map_err(|late| wait(&late))
    }
}

/// The allowances of all strangers who may ask.
struct Strangers {
    cells: Vec<DefaultDirectRateLimiter>,
    place: RandomState,
}

impl Strangers {
    fn new(quota: Quota) -> Self {
        let cells = (0..CELLS).map(|_| RateLimiter::direct(quota)).collect();
        Self { cells, place: RandomState::new() }
    }

    /// The error is how long to wait until one more may ask.
    fn take(&self, who: impl Hash) -> Result<(), Duration> {
        let hash = self.place.hash_one(who);
        // a remainder is smaller than the number of cells, which is a usize
        let place = usize::try_from(hash % CELLS as u64).unwrap_or_default();
        let Some(cell) = self.cells.get(place) else { return Ok(()) };
        cell.check().map_err(|late| wait(&late))
    }
}

/// How often anybody may ask.
pub struct Limits {
    projects: Option<Projects>,
    peers: Option<Strangers>,
    told: config::Limits,
}

impl Limits {
    /// Those of the configuration.
    #[must_use]
    pub fn new(told: &config::Limits) -> Self {
        Self {
            projects: quota(told.project_per_second, told.project_burst).map(Projects::new),
            peers: quota(told.peer_per_second, told.peer_burst).map(Strangers::new),
            told: told.clone(),
        }
    }

    /// Counts a request of a project.
    pub(super) fn project(&self, project: &str) -> Result<(), Refusal> {
        let Some(pace) = &self.projects else { return Ok(()) };
        let rate = self.told.project_per_second;
        pace.take(project).map_err(|wait| too_many(wait, &format!("project {project}"), rate))
    }

    /// Counts a request of whom nobody knows yet.
    pub(super) fn stranger(&self, peer: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(pace) = &self.peers else { return Ok(()) };
        let rate = self.told.peer_per_second;
        let who = peer.map(|peer| peer.to_string()).unwrap_or_default();
        pace.take(peer.map(neighbourhood)).map_err(|wait| {
            too_many(wait, &format!("address {who}, without a token that is known here"), rate)
        })
    }
}

/// Whoever has one address of a /64 has all of it (RFC 6177).
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

fn too_many(wait: Duration, who: &str, rate: u32) -> Refusal {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let message = format!(
        "{who}: too many requests; expected at most {rate} a second in the long run. Ask again after the Retry-After of this answer"
    );
    Refusal::new(Kind::TooMany, message).after(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_a_second(burst: u32) -> Limits {
        Limits::new(&config::Limits {
            project_per_second: 1,
            project_burst: burst,
            peer_per_second: 1,
            peer_burst: burst,
        })
    }

    #[test]
    fn a_burst_passes_and_what_comes_after_it_waits() {
        let limits = one_a_second(3);
        let asked = (0..1000).map(|_| limits.project("p")).collect::<Vec<_>>();
        assert!(asked.iter().take(3).all(Result::is_ok));
        let refusal = asked.into_iter().find_map(Result::err).unwrap();
        assert_eq!((refusal.kind, refusal.retry_after), (Kind::TooMany, Some(1)));
        assert!(refusal.message.contains("project p: too many requests; expected at most 1 a second"));
        // no other shares what it has used up
        assert!((0..1000).all(|n| limits.project(&format!("other-{n}")).is_ok()));
    }

    #[test]
    fn who_has_not_asked_lately_is_forgotten() {
        let often = config::Limits { project_per_second: 1_000_000, ..config::Limits::default() };
        let limits = Limits::new(&often);
        for n in 0..10 * FORGET {
            limits.project(&format!("p{n}")).unwrap();
        }
        let kept = limits.projects.unwrap().allowances.len();
        assert!(kept <= 2 * FORGET, "{kept}");
    }

    #[test]
    fn an_address_of_ipv6_stands_for_its_subnet() {
        let ip = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(ip("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(ip("::ffff:192.0.2.9"), "192.0.2.9");
        assert_eq!(ip("192.0.2.9"), "192.0.2.9");
    }

    #[test]
    fn nobody_is_counted_where_there_is_no_limit() {
        let none = config::Limits { project_per_second: 0, peer_per_second: 0, ..config::Limits::default() };
        let limits = Limits::new(&none);
        assert!((0..10_000).all(|_| limits.project("p").is_ok() && limits.stranger(None).is_ok()));
    }
}
