//! What the demo, the tests and the benchmarks share: a tenant's steps, traffic, and a table of proofs.

pub mod apart;
pub mod api;
pub mod balancers;
pub mod cluster;
pub mod flows;
mod inventory;
pub mod load;
pub mod many;
pub mod measure;
pub mod packets;
pub mod page;
pub mod proofs;
pub mod report;
pub mod scale;
pub mod stacks;
pub mod tenant;
pub mod traffic;
pub mod upstream;
pub mod walk;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The checkout that this was built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The lab that `AKE_LAB` names, which must run.
pub fn lab_of_this_run() -> Result<ake_lab::Lab> {
    let name = std::env::var("AKE_LAB").context("AKE_LAB names no lab: scenarios are run by `make test`")?;
    ake_lab::Lab::attach(&name)
        .with_context(|| format!("lab {name} does not run: scenarios are run by `make test`"))
}

/// Runs a command; what it printed, or an error that ends with what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let out = raw(command)?;
    if !out.status.success() {
        bail!("{}: {}: {}", shown(command), out.status, complaint(&out));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}

/// Runs a command, whatever it ends with.
pub fn raw(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot run {}", shown(command)))
}

/// The last lines of standard error, or of standard output where that is empty.
#[must_use]
pub fn complaint(out: &Output) -> String {
    let text = if out.stderr.is_empty() { &out.stdout } else { &out.stderr };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A command as a person would have typed it, without the wrappers that lead into the lab.
#[must_use]
pub fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let from = words.iter().rposition(|word| word == "--").map_or(0, |at| at + 1);
    words[from..].join(" ")
}

/// Asks `probe` every so often until it says something; an error that tells what was awaited, and what the
/// last answer was, after `patience`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let answer = probe();
        if let Ok(Some(found)) = answer {
            return Ok(found);
        }
        if Instant::now() > end {
            return match answer {
                Err(error) => Err(error.context(format!("{what}: not within {} s", patience.as_secs()))),
                _ => bail!("{what}: not within {} s", patience.as_secs()),
            };
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}
