//! A cage with the lab's network and nothing else, for one test.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // each test uses its own part; a failure is the test's

pub(crate) mod server;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ake_lab::balancers::Balancers;
use ake_lab::cage::{self, Cage};
use ake_lab::{Dirs, network, shell};
use serde_json::Value;
use tempfile::TempDir;

/// A cage that ends with the test, however that ends.
pub(crate) struct Lab {
    pub(crate) cage: Cage,
    pub(crate) dirs: Dirs,
    _home: TempDir,
}

impl Lab {
    /// The cage alone.
    pub(crate) fn empty(name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("ake-lab-test-").tempdir_in("/var/tmp").unwrap();
        let dirs = Dirs::in_dirs(name, home.path(), &home.path().join("cache/ake")).unwrap();
        cage::destroy(&dirs).unwrap();
        cage::install(&dirs, Path::new(env!("CARGO_BIN_EXE_ake-lab"))).unwrap();
        let cage = Cage::create(&dirs).unwrap();
        Self { cage, dirs, _home: home }
    }

    /// The cage and the network.
    pub(crate) fn up(name: &str) -> Self {
        let lab = Self::empty(name);
        network::up(&lab.cage, Balancers::One).unwrap();
        lab
    }

    /// Runs a shell command in a network namespace of the lab.
    pub(crate) fn sh(&self, netns: &str, command: &str) -> Output {
        self.cage.command(Some(netns), "sh").args(["-c", command]).stdin(Stdio::null()).output().unwrap()
    }

    /// As [`Lab::sh`]; a failure fails the test.
    pub(crate) fn must(&self, netns: &str, command: &str) -> String {
        let output = self.sh(netns, command);
        assert!(output.status.success(), "{netns}: {command}: {}", shell::said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether a shell command succeeds.
    pub(crate) fn works(&self, netns: &str, command: &str) -> bool {
        self.sh(netns, command).status.success()
    }

    /// Starts a shell command that serves until the guard is dropped.
    pub(crate) fn serve(&self, netns: &str, command: &str) -> Guard {
        let mut shell = self.cage.command(Some(netns), "sh");
        let child = shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(Stdio::null());
        Guard(child.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Tells the lab an event as Nova and Neutron do; `Err` is the last line of standard error.
    pub(crate) fn hook(&self, event: &str, document: &Value) -> Result<(), String> {
        let mut hook = self.cage.command(Some("control"), cage::program(&self.dirs));
        let mut child =
            hook.args(["hook", event]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said.lines().last().unwrap_or_default().to_owned()) }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = cage::destroy(&self.dirs) {
            eprintln!("the cage did not end well: {error:#}");
        }
    }
}

/// A program that runs until it is dropped.
pub(crate) struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, seconds: u64, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A file beside the tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// What a command prints, on the machine itself.
pub(crate) fn here(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
