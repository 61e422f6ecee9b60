//! What every case does with a device: plan, bring it to a state, read, and say what was expected.

use super::{
    Deed, Device, Nonconformance, Outcome,
    states::{owner, series},
};
use crate::{
    diff::{Change, diff},
    driver::{Driver, Obstacles},
    fit::{Fitted, fit_to},
    model::{State, Version},
};

/// Tries of one step that may fail for now: a connection that died is noticed by its next user.
const TRIES: usize = 4;

/// One case on one device.
pub(super) struct Trial<'a> {
    device: &'a mut dyn Device,
    case: &'static str,
    version: Version,
}

/// What a case comes to.
pub(super) type Tried<T = Outcome> = Result<T, Nonconformance>;

impl<'a> Trial<'a> {
    pub(super) fn new(device: &'a mut dyn Device, case: &'static str) -> Self {
        Self { device, case, version: Version::default() }
    }

    /// Brings the device to a state as a reconciler does, and sees that it is there.
    pub(super) async fn reach(&mut self, driver: &dyn Driver, what: &str, wanted: &State) -> Tried<Fitted> {
        let (fitted, changes) = self.plan(driver, wanted).await?;
        let obstacles = driver.obstacles(wanted);
        self.expect(obstacles == Obstacles::default(), || {
            format!("{what}: nothing is in the way; the driver said {obstacles:?}")
        })?;
        if changes.is_empty() {
            return Ok(fitted);
        }
        let mut failure = None;
        for _ in 0..TRIES {
            let (fitted, changes) = self.plan(driver, wanted).await?;
            if changes.is_empty() {
                break;
            }
            failure = driver.apply(&fitted.state, &changes).await.err();
            if failure.as_ref().is_none_or(|error| !error.retryable()) {
                break;
            }
        }
        if let Some(error) = failure {
            return Err(self.broken(format!("{what}: {error}; after {}", told(&changes))));
        }
        let read = self.read(driver).await?;
        let same = read.pools == fitted.state.pools && read.load_balancers == fitted.state.load_balancers;
        let left = diff(&fitted.state, &read);
        self.expect(same && left.is_empty(), || {
            format!("{what}: after {}: expected {:?}; it has {read:?}", told(&changes), fitted.state)
        })?;
        Ok(fitted)
    }

    /// What has to be done, with a version that any device takes.
    pub(super) async fn plan(&mut self, driver: &dyn Driver, wanted: &State) -> Tried<(Fitted, Vec<Change>)> {
        let held = self.read(driver).await?;
        Ok(self.plan_from(driver, wanted, &held))
    }

    /// The same without patience.
    pub(super) async fn plan_at_once(
        &mut self,
        driver: &dyn Driver,
        wanted: &State,
    ) -> Tried<(Fitted, Vec<Change>)> {
        let held = driver
            .read()
            .await
            .map_err(|e| self.broken(format!("reading: expected a new session; it was {e}")))?;
        Ok(self.plan_from(driver, wanted, &held))
    }

    fn plan_from(&mut self, driver: &dyn Driver, wanted: &State, held: &State) -> (Fitted, Vec<Change>) {
        let mut fitted = fit_to(driver, wanted, held);
        self.version = self.version.max(held.version);
        self.version.number += 1;
        fitted.state.version = self.version;
        let changes = diff(&fitted.state, held);
        (fitted, changes)
    }

    pub(super) async fn read(&self, driver: &dyn Driver) -> Tried<State> {
        let mut tries = TRIES;
        loop {
            match driver.read().await {
                Ok(state) => return Ok(state),
                Err(error) if error.retryable() && tries > 1 => tries -= 1,
                Err(error) => return Err(self.broken(format!("reading: {error}"))),
            }
        }
    }

    /// The device speaks of every pool and member that it was given.
    pub(super) async fn status(&self, driver: &dyn Driver, fitted: &Fitted) -> Tried<()> {
        let status = driver.status().await.map_err(|e| self.broken(format!("status: {e}")))?;
        for (owner, pool) in &fitted.state.pools {
            let said = status.pools.get(owner);
            let missing =
                pool.members.keys().find(|name| !said.is_some_and(|s| s.members.contains_key(*name)));
            self.expect(missing.is_none(), || {
                format!("status: pool {owner}: nothing of member {missing:?}")
            })?;
        }
        Ok(())
    }

    pub(super) fn driver(&self) -> Tried<Box<dyn Driver>> {
        self.device.driver().map_err(|e| self.broken(format!("a new driver: {e}")))
    }

    pub(super) fn states(&self) -> Tried<Vec<(String, State)>> {
        series().map_err(|e| self.broken(e.to_string()))
    }

    /// A load balancer on the first VIP's port 80.
    pub(super) fn one(&self) -> Tried<(String, State)> {
        let (what, state) = self.states()?.swap_remove(0);
        debug_assert!(owner("svc-1").is_ok_and(|one| state.load_balancers.contains_key(&one)));
        Ok((what, state))
    }

    pub(super) async fn deed<T>(
        &mut self,
        deed: impl for<'d> FnOnce(&'d mut dyn Device) -> Deed<'d, T>,
    ) -> Tried<T> {
        let case = self.case;
        deed(&mut *self.device).await.map_err(|problem| Nonconformance::Harness { case, problem })
    }

    pub(super) fn expect(&self, holds: bool, otherwise: impl FnOnce() -> String) -> Tried<()> {
        if holds { Ok(()) } else { Err(self.broken(otherwise())) }
    }

    pub(super) fn broken(&self, problem: String) -> Nonconformance {
        Nonconformance::Broken { case: self.case, problem }
    }
}

fn told(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
