//! The cases, each on a clean device.

use super::{
    Deed, Device, Fault, Nonconformance, Outcome, Report,
    states::{owner, series, tcp, vip},
};
use crate::{
    diff::{Change, diff},
    driver::{Driver, DriverError},
    fit::{Fitted, fit},
    model::{State, Version},
};

/// Tries of one step that may fail for now: a connection that died is noticed by its next user.
const TRIES: usize = 4;
/// No plan here has more steps than that, however a device counts its writes.
const MOST_WRITES: usize = 200;

#[derive(Debug, Clone, Copy)]
enum Case {
    Series,
    InTheWay,
    Refused,
    Busy,
    AnswerLost,
    Stops,
    Reboot,
    SessionExpired,
    OtherForm,
    TwoPrograms,
    Stale,
}

impl Case {
    const ALL: [Self; 11] = [
        Self::Series,
        Self::InTheWay,
        Self::Refused,
        Self::Busy,
        Self::AnswerLost,
        Self::Stops,
        Self::Reboot,
        Self::SessionExpired,
        Self::OtherForm,
        Self::TwoPrograms,
        Self::Stale,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Series => "every state is reached and kept, and others' objects are untouched",
            Self::InTheWay => "somebody else's object in the way is named",
            Self::Refused => "a refused write",
            Self::Busy => "a write that is put off",
            Self::AnswerLost => "a write that timed out after it took effect",
            Self::Stops => "a change that was made by half",
            Self::Reboot => "a device that starts again",
            Self::SessionExpired => "a session that expired",
            Self::OtherForm => "reading in another order and other units",
            Self::TwoPrograms => "two programs at once",
            Self::Stale => "an older state",
        }
    }
}

/// Tries every case; the first that does not hold ends it. Takes as long as a few hundred changes of the device.
pub async fn run(device: &mut dyn Device) -> Result<Report, Nonconformance> {
    let mut report = Report::default();
    for case in Case::ALL {
        let mut trial = Trial { device: &mut *device, case: case.name(), version: Version::default() };
        trial.deed(|device| device.clean()).await?;
        let outcome = match case {
            Case::Series => trial.series().await?,
            Case::InTheWay => trial.in_the_way().await?,
            Case::Refused => trial.at_each_write(|write| Fault::Refused { write }, false).await?,
            Case::Busy => trial.at_each_write(|write| Fault::Busy { write }, true).await?,
            Case::AnswerLost => trial.at_each_write(|write| Fault::AnswerLost { write }, true).await?,
            Case::Stops => trial.at_each_write(|after| Fault::Stops { after }, true).await?,
            Case::Reboot => trial.reboot().await?,
            Case::SessionExpired => trial.session_expired().await?,
            Case::OtherForm => trial.other_form().await?,
            Case::TwoPrograms => trial.two_programs().await?,
            Case::Stale => trial.stale().await?,
        };
        match outcome {
            Outcome::Done => report.held.push(case.name()),
            Outcome::NotOfThisDevice(why) => drop(report.not_of_this_device.insert(case.name(), why)),
        }
    }
    Ok(report)
}

struct Trial<'a> {
    device: &'a mut dyn Device,
    case: &'static str,
    version: Version,
}

type Tried<T = Outcome> = Result<T, Nonconformance>;

impl Trial<'_> {
    async fn series(&mut self) -> Tried {
        let driver = self.driver()?;
        let empty = self.read(&*driver).await?;
        self.expect(empty.pools.is_empty() && empty.load_balancers.is_empty(), || {
            format!("expected nothing of ours on a clean device; it has {empty:?}")
        })?;
        self.status(&*driver, &Fitted::default()).await?;
        // the same names, VIPs and ports beside ours must not confuse us
        self.deed(|device| device.put_foreign("nodes", vip(99), tcp(80))).await?;
        self.deed(|device| device.put_foreign("theirs", vip(17), tcp(8443))).await?;
        let foreign = self.deed(|device| device.foreign()).await?;
        for (what, wanted) in self.states()? {
            let fitted = self.reach(&*driver, &what, &wanted).await?;
            self.status(&*driver, &fitted).await?;
            let writes = self.deed(|device| device.writes()).await?;
            let fresh = self.driver()?;
            self.reach(&*fresh, &what, &wanted).await?;
            let again = self.deed(|device| device.writes()).await? - writes;
            self.expect(again == 0, || format!("{what}: {again} writes though nothing had to be done"))?;
            let now = self.deed(|device| device.foreign()).await?;
            self.expect(now == foreign, || {
                format!("{what}: objects of others were {foreign:?}, and are {now:?}")
            })?;
        }
        Ok(Outcome::Done)
    }

    async fn in_the_way(&mut self) -> Tried {
        let driver = self.driver()?;
        let (_, wanted) = self.one()?;
        let outcome = self.deed(|device| device.put_foreign("theirs", vip(17), tcp(80))).await?;
        if outcome != Outcome::Done {
            return Ok(outcome);
        }
        let foreign = self.deed(|device| device.foreign()).await?;
        for _ in 0..2 {
            let (fitted, changes) = self.plan(&*driver, &wanted).await?;
            let error = driver.apply(&fitted.state, &changes).await.err();
            let named = |error: &DriverError| matches!(error, DriverError::Refused { reason, .. } if reason.contains("theirs"));
            self.expect(error.as_ref().is_some_and(named), || {
                format!("expected Refused that names \"theirs\", which has our port; it was {error:?}")
            })?;
            let now = self.deed(|device| device.foreign()).await?;
            self.expect(now == foreign, || format!("objects of others were {foreign:?}, and are {now:?}"))?;
        }
        self.deed(|device| device.clean()).await?;
        self.reach(&*driver, "after it went", &wanted).await?;
        Ok(Outcome::Done)
    }

    /// From a state with two load balancers to one where much is different, with the fault at the first write,
    /// then at the second, until one comes too late to matter.
    async fn at_each_write(&mut self, fault: impl Fn(usize) -> Fault, may_heal: bool) -> Tried {
        let states = self.states()?;
        let find =
            |what: &str| states.iter().find(|(name, _)| name.starts_with(what)).map(|(_, s)| s.clone());
        let (Some(before), Some(after)) = (find("two share a VIP"), find("one goes to another VIP")) else {
            return Err(self.broken("the states that it needs are gone".to_owned()));
        };
        for write in 0..MOST_WRITES {
            let driver = self.driver()?;
            self.reach(&*driver, "before the fault", &before).await?;
            let (fitted, changes) = self.plan(&*driver, &after).await?;
            let outcome = self.deed(|device| device.inject(fault(write))).await?;
            if outcome != Outcome::Done {
                return Ok(outcome);
            }
            let result = driver.apply(&fitted.state, &changes).await;
            if let Err(error) = &result {
                self.expect(error.retryable() == may_heal, || {
                    let expected = if may_heal { "one that may heal" } else { "one that will not heal" };
                    format!("{:?}: expected an error, {expected}; it was {error:?}", fault(write))
                })?;
            }
            if result.is_err() && matches!(fault(write), Fault::Stops { .. }) {
                let read = driver.read().await.err();
                self.expect(read.as_ref().is_some_and(DriverError::retryable), || {
                    format!("{:?}: expected reading to fail for now; it gave {read:?}", fault(write))
                })?;
            }
            self.deed(|device| device.heal()).await?;
            let next = if write % 2 == 0 { self.driver()? } else { driver };
            self.reach(&*next, &format!("after {:?}", fault(write)), &after).await?;
            if result.is_ok() && write > 0 {
                return Ok(Outcome::Done);
            }
        }
        Err(self.broken(format!("{MOST_WRITES} writes for one plan")))
    }

    async fn reboot(&mut self) -> Tried {
        let driver = self.driver()?;
        let (what, wanted) = self.one()?;
        self.reach(&*driver, &what, &wanted).await?;
        let outcome = self.deed(|device| device.inject(Fault::Reboot)).await?;
        if outcome != Outcome::Done {
            return Ok(outcome);
        }
        let error = driver.read().await.err();
        self.expect(error.as_ref().is_some_and(DriverError::retryable), || {
            format!("expected reading to fail for now; it gave {error:?}")
        })?;
        let error = driver.apply(&State::default(), &[]).await.err();
        self.expect(error.as_ref().is_none_or(DriverError::retryable), || {
            format!("expected writing to fail for now; it gave {error:?}")
        })?;
        self.deed(|device| device.heal()).await?;
        let (_, changes) = self.plan(&*driver, &wanted).await?;
        self.expect(changes.is_empty(), || format!("it lost what it was told: {changes:?}"))?;
        Ok(Outcome::Done)
    }

    async fn session_expired(&mut self) -> Tried {
        let driver = self.driver()?;
        for (what, wanted) in self.states()?.iter().take(4) {
            let outcome = self.deed(|device| device.inject(Fault::SessionExpired)).await?;
            if outcome != Outcome::Done {
                return Ok(outcome);
            }
            let (fitted, changes) = self.plan_at_once(&*driver, wanted).await?;
            self.deed(|device| device.inject(Fault::SessionExpired)).await?;
            driver
                .apply(&fitted.state, &changes)
                .await
                .map_err(|e| self.broken(format!("{what}: expected a new session; it was {e}")))?;
            self.deed(|device| device.inject(Fault::SessionExpired)).await?;
            driver
                .status()
                .await
                .map_err(|e| self.broken(format!("status: expected a new session; it was {e}")))?;
            self.reach(&*driver, what, wanted).await?;
        }
        Ok(Outcome::Done)
    }

    async fn other_form(&mut self) -> Tried {
        let driver = self.driver()?;
        for (what, wanted) in self.states()? {
            self.reach(&*driver, &what, &wanted).await?;
            let outcome = self.deed(|device| device.inject(Fault::OtherForm)).await?;
            if outcome != Outcome::Done {
                return Ok(outcome);
            }
            let (_, changes) = self.plan(&*driver, &wanted).await?;
            self.expect(changes.is_empty(), || {
                format!("{what}: the same in another form was taken for another: {changes:?}")
            })?;
            self.deed(|device| device.heal()).await?;
        }
        Ok(Outcome::Done)
    }

    /// One plans, another one writes something else, then the first one acts.
    async fn two_programs(&mut self) -> Tried {
        let (first, second) = (self.driver()?, self.driver()?);
        let states = self.states()?;
        for pair in states.windows(2) {
            let [(_, one), (what, two)] = pair else { continue };
            let (fitted, changes) = self.plan(&*first, two).await?;
            self.reach(&*second, what, one).await?;
            // whatever becomes of it: what was read was no longer true
            let _ = first.apply(&fitted.state, &changes).await;
            self.reach(&*first, what, two).await?;
        }
        Ok(Outcome::Done)
    }

    async fn stale(&mut self) -> Tried {
        let driver = self.driver()?;
        if !driver.capabilities().versioned {
            return Ok(Outcome::NotOfThisDevice("it keeps no version"));
        }
        let (what, wanted) = self.one()?;
        self.reach(&*driver, &what, &wanted).await?;
        let held = self.read(&*driver).await?.version;
        let older = State { version: Version { number: held.number - 1, ..held }, ..State::default() };
        let changes = diff(&older, &self.read(&*driver).await?);
        let error = driver.apply(&older, &changes).await.err();
        let told = |error: &DriverError| matches!(error, DriverError::Stale { held: h, .. } if *h == held);
        self.expect(error.as_ref().is_some_and(told), || {
            format!("expected Stale, as {held} is held; it was {error:?}")
        })?;
        self.reach(&*driver, "after an older one was refused", &wanted).await?;
        Ok(Outcome::Done)
    }

    /// Brings the device to a state as a reconciler does, and sees that it is there.
    async fn reach(&mut self, driver: &dyn Driver, what: &str, wanted: &State) -> Tried<Fitted> {
        let (fitted, changes) = self.plan(driver, wanted).await?;
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
    async fn plan(&mut self, driver: &dyn Driver, wanted: &State) -> Tried<(Fitted, Vec<Change>)> {
        let held = self.read(driver).await?;
        Ok(self.plan_from(driver, wanted, &held))
    }

    /// The same without patience.
    async fn plan_at_once(&mut self, driver: &dyn Driver, wanted: &State) -> Tried<(Fitted, Vec<Change>)> {
        let held = driver
            .read()
            .await
            .map_err(|e| self.broken(format!("reading: expected a new session; it was {e}")))?;
        Ok(self.plan_from(driver, wanted, &held))
    }

    fn plan_from(&mut self, driver: &dyn Driver, wanted: &State, held: &State) -> (Fitted, Vec<Change>) {
        let mut fitted = fit(wanted, &driver.capabilities(), held);
        self.version = self.version.max(held.version);
        self.version.number += 1;
        fitted.state.version = self.version;
        let changes = diff(&fitted.state, held);
        (fitted, changes)
    }

    async fn read(&self, driver: &dyn Driver) -> Tried<State> {
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
    async fn status(&self, driver: &dyn Driver, fitted: &Fitted) -> Tried<()> {
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

    fn driver(&self) -> Tried<Box<dyn Driver>> {
        self.device.driver().map_err(|e| self.broken(format!("a new driver: {e}")))
    }

    fn states(&self) -> Tried<Vec<(String, State)>> {
        series().map_err(|e| self.broken(e.to_string()))
    }

    /// A load balancer on the first VIP's port 80.
    fn one(&self) -> Tried<(String, State)> {
        let (what, state) = self.states()?.swap_remove(0);
        debug_assert!(owner("svc-1").is_ok_and(|one| state.load_balancers.contains_key(&one)));
        Ok((what, state))
    }

    async fn deed<T>(&mut self, deed: impl for<'d> FnOnce(&'d mut dyn Device) -> Deed<'d, T>) -> Tried<T> {
        let case = self.case;
        deed(&mut *self.device).await.map_err(|problem| Nonconformance::Harness { case, problem })
    }

    fn expect(&self, holds: bool, otherwise: impl FnOnce() -> String) -> Tried<()> {
        if holds { Ok(()) } else { Err(self.broken(otherwise())) }
    }

    fn broken(&self, problem: String) -> Nonconformance {
        Nonconformance::Broken { case: self.case, problem }
    }
}

fn told(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
