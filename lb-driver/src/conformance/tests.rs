use std::sync::{Arc, Mutex, MutexGuard};

use super::*;
use crate::{
    diff::Change,
    driver::{Answer, Capabilities, CheckKinds, Limits, MemberStatus, PoolStatus, Status},
    model::{State, Version},
    table::Table,
};

/// A device in memory with a driver that changes it step by step.
#[derive(Default)]
struct Memory(Arc<Mutex<Inner>>, Option<Capabilities>, Option<Flaw>);

#[derive(Default)]
struct Inner {
    table: Table,
    /// Counts logins; a session is good while it has the number.
    session: u64,
    writes: u64,
    /// With the number of writes at its injection.
    fault: Option<(Fault, u64)>,
}

/// What a driver may do wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    TouchesOthers,
    ForgetsDraining,
    NeverLogsInAgain,
    WritesWithoutNeed,
    TakesForRefused,
    KeepsWhatItRead,
    TakesOlder,
    SaysNothingOfMembers,
}

struct MemoryDriver {
    inner: Arc<Mutex<Inner>>,
    capabilities: Capabilities,
    flaw: Option<Flaw>,
    session: Mutex<Option<u64>>,
    read: Mutex<Option<State>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn device() -> String {
    "memory".to_owned()
}

fn gone() -> DriverError {
    DriverError::Unreachable { device: device(), cause: "no answer".to_owned() }
}

impl MemoryDriver {
    /// The device, once it answers.
    fn open(&self) -> Result<MutexGuard<'_, Inner>, DriverError> {
        let inner = lock(&self.inner);
        let down = match inner.fault {
            Some((Fault::Reboot, _)) => true,
            Some((Fault::Stops { after }, since)) => inner.writes - since >= after as u64,
            _ => false,
        };
        if down {
            return Err(gone());
        }
        let mut session = lock(&self.session);
        let first = session.is_none();
        if *session != Some(inner.session) {
            if !first && self.flaw == Some(Flaw::NeverLogsInAgain) {
                let reason = "401".to_owned();
                return Err(DriverError::Refused { device: device(), reason });
            }
            *session = Some(inner.session);
        }
        Ok(inner)
    }

    fn write(&self, change: &Change) -> Result<(), DriverError> {
        let mut inner = self.open()?;
        let refused = |reason: &str| DriverError::Refused { device: device(), reason: reason.to_owned() };
        if self.flaw == Some(Flaw::TouchesOthers) {
            inner.table.foreign.clear();
        }
        let now = inner.fault.map(|(fault, since)| (fault, (inner.writes - since) as usize));
        inner.writes += 1;
        match now {
            Some((Fault::Refused { write }, number)) if write == number => return Err(refused("no")),
            Some((Fault::Busy { write }, number)) if write == number => {
                return Err(match self.flaw {
                    Some(Flaw::TakesForRefused) => refused("busy"),
                    _ => {
                        DriverError::Failed { device: device(), reason: "busy".to_owned(), retry_after: None }
                    }
                });
            }
            _ => {}
        }
        inner.table.perform(change).map_err(|reason| refused(&reason))?;
        match now {
            Some((Fault::AnswerLost { write }, number)) if write == number => Err(gone()),
            _ => Ok(()),
        }
    }

    fn seen(&self) -> Result<State, DriverError> {
        let mut inner = self.open()?;
        inner.writes += u64::from(self.flaw == Some(Flaw::WritesWithoutNeed));
        let mut state = inner.table.ours.clone();
        if self.flaw == Some(Flaw::ForgetsDraining) {
            let members = state.pools.values_mut().flat_map(|pool| pool.members.values_mut());
            members.for_each(|member| member.draining = false);
        }
        if self.flaw == Some(Flaw::KeepsWhatItRead) {
            return Ok(lock(&self.read).get_or_insert(state).clone());
        }
        Ok(state)
    }
}

impl Driver for MemoryDriver {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn read(&self) -> Answer<'_, State> {
        Box::pin(async { self.seen() })
    }

    fn apply<'a>(&'a self, wanted: &'a State, changes: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(async move {
            let held = self.open()?.table.ours.version;
            if self.capabilities.versioned && held > wanted.version && self.flaw != Some(Flaw::TakesOlder) {
                return Err(DriverError::Stale { device: device(), wanted: wanted.version, held });
            }
            changes.iter().try_for_each(|change| self.write(change))?;
            self.open()?.table.ours.version = wanted.version;
            Ok(())
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async {
            let state = self.seen()?;
            let mut status = Status::default();
            for (owner, pool) in state.pools.iter().filter(|_| self.flaw != Some(Flaw::SaysNothingOfMembers))
            {
                let members = pool.members.keys().map(|name| (name.clone(), MemberStatus::default()));
                status.pools.insert(owner.clone(), PoolStatus { members: members.collect(), ring_size: 0 });
            }
            Ok(status)
        })
    }
}

impl Memory {
    fn with(capabilities: Capabilities, flaw: Option<Flaw>) -> Self {
        Self(Arc::default(), Some(capabilities), flaw)
    }
}

impl Device for Memory {
    fn driver(&self) -> Result<Box<dyn Driver>, DriverError> {
        Ok(Box::new(MemoryDriver {
            inner: self.0.clone(),
            capabilities: self.1.clone().unwrap_or(Capabilities::ALL),
            flaw: self.2,
            session: Mutex::default(),
            read: Mutex::default(),
        }))
    }

    fn clean(&mut self) -> Deed<'_, ()> {
        *lock(&self.0) = Inner::default();
        Box::pin(async { Ok(()) })
    }

    fn put_foreign<'a>(&'a mut self, name: &'a str, vip: IpAddr, endpoint: Endpoint) -> Deed<'a, Outcome> {
        lock(&self.0).table.foreign.insert(name.to_owned(), (vip, endpoint));
        Box::pin(async { Ok(Outcome::Done) })
    }

    fn foreign(&mut self) -> Deed<'_, BTreeMap<String, String>> {
        let foreign = lock(&self.0).table.foreign.clone();
        let text = foreign.into_iter().map(|(name, claim)| (name, format!("{claim:?}"))).collect();
        Box::pin(async { Ok(text) })
    }

    fn inject(&mut self, fault: Fault) -> Deed<'_, Outcome> {
        let mut inner = lock(&self.0);
        let outcome = match fault {
            Fault::OtherForm => Outcome::NotOfThisDevice("it gives back what it was given"),
            Fault::SessionExpired => {
                inner.session += 1;
                Outcome::Done
            }
            _ => {
                inner.fault = Some((fault, inner.writes));
                Outcome::Done
            }
        };
        Box::pin(async { Ok(outcome) })
    }

    fn heal(&mut self) -> Deed<'_, ()> {
        lock(&self.0).fault = None;
        Box::pin(async { Ok(()) })
    }

    fn writes(&mut self) -> Deed<'_, u64> {
        let writes = lock(&self.0).writes;
        Box::pin(async move { Ok(writes) })
    }
}

/// The least that a device may be able to do.
fn least() -> Capabilities {
    Capabilities {
        ipv6: false,
        sctp: false,
        shared_pools: false,
        drain: false,
        weights: false,
        macs: false,
        source_ranges: false,
        client_ip_affinity: false,
        checks: CheckKinds { tcp: true, http: true, vip: false },
        limits: Limits { load_balancers: Some(2), checks: Some(1), ..Limits::default() },
        versioned: false,
    }
}

#[tokio::test]
async fn a_good_driver_passes_whatever_its_device_can_do() {
    for capabilities in
        [Capabilities::ALL, least(), Capabilities { shared_pools: false, ..Capabilities::ALL }]
    {
        let report = run(&mut Memory::with(capabilities.clone(), None)).await.unwrap();
        let mut other = vec!["reading in another order and other units"];
        other.extend((!capabilities.versioned).then_some("an older state"));
        other.sort_unstable();
        assert!(report.not_of_this_device.keys().copied().eq(other));
        assert_eq!(report.held.len() + report.not_of_this_device.len(), 11);
    }
}

#[tokio::test]
async fn what_a_driver_does_wrong_is_found() {
    for (flaw, expected) in [
        (Flaw::TouchesOthers, "one load balancer: objects of others were"),
        (Flaw::ForgetsDraining, "a node drains: after put pool conformance/c1/nodes"),
        (Flaw::NeverLogsInAgain, "a session that expired: one load balancer: expected a new session; it was"),
        (Flaw::WritesWithoutNeed, "writes though nothing had to be done"),
        (Flaw::TakesForRefused, "Busy { write: 0 }: expected an error, one that may heal"),
        (Flaw::KeepsWhatItRead, "one load balancer: after put pool"),
        (Flaw::TakesOlder, "expected Stale, as 0."),
        (Flaw::SaysNothingOfMembers, "status: pool conformance/c1/nodes: nothing of member"),
    ] {
        let error = run(&mut Memory::with(Capabilities::ALL, Some(flaw))).await.err();
        let error = error.unwrap_or_else(|| panic!("{flaw:?} was not found"));
        assert!(matches!(error, Nonconformance::Broken { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{flaw:?}: {error}");
    }
}

#[test]
fn every_state_of_the_series_is_possible() {
    let series = series().unwrap();
    assert!(series.len() > 20 && series.last().unwrap().1 == State::default());
    for (what, state) in &series {
        assert_eq!(state.check(), Ok(()), "{what}");
        assert_eq!(state.version, Version::default());
    }
}
