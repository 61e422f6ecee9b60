//! Small stacks, each test's in a project of its own that is as empty afterwards as it was before.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ake_lab::Lab;
use anyhow::{Error, Result, ensure};
use serde_json::Value;

use crate::{checkout, lab_of_this_run, output, proofs::still_with, tenant::Tenant};

/// What is wrong is said within this time where no machine has to boot for it, also on a busy computer: sooner than a stack
/// gives up by itself.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Runs a test; its error is what the test says.
pub fn run(test: impl FnOnce(&Lab) -> Result<()>) {
    #[allow(clippy::panic, reason = "a test fails by panicking")]
    lab_of_this_run().and_then(|lab| test(&lab)).unwrap_or_else(|error: Error| panic!("{error:#}"));
}

/// Runs a test with a new project; what the test leaves there fails it.
pub fn with_project(name: &str, test: impl FnOnce(&Lab, &Tenant<'_>) -> Result<()>) {
    run(|lab| {
        let (tenant, before) = new_project(lab, name)?;
        test(lab, &tenant)?;
        nothing_left(&tenant, &before)
    });
}

/// A new project whose name begins so, and what is in it already. A lab may be kept for several runs.
pub fn new_project<'a>(lab: &'a Lab, name: &str) -> Result<(Tenant<'a>, BTreeSet<String>)> {
    let name = format!("{name}-{:x}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    lab.new_project(&name)?;
    let tenant = Tenant::new(lab, &name)?;
    let before = tenant.inventory()?.into_iter().collect();
    Ok((tenant, before))
}

/// An error where a project has what it had not before, or has anything on a balancer.
pub fn nothing_left(tenant: &Tenant<'_>, before: &BTreeSet<String>) -> Result<()> {
    let left: Vec<_> = tenant.inventory()?.into_iter().filter(|line| !before.contains(line)).collect();
    let balancers = still_with(tenant.lab(), tenant.api()?.project())?;
    ensure!(
        left.is_empty() && balancers.is_empty(),
        "left in project {}: {left:?}; balancers with something of it: {balancers:?}",
        tenant.name()
    );
    Ok(())
}

/// `openstack stack create` of a fixture, until it is made; an error with what Heat says of it.
pub fn create(lab: &Lab, tenant: &Tenant<'_>, stack: &str, fixture: &str, parameters: &[&str]) -> Result<()> {
    let mut command = lab.tenant(tenant.name());
    command
        .args(["stack", "create", "-f", "json", "-t"])
        .arg(checkout().join("tests/fixtures").join(fixture));
    for parameter in parameters {
        command.args(["--parameter", parameter]);
    }
    output(command.arg(stack))?;
    tenant.settled(stack, "CREATE_COMPLETE")
}

/// What is said of a stack that cannot be made, within [`DEADLINE`]; everything that it made is deleted.
pub fn refusal(lab: &Lab, tenant: &Tenant<'_>, fixture: &str, parameters: &[&str]) -> Result<String> {
    let begun = Instant::now();
    let error = create(lab, tenant, "bad", fixture, parameters).err();
    let took = begun.elapsed();
    if tenant.status("bad")?.is_some() {
        tenant.remove("bad")?;
    }
    let said = error.map(|error| format!("{error:#}"));
    let said = said.ok_or_else(|| Error::msg(format!("{fixture} with {parameters:?} was made")))?;
    ensure!(took <= DEADLINE, "said after {} s, not within {}: {said}", took.as_secs(), DEADLINE.as_secs());
    Ok(said)
}

/// What `ake-api` has of a cluster, without what checks say of its members: that changes with the time that a machine has.
#[must_use]
pub fn without_health(mut state: Value) -> Value {
    for pool in state["pools"].as_object_mut().into_iter().flat_map(|pools| pools.values_mut()) {
        for member in pool["members"].as_object_mut().into_iter().flat_map(|members| members.values_mut()) {
            member["healthy"] = Value::Null;
            member["reason"] = Value::Null;
        }
    }
    state
}

/// An error that shows a text where it lacks one of these words.
pub fn says(text: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not in: {text}");
    Ok(())
}

/// A time as the stock client takes it.
pub fn utc(time: SystemTime) -> Result<String> {
    let seconds = time.duration_since(UNIX_EPOCH)?.as_secs();
    output(Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"]))
}

/// An id for a cluster without a stack.
#[must_use]
pub fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{now:08x}-0000-4000-8000-{:012x}", COUNT.fetch_add(1, Ordering::Relaxed))
}
