//! The switch: what Neutron's port security and security groups say, enforced on the provider network's bridge.
//!
//! Neutron tells the whole table of ports and groups; one transaction of nftables puts it in place.

pub mod render;
pub mod table;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

use crate::Dirs;
use crate::cage::Cage;
use crate::procs::{output_of, replace};
use crate::shell;

pub use table::{Group, Pair, Port, Rule, Table};

/// Where the table that is in force is kept: the metadata proxy reads it too.
pub fn table_file(dirs: &Dirs) -> PathBuf {
    dirs.run().join("network.json")
}

/// What became of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// A newer one was in force already; nothing was changed.
    Stale,
}

/// The table that is in force.
pub fn current(dirs: &Dirs) -> Result<Table> {
    match fs::read(table_file(dirs)) {
        Ok(text) => serde_json::from_slice(&text).context("the switch's table cannot be read"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Table::default()),
        Err(error) => Err(error).context("the switch's table cannot be read"),
    }
}

/// Puts a table in force, unless a newer one is.
pub fn apply(cage: &Cage, wanted: &Table) -> Result<Outcome> {
    let _lock = lock(cage.dirs())?;
    let now = current(cage.dirs())?;
    if wanted.generation < now.generation {
        return Ok(Outcome::Stale);
    }
    load(cage, &now, wanted)?;
    Ok(Outcome::Applied)
}

/// Puts the empty table in force: only the provider's own hosts may speak.
pub(crate) fn reset(cage: &Cage) -> Result<()> {
    let _lock = lock(cage.dirs())?;
    load(cage, &current(cage.dirs())?, &Table::default())
}

fn load(cage: &Cage, now: &Table, wanted: &Table) -> Result<()> {
    let before: BTreeSet<String> = now.ports.iter().map(Port::tap).collect();
    let text = render::render(&before, wanted)?;
    output_of(cage.command(Some("switch"), "nft").args(["-f", "-"]), &text)
        .context("the switch refused its rules")?;
    replace(&table_file(cage.dirs()), &serde_json::to_vec_pretty(wanted)?)
}

fn lock(dirs: &Dirs) -> Result<Flock<File>> {
    let path = dirs.run().join("network.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow!("cannot lock {}: {errno}", path.display()))
}

/// Why the switch dropped a frame of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// Its source was not the port's own, nor an allowed address pair.
    Spoof,
    /// No security group lets the port send it.
    Egress,
    /// No security group lets the port receive it.
    Ingress,
}

impl Drop {
    pub(crate) fn counter(self, tap: &str) -> String {
        let kind = match self {
            Self::Spoof => "spoof",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        };
        format!("{kind}-{tap}")
    }
}

/// How many frames of a Neutron port were dropped so far, and for this reason.
pub fn dropped(cage: &Cage, port: &str, why: Drop) -> Result<u64> {
    let counter = why.counter(&crate::network::tap(port));
    let text = shell::run(cage.command(Some("switch"), "nft").args([
        "list",
        "counter",
        "bridge",
        render::TABLE,
        &counter,
    ]))?;
    let mut words = text.split_whitespace().skip_while(|&word| word != "packets");
    words.nth(1).and_then(|n| n.parse().ok()).with_context(|| format!("no number in {text:?}"))
}
