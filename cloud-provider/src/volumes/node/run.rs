//! Running the programs that know file systems.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use tokio::process::Command;

/// Longest time that a program may take; making a large ext4 is what takes longest.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a program left behind.
#[derive(Debug)]
pub(super) struct Output {
    /// Its status; none if a signal ended it.
    pub(super) code: Option<i32>,
    /// What it printed.
    pub(super) stdout: String,
    /// What it complained of.
    pub(super) stderr: String,
}

/// Why a program was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{program}: {reason} (expected it on the node)")]
    Missing { program: String, reason: String },
    #[error("{program} took longer than {} s", DEADLINE.as_secs())]
    TooSlow { program: String },
    #[error("{program} ended with {code}: {said}")]
    Failed { program: String, code: String, said: String },
}

/// Runs a program to its end.
pub(super) async fn run(program: &str, arguments: &[&OsStr]) -> Result<Output, RunError> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(DEADLINE, child).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(RunError::Missing { program: program.to_owned(), reason: e.to_string() }),
        Err(_) => return Err(RunError::TooSlow { program: program.to_owned() }),
    };
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program that has to succeed.
pub(super) async fn succeed(program: &str, arguments: &[&OsStr]) -> Result<(), RunError> {
    tracing::info!(program, ?arguments, "running");
    let output = run(program, arguments).await?;
    if output.code == Some(0) {
        return Ok(());
    }
    let said = if output.stderr.trim().is_empty() { output.stdout.trim() } else { output.stderr.trim() };
    Err(RunError::Failed {
        program: program.to_owned(),
        code: output.code.map_or_else(|| "a signal".to_owned(), |code| format!("status {code}")),
        said: said.replace('\n', "; "),
    })
}
