//! The cases, each on a clean device.

use super::{
    Device, Fault, Nonconformance, Outcome, Report,
    states::{tcp, vip},
    trial::{Trial, Tried},
};
use crate::{
    diff::diff,
    driver::DriverError,
    fit::Fitted,
    model::{State, Version},
};

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
        let mut trial = Trial::new(&mut *device, case.name());
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
            // told before it is tried, for the one load balancer; or refused by the device
            let told: Vec<String> = fitted.refused.values().flatten().map(ToString::to_string).collect();
            let error = driver.apply(&fitted.state, &changes).await.err();
            let named = |error: &DriverError| matches!(error, DriverError::Refused { reason, .. } if reason.contains("theirs"));
            let named = match &error {
                None => told.iter().any(|reason| reason.contains("theirs")),
                Some(error) => told.is_empty() && named(error),
            };
            self.expect(named, || {
                format!("expected Refused, or an obstacle, that names \"theirs\", which has our port; it was {error:?} and {told:?}")
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
}
