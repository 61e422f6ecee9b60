//! Processes: who they are, whose children they are, and running one to its end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::shell;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, in the pid namespace of whoever noted it down.
    pub pid: i32,
    /// When it was started, in clock ticks since the computer was.
    pub started: u64,
}

/// What `/proc/PID/stat` says, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is a name in parentheses and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, started })
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

impl Process {
    /// The process that has this number now; `None` when there is none, or only its remains.
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).filter(|s| !matches!(s.state, 'Z' | 'X')).map(|s| Self { pid, started: s.started })
    }

    /// Reads one that [`Process::write`] wrote; `None` when there is no such file.
    pub fn read(file: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
    }

    /// Notes it down in a file.
    pub fn write(&self, file: &Path) -> Result<()> {
        replace(file, &serde_json::to_vec(self)?)
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }

    /// Sends it a signal, unless it has gone.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it is gone; whether it went in time.
    pub fn wait_gone(&self, within: Duration) -> bool {
        eventually(within, || !self.alive())
    }

    /// Kills it and waits for its end.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL);
        if !self.wait_gone(Duration::from_secs(60)) {
            bail!("process {} is still there 20 s after SIGKILL", self.pid);
        }
        Ok(())
    }
}

/// Asks again and again whether something is so, until it is or time is up.
pub fn eventually(within: Duration, mut so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if so() {
            return true;
        }
        if start.elapsed() >= within {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Every process that is seen here, with its parent.
pub fn parents() -> BTreeMap<i32, i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect()
}

/// Whether `pid` descends from `ancestor`.
pub fn descends(parents: &BTreeMap<i32, i32>, pid: i32, ancestor: i32) -> bool {
    let mut at = pid;
    while let Some(&parent) = parents.get(&at) {
        if parent == ancestor {
            return true;
        }
        at = parent;
    }
    false
}

/// The processes below `ancestor` that are the first of a pid namespace, outermost first.
pub fn inits_below(ancestor: i32) -> Vec<i32> {
    let parents = parents();
    let mut found: Vec<(usize, i32)> = parents
        .keys()
        .filter(|&&pid| descends(&parents, pid, ancestor))
        .filter_map(|&pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let numbers: Vec<&str> =
                status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().collect();
            (numbers.len() > 1 && numbers.last() == Some(&"1")).then_some((numbers.len(), pid))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}

/// The words of a process's command line.
pub fn words(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Runs a command to its end with text on its standard input, and gives what it printed.
pub fn output_of(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shell::line(command)))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends early says why itself.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}: {}", shell::line(command), output.status, shell::said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a file so that a reader sees the old content or the new, never a part.
pub fn replace(file: &Path, content: &[u8]) -> Result<()> {
    let new = file.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_fields() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 20";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', parent: 7, started: 98765 }));
        assert_eq!(parse_stat("42 (short) S 7"), None);
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Process::of(std::process::id() as i32).unwrap();
        assert!(own.alive());
        assert!(!Process { started: own.started + 1, ..own }.alive());
    }

    #[test]
    fn the_remains_of_a_process_are_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        assert!(descends(&parents(), process.pid, std::process::id() as i32));
        process.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn text_goes_in_and_out_and_a_failure_says_why() {
        assert_eq!(output_of(&mut Command::new("cat"), "text").unwrap(), "text");
        let error =
            output_of(Command::new("sh").args(["-c", "cat >&2; exit 3"]), "why").unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.ends_with("why"), "{error}");
    }
}
