//! Brings a unit from what was read to what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{
    derive::{self, Style},
    look::{Seen, partition_mark},
    objects::Objects,
    plan::{Command, plan},
    transact::transact,
    unit::{Failure, Request, Unit},
};
use crate::{driver::DriverError, model::State};

/// Commands in one transaction: some seconds' worth, against the 120 that it may stay open.
const CHUNK: usize = 500;
/// How often a partition's commands are tried by themselves: what one needs another may have to give up first.
const ROUNDS: usize = 2;

/// What the device refuses, in its words, by project.
type Refused = BTreeMap<String, String>;

/// Does all that is needed. What is of a project that the device refuses does not keep that of others back.
pub(super) async fn write(
    unit: &Unit,
    wanted: &State,
    seen: &Seen,
    style: &Style,
) -> Result<(), DriverError> {
    let objects = derive::derive(wanted, style).without(&seen.foreign.lent).objects;
    let mut commands = plan(&objects, &seen.objects, &seen.foreign.used);
    let mut refused = make_partitions(unit, &objects, seen, style).await?;
    commands.retain(|command| !refused.contains_key(project(&command.key().partition, style)));
    // the first one takes the version; the others fail where another writer took it since
    let guard = derive::version(wanted.version, style).map(|(key, group)| Command::Change(key, group));
    let mut done = 0;
    for chunk in commands.chunks(CHUNK) {
        let guarded = guard.iter().filter(|_| done > 0).chain(chunk).cloned().collect::<Vec<_>>();
        match transact(unit, &guarded).await {
            Ok(()) => done += chunk.len(),
            Err(DriverError::Refused { .. }) => {
                refused.extend(apart(unit, &commands[done..], guard.as_ref(), style).await?);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    remove_partitions(unit, &objects, seen, style).await;
    if refused.is_empty() {
        return Ok(());
    }
    Err(DriverError::RefusedInPart { device: unit.url.clone(), reasons: refused })
}

/// The same, partition by partition.
async fn apart(
    unit: &Unit,
    commands: &[Command],
    guard: Option<&Command>,
    style: &Style,
) -> Result<Refused, DriverError> {
    let mut left: BTreeMap<&str, Vec<Command>> = BTreeMap::new();
    for command in commands {
        left.entry(command.key().partition.as_str()).or_default().push(command.clone());
    }
    let home = style.home();
    if let Some(version) = left.remove(home.as_str()) {
        transact(unit, &version).await?;
    }
    let mut reasons = Refused::new();
    for _ in 0..ROUNDS {
        for (partition, commands) in std::mem::take(&mut left) {
            let project = project(partition, style).to_owned();
            let chunks = commands.chunks(CHUNK).map(|chunk| guard.into_iter().chain(chunk).cloned());
            let mut refused = None;
            for (number, chunk) in chunks.enumerate() {
                match transact(unit, &chunk.collect::<Vec<_>>()).await {
                    Ok(()) => {}
                    Err(DriverError::Refused { reason, .. }) => {
                        refused = Some((number, reason));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            reasons.remove(&project);
            if let Some((number, reason)) = refused {
                reasons.insert(project, reason);
                left.insert(partition, commands.into_iter().skip(number * CHUNK).collect());
            }
        }
    }
    Ok(reasons)
}

/// Whose a partition is.
fn project<'a>(partition: &'a str, style: &Style) -> &'a str {
    partition.strip_prefix(&style.prefix).unwrap_or(partition)
}

fn partitions(objects: &Objects) -> BTreeSet<&str> {
    objects.keys().map(|key| key.partition.as_str()).collect()
}

/// Partitions are no part of transactions. Without the one that has the version nothing can be written.
async fn make_partitions(
    unit: &Unit,
    wanted: &Objects,
    seen: &Seen,
    style: &Style,
) -> Result<Refused, DriverError> {
    let mut refused = Refused::new();
    for name in partitions(wanted) {
        if seen.partitions.contains(name) {
            continue;
        }
        // one that was made though its answer was lost: the next look says whose it is
        let body = json!({"name": name, "description": partition_mark(name, style)});
        match unit.ask(Request::post("tm/auth/partition", &body)).await {
            Ok(_) => {}
            Err(Failure::Refused(reason)) if name != style.home() => {
                refused.insert(project(name, style).to_owned(), format!("partition {name}: {reason}"));
            }
            Err(failure) => return Err(unit.error(failure)),
        }
    }
    Ok(refused)
}

/// Partitions in which nothing of ours is left. The device keeps those in which others have something.
async fn remove_partitions(unit: &Unit, wanted: &Objects, seen: &Seen, style: &Style) {
    let needed = partitions(wanted);
    for name in seen.partitions.iter().filter(|name| !needed.contains(name.as_str())) {
        if *name == style.home() {
            continue;
        }
        let path = format!("tm/auth/partition/{name}");
        let request = Request { method: "DELETE", ..Request::get(&path) };
        if let Err(failure) = unit.ask(request).await {
            tracing::info!(device = %unit.url, partition = %name, ?failure, "a partition stays");
        }
    }
}
