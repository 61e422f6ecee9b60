//! Machines: what stands in for a hypervisor.
//!
//! A machine is the image that the operator uploaded, as read-only layers with a writable one of its own over them,
//! booted by systemd-nspawn in network, pid, mount, ipc, uts and cgroup namespaces of its own. It begins and ends
//! inside the cage, at Nova's word ([`crate::hook`]).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::Dirs;
use crate::cage::Cage;
use crate::network::Card;
use crate::procs::{self, Process, eventually, replace};
use crate::{cgroup, disk, shell};

pub mod boot;

/// How long a machine may take to shut down before its plug is pulled.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// How long a machine may take until its first process runs.
const START: Duration = Duration::from_secs(240);

/// What is known of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The server's id in Nova.
    pub id: String,
    /// The server's name in Nova.
    pub name: String,
    /// The host name that Nova made of it.
    pub hostname: String,
    /// The project it belongs to.
    pub project: String,
    /// Nova's directory of the instance: the config drive and the console's log are there.
    pub dir: PathBuf,
    /// The layers of the image, topmost first.
    pub layers: Vec<PathBuf>,
    /// Its network cards.
    pub cards: Vec<Card>,
}

impl Record {
    /// Where its console goes.
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, project {})", self.name, self.id, self.project)
    }
}

/// Where a machine keeps its things.
pub(crate) fn home(dirs: &Dirs, id: &str) -> PathBuf {
    dirs.state.join("machines").join(id)
}

fn supervisor_file(dirs: &Dirs, id: &str) -> PathBuf {
    home(dirs, id).join("supervisor")
}

/// Every machine of the lab, running or not.
pub fn list(dirs: &Dirs) -> Result<Vec<Record>> {
    let Ok(entries) = fs::read_dir(dirs.state.join("machines")) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if let Ok(text) = fs::read(entry.path().join("machine.json")) {
            found.push(serde_json::from_slice(&text).with_context(|| entry.path().display().to_string())?);
        }
    }
    found.sort_by(|a: &Record, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(found)
}

/// The machine of a server, by its id or its name.
pub fn find(dirs: &Dirs, server: &str) -> Result<Record> {
    let all = list(dirs)?;
    choose(&all, server).cloned()
}

fn choose<'a>(all: &'a [Record], server: &str) -> Result<&'a Record> {
    let found: Vec<&Record> = all.iter().filter(|m| m.id == server || m.name == server).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
            bail!("no server {server:?} in this lab; there are: {}", names.join(", "))
        }
        several => {
            let ids: Vec<String> =
                several.iter().map(|m| format!("{} (project {})", m.id, m.project)).collect();
            bail!("several servers are called {server:?}, say which by its id: {}", ids.join(", "))
        }
    }
}

/// The file that holds what a machine printed on its console.
pub fn console(dirs: &Dirs, server: &str) -> Result<PathBuf> {
    Ok(find(dirs, server)?.console())
}

/// Makes the disks of a machine that is new.
pub(crate) fn create(dirs: &Dirs, record: &Record) -> Result<()> {
    let home = home(dirs, &record.id);
    for dir in ["upper", "work", "root", "disk/kubelet", "disk/etcd"] {
        fs::create_dir_all(home.join(dir))?;
    }
    fs::set_permissions(home.join("disk/etcd"), fs::Permissions::from_mode(0o700))?;
    let containerd = home.join("disk/containerd");
    if !containerd.exists() {
        link_containerd(&record.layers, &containerd)?;
    }
    save(dirs, record)
}

pub(crate) fn save(dirs: &Dirs, record: &Record) -> Result<()> {
    replace(&home(dirs, &record.id).join("machine.json"), &serde_json::to_vec_pretty(record)?)
}

/// Containerd's state lies outside of the overlay, because one overlay cannot be the upper layer of another. Its blobs
/// and unpacked layers are never written to, so links to the image's do; its databases are copied.
fn link_containerd(layers: &[PathBuf], target: &Path) -> Result<()> {
    let Some(source) = layers.iter().map(|layer| layer.join("var/lib/containerd")).find(|dir| dir.is_dir())
    else {
        return Ok(fs::create_dir_all(target)?);
    };
    // Made under another name, so that one that is there is whole.
    let new = target.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    if shell::run(Command::new("cp").arg("-al").arg(&source).arg(&new)).is_err() {
        let _ = fs::remove_dir_all(&new);
        shell::run(Command::new("cp").arg("-a").arg(&source).arg(&new))
            .context("the image's container images")?;
    }
    let databases = shell::run(Command::new("find").arg(&new).args(["-type", "f", "-name", "*.db"]))?;
    for database in databases.lines().map(Path::new) {
        let copy = database.with_extension("copy");
        fs::copy(database, &copy)?;
        fs::rename(&copy, database)?;
    }
    Ok(fs::rename(&new, target)?)
}

/// Starts a machine that does not run; returns when its first process does.
pub(crate) fn start(cage: &Cage, record: &Record) -> Result<()> {
    let dirs = cage.dirs();
    if running(dirs, &record.id).is_some() {
        return Ok(());
    }
    let console = OpenOptions::new().create(true).append(true).open(record.console())?;
    // The pid namespace around nspawn is what ends the machine: nspawn that is killed leaves its own running. Mounts
    // of the cage come and go here too, so that no network namespace is held by a machine that does not use it.
    let supervisor = cage
        .command(None, "setsid")
        .args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "slave",
        ])
        .arg("--")
        .arg(crate::cage::program(dirs))
        .args(["internal", "machine", &record.id])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .context("cannot start setsid (util-linux)")?;
    let supervisor = Process::of(supervisor.id() as i32).context("the machine ended at once")?;
    supervisor.write(&supervisor_file(dirs, &record.id))?;
    let up = eventually(START, || !supervisor.alive() || leader_below(supervisor).is_some());
    if !up || !supervisor.alive() {
        supervisor.kill()?;
        let console = fs::read_to_string(record.console()).unwrap_or_default();
        let last = console.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
        bail!("the machine of server {} did not start: {last}", record.name);
    }
    Ok(())
}

/// The supervisor of a machine that runs.
pub(crate) fn running(dirs: &Dirs, id: &str) -> Option<Process> {
    Process::read(&supervisor_file(dirs, id)).filter(Process::alive)
}

/// PID 1 of a machine, as the cage numbers it. The supervisor's own namespace is the outer one.
fn leader_below(supervisor: Process) -> Option<i32> {
    procs::inits_below(supervisor.pid).get(1).copied()
}

/// PID 1 of a machine; only for those who are in the cage.
pub(crate) fn leader_of(dirs: &Dirs, id: &str) -> Option<i32> {
    leader_below(running(dirs, id)?)
}

/// As [`leader_of`], by name too, and with a reason when there is none.
pub(crate) fn leader_here(dirs: &Dirs, server: &str) -> Result<i32> {
    let record = find(dirs, server)?;
    leader_of(dirs, &record.id).with_context(|| format!("server {} is not running", record.name))
}

/// PID 1 of a server's machine, as the cage numbers it.
pub fn leader(cage: &Cage, server: &str) -> Result<i32> {
    Ok(shell::run(cage.internal(None, "leader").arg(server))?.trim().parse()?)
}

/// Shuts a machine down, and pulls its plug when that takes too long or `grace` is not wanted.
pub(crate) fn stop(dirs: &Dirs, id: &str, grace: bool) -> Result<()> {
    let Some(supervisor) = running(dirs, id) else { return Ok(()) };
    if grace && let Some(leader) = leader_below(supervisor) {
        // Nspawn passes a termination on as the wish to halt.
        let nspawn = procs::parents().get(&leader).copied().and_then(Process::of);
        nspawn.inspect(|nspawn| nspawn.signal(Signal::SIGTERM));
        supervisor.wait_gone(SHUTDOWN);
    }
    supervisor.kill()
}

/// Ends a machine and forgets its disks.
pub(crate) fn remove(dirs: &Dirs, id: &str) -> Result<()> {
    stop(dirs, id, false)?;
    disk::detach_all(dirs, id)?;
    cgroup::remove_machine(&cgroup::folder(dirs), id)?;
    let home = home(dirs, id);
    let gone = eventually(Duration::from_secs(60), || {
        fs::remove_dir_all(&home).map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |()| true)
    });
    if !gone {
        bail!("{} cannot be removed", home.display());
    }
    Ok(())
}

/// Becomes a command inside a machine.
pub(crate) fn enter(dirs: &Dirs, server: &str, command: &[&str]) -> Result<()> {
    let leader = leader_here(dirs, server)?;
    let mut enter = Command::new("nsenter");
    enter.args([
        "--target",
        &leader.to_string(),
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--cgroup",
        "--",
    ]);
    // Who goes away takes the command along.
    enter.args(["setpriv", "--pdeathsig", "KILL", "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8"]);
    enter.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    enter.arg(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned())));
    enter.args(if command.is_empty() { &["bash", "-l"] } else { command });
    Err(enter.exec()).context("cannot start nsenter (util-linux)")
}

/// A command inside the machine of a server, as root of it.
pub fn command(cage: &Cage, server: &str) -> Command {
    let mut command = cage.internal(None, "enter");
    if let Some(term) = std::env::var_os("TERM") {
        command.env("TERM", term);
    }
    command.arg(server);
    command
}

/// Runs a command inside the machine of a server, with the caller's own standard streams; a shell if there is none.
pub fn exec(cage: &Cage, server: &str, words: &[String]) -> Result<ExitStatus> {
    find(cage.dirs(), server)?;
    Ok(command(cage, server).args(words).status()?)
}

/// Runs a command inside the machine of a server and gives what it printed, whatever its end.
pub fn output(cage: &Cage, server: &str, words: &[String]) -> Result<Output> {
    find(cage.dirs(), server)?;
    shell::output(command(cage, server).args(words))
}

/// The layers of an image directory, topmost first.
pub(crate) fn layers(image: &Path) -> Result<Vec<PathBuf>> {
    let file = image.join("layers");
    let text =
        fs::read_to_string(&file).with_context(|| format!("the image cannot be read: {}", file.display()))?;
    let layers: Vec<PathBuf> = text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect();
    if layers.is_empty() {
        bail!("{}: names no layer", file.display());
    }
    for layer in &layers {
        File::open(layer).with_context(|| format!("the image's layer {} cannot be read", layer.display()))?;
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, name: &str) -> Record {
        Record {
            id: id.to_owned(),
            name: name.to_owned(),
            hostname: name.to_owned(),
            project: "p".to_owned(),
            dir: PathBuf::from("/dir"),
            layers: vec![],
            cards: vec![],
        }
    }

    #[test]
    fn a_server_is_found_by_id_or_by_a_name_that_only_it_has() {
        let all = [record("1", "demo-worker-0"), record("2", "demo-worker-0"), record("3", "demo-master-0")];
        assert_eq!(choose(&all, "3").unwrap().id, "3");
        assert_eq!(choose(&all, "demo-master-0").unwrap().id, "3");
        let several = choose(&all, "demo-worker-0").unwrap_err().to_string();
        assert!(several.contains("1 (project p), 2 (project p)"), "{several}");
        let none = choose(&all, "demo-master").unwrap_err().to_string();
        assert!(none.contains("demo-master-0"), "{none}");
    }
}
