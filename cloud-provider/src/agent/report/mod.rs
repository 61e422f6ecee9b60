//! `ake-node-agent report`: tells the stack, once, how the first start of this node went.

mod checks;
mod signal;
mod units;

use std::{path::PathBuf, time::Duration};

use tokio::{process::Command, time::Instant};

use super::{
    config::{self, NodeConfig, Signal},
    files::{self, File},
};
use units::Verdict;

/// Written when the stack knows; a later boot reports nothing.
pub const DONE: &str = "/var/lib/ake/reported";

/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(500);

/// How often what is missing is logged, at most.
const TELL: Duration = Duration::from_secs(10);

/// How long the signal is tried.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(120);

/// How much of the journal goes into a FAILURE.
const JOURNAL: usize = 2048;

/// Why there was no report, or which failure was reported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration tells not where to report to.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The stack could not be told.
    #[error(transparent)]
    Signal(#[from] signal::Error),
    /// The mark of a report could not be written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The node did not come up, and the stack knows.
    #[error("reported FAILURE: {0}")]
    Failed(String),
}

/// What is looked at, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that all paths are below of.
    pub root: PathBuf,
    /// How long the node may take to come up.
    pub deadline: Duration,
}

/// Waits and reports.
pub async fn run(options: &Options) -> Result<(), Error> {
    let path = options.root.join(config::PATH.trim_start_matches('/'));
    let (name, signal, ca) = config::signal(&path)?;
    let outcome = wait(options, &path).await;
    let (status, reason) = match &outcome {
        Ok(()) => ("SUCCESS", format!("{name} is up")),
        Err(why) => ("FAILURE", format!("{name}: {why}\n{}", journal().await)),
    };
    tracing::info!(status, "{reason}");
    tell(options, &name, &signal, ca, status, &reason).await?;
    files::write(&options.root, &File::public(DONE, status))?;
    outcome.map_err(Error::Failed)
}

async fn tell(
    options: &Options,
    name: &str,
    signal: &Signal,
    ca: Option<String>,
    status: &str,
    reason: &str,
) -> Result<(), signal::Error> {
    // A master also knows the CA of the cloud's endpoints.
    let cloud = std::fs::read_to_string(options.root.join("etc/ake/cloud-ca.pem")).ok();
    let trusted: Vec<_> = ca.into_iter().chain(cloud).filter(|pem| !pem.trim().is_empty()).collect();
    signal::send(signal, &trusted, &signal::Report { status, reason, id: name, data: "" }, SIGNAL_DEADLINE)
        .await
}

/// Ok when the node's work is up; else what was missing, in words.
async fn wait(options: &Options, path: &std::path::Path) -> Result<(), String> {
    let config = NodeConfig::read(path).map_err(|error| error.to_string())?;
    let end = Instant::now() + options.deadline;
    let (mut told, mut next) = (String::new(), Instant::now());
    loop {
        let missing = match units::verdict(units::of_role(config.role)).await {
            Verdict::Broken(why) => return Err(why),
            Verdict::Waiting(what) => what,
            Verdict::Up => match checks::all(&config, &options.root).await {
                Ok(()) => return Ok(()),
                Err(what) => what,
            },
        };
        if missing != told && Instant::now() >= next {
            tracing::info!("waiting: {missing}");
            told.clone_from(&missing);
            next = Instant::now() + TELL;
        }
        if Instant::now() >= end {
            return Err(format!("not up within {} s: {missing}", options.deadline.as_secs()));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// The end of what this boot's journal says of warnings and of failed units.
async fn journal() -> String {
    let failed =
        output("systemctl", &["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]).await;
    let units: Vec<_> = failed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(|unit| format!("--unit={unit}"))
        .collect();
    let mut own = vec!["--boot", "--no-pager", "--output=cat", "--lines=12"];
    own.extend(units.iter().map(String::as_str));
    let of_failed = if units.is_empty() { String::new() } else { output("journalctl", &own).await };
    let warnings = output(
        "journalctl",
        &["--boot", "--no-pager", "--priority=warning", "--output=short", "--no-hostname", "--lines=30"],
    )
    .await;
    tail(&format!("{warnings}{of_failed}"), JOURNAL).to_owned()
}

async fn output(program: &str, arguments: &[&str]) -> String {
    let command =
        Command::new(program).args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(Duration::from_secs(20), command).await {
        Ok(Ok(done)) => String::from_utf8_lossy(&done.stdout).into_owned(),
        Ok(Err(error)) => format!("({program}: {error})\n"),
        Err(_) => format!("({program}: no answer)\n"),
    }
}

/// The last bytes of a text, from the beginning of a line.
fn tail(text: &str, limit: usize) -> &str {
    let text = text.trim_end();
    if text.len() <= limit {
        return text;
    }
    let from = text.len() - limit;
    match text.as_bytes()[from..].iter().position(|byte| *byte == b'\n') {
        Some(line) => &text[from + line + 1..],
        None => text.get(from..).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_journal_begins_with_a_line() {
        assert_eq!(tail("one\ntwo\nthree\n", 9), "three");
        assert_eq!(tail("one\n", 10), "one");
        assert_eq!(tail("äöü", 3), "");
    }
}
