//! The cage: one pid and mount namespace that holds everything of a lab.
//!
//! Its first process mounts what must not be seen outside and then only reaps. When it is killed, however that
//! happens, the kernel kills everything in the namespace and drops its mounts, named network namespaces and, with the
//! processes that hold them, its loop devices.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::Dirs;
use crate::procs::{self, Process, eventually};
use crate::{cgroup, disk, shell};

/// Tells the processes of a cage that they are in it, and in whose. On a mount that only the cage has.
const MARKER: &str = "/run/systemd/nspawn/ake-lab";
/// Where named network namespaces are.
pub(crate) const NETNS: &str = "/run/netns";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running cage, seen from outside or from within.
#[derive(Debug, Clone)]
pub struct Cage {
    dirs: Dirs,
    /// Its first process, by the number that it has outside; `None` for those who are in the cage.
    first: Option<Process>,
}

fn pid_file(dirs: &Dirs) -> PathBuf {
    dirs.run().join("cage")
}

fn ready_file(state: &Path) -> PathBuf {
    state.join("run/cage.ready")
}

/// Where the lab's own program lies, which its processes re-execute.
pub fn program(dirs: &Dirs) -> PathBuf {
    dirs.state.join("bin/ake-lab")
}

/// Puts the lab's own program, and the files that are laid over a machine's image, into the state directory.
///
/// Copies, so that a build that goes on beside a running lab changes nothing in it.
pub fn install(dirs: &Dirs, ake_lab: &Path) -> Result<()> {
    let target = program(dirs);
    fs::create_dir_all(dirs.state.join("bin"))?;
    let new = target.with_extension("new");
    fs::copy(ake_lab, &new).with_context(|| format!("cannot copy {}", ake_lab.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, &target)?;
    let guest = guest(dirs);
    let _ = fs::remove_dir_all(&guest);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");
    // Owner and modes are not those of the checkout: in a machine these are root's files, for all to read.
    shell::run(Command::new("cp").args(["-r", "--no-dereference", source]).arg(&guest))?;
    shell::run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&guest))?;
    Ok(())
}

/// The topmost read-only layer of every machine.
pub(crate) fn guest(dirs: &Dirs) -> PathBuf {
    dirs.state.join("guest")
}

impl Cage {
    /// Makes the cage of a lab that has none.
    pub fn create(dirs: &Dirs) -> Result<Self> {
        if Self::attach(dirs)?.is_some() {
            bail!("the lab {:?} is running", dirs.name);
        }
        if !program(dirs).exists() {
            install(dirs, &std::env::current_exe()?)?;
        }
        fs::create_dir_all(dirs.run())?;
        fs::create_dir_all(dirs.log())?;
        let ready = ready_file(&dirs.state);
        let _ = fs::remove_file(&ready);
        let log = dirs.log().join("cage.log");
        // A session of its own, or the terminal's interrupt would end the lab.
        let mut parent = Command::new("setsid")
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--"])
            .arg(program(dirs))
            .args(["internal", "cage-init"])
            .arg(&dirs.state)
            .env_clear()
            .envs(environment(dirs))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start setsid (util-linux)")?;
        let mut ended = None;
        eventually(Duration::from_secs(120), || {
            ended = parent.try_wait().ok().flatten();
            ended.is_some() || ready.exists()
        });
        if ended.is_some() || !ready.exists() {
            let _ = parent.kill();
            let why = fs::read_to_string(&log).unwrap_or_default();
            bail!("the lab's first process did not come up: {}", why.trim());
        }
        let first = procs::inits_below(parent.id() as i32)
            .first()
            .and_then(|&pid| Process::of(pid))
            .context("the lab's first process is gone")?;
        first.write(&pid_file(dirs))?;
        Ok(Self { dirs: dirs.clone(), first: Some(first) })
    }

    /// The cage of a running lab, from outside or, in the lab's own processes, from within.
    pub fn attach(dirs: &Dirs) -> Result<Option<Self>> {
        if fs::read(MARKER).is_ok_and(|state| state == dirs.state.as_os_str().as_encoded_bytes()) {
            return Ok(Some(Self { dirs: dirs.clone(), first: None }));
        }
        let first = Process::read(&pid_file(dirs)).filter(Process::alive);
        Ok(first.map(|first| Self { dirs: dirs.clone(), first: Some(first) }))
    }

    /// As [`Cage::attach`]; a lab that is not running is an error.
    pub fn running(dirs: &Dirs) -> Result<Self> {
        Self::attach(dirs)?.with_context(|| format!("the lab {:?} is not running", dirs.name))
    }

    /// The directories of the lab.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// The number of its first process, as the caller sees it.
    pub fn pid(&self) -> i32 {
        self.first.map_or(1, |first| first.pid)
    }

    /// The file of one of its network namespaces, for those outside too.
    pub fn netns_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{NETNS}/{name}", self.pid()))
    }

    /// A command that runs in the cage and, if one is named, in one of its network namespaces.
    ///
    /// It keeps the working directory and gets the lab's environment. Who kills the child kills the program.
    pub fn command(&self, netns: Option<&str>, program: impl AsRef<OsStr>) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        let mut say = |list: &[&str]| words.extend(list.iter().map(OsString::from));
        if let Some(first) = self.first {
            say(&["nsenter", "--target", &first.pid.to_string(), "--mount", "--pid"]);
            let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
            say(&[&format!("--wdns={}", here.display()), "--", "setpriv", "--pdeathsig", "KILL", "--"]);
        }
        if let Some(netns) = netns {
            // A second step, because the file of a namespace is looked for before the first one is taken.
            say(&["nsenter", &format!("--net={NETNS}/{netns}"), "--"]);
        }
        words.push(program.as_ref().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(environment(&self.dirs));
        command
    }

    /// The lab's own program, in the cage, at one of its hidden commands.
    pub(crate) fn internal(&self, netns: Option<&str>, verb: &str) -> Command {
        let mut command = self.command(netns, program(&self.dirs));
        command.args(["internal", verb]);
        command
    }
}

/// The environment of everything in the cage.
fn environment(dirs: &Dirs) -> Vec<(&'static str, OsString)> {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).as_os_str().to_owned();
    vec![
        ("PATH", OsString::from(PATH)),
        ("HOME", std::env::var_os("HOME").unwrap_or_else(|| OsString::from("/root"))),
        ("LANG", OsString::from("C.UTF-8")),
        ("AKE_LAB_NAME", OsString::from(&dirs.name)),
        ("AKE_LAB_HOME", parent(&dirs.state)),
        ("AKE_LAB_STATE", dirs.state.as_os_str().to_owned()),
        ("XDG_CACHE_HOME", parent(&dirs.cache)),
    ]
}

/// Ends the lab and removes what the kernel does not remove by itself. Right at any time, also after a crash.
pub fn destroy(dirs: &Dirs) -> Result<()> {
    let mut first: Vec<Process> = Process::read(&pid_file(dirs)).filter(Process::alive).into_iter().collect();
    // One whose starter was killed before it could note it down.
    let state = dirs.state.to_string_lossy();
    for pid in procs::parents().into_keys() {
        let words = procs::words(pid);
        let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
        if words.ends_with(&["internal", "cage-init", state.as_ref()]) {
            first.extend(Process::of(pid));
        }
    }
    for process in first {
        process.kill()?;
    }
    cgroup::remove_lab(&cgroup::folder(dirs))?;
    disk::release_below(&dirs.state)?;
    for rest in [dirs.state.join("machines"), dirs.run()] {
        // A mount of the dying ends a moment after its last process.
        let gone = eventually(Duration::from_secs(60), || {
            fs::remove_dir_all(&rest).map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |()| true)
        });
        if !gone {
            bail!("{} cannot be removed", rest.display());
        }
    }
    Ok(())
}

/// What the first process of the cage does.
pub(crate) fn init(state: &Path) -> Result<()> {
    // What ends is reaped on a signal; blocked, so that none is missed between two looks.
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    for dir in [NETNS, "/run/systemd/nspawn"] {
        fs::create_dir_all(dir)?;
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("cannot mount {dir}"))?;
    }
    fs::write(MARKER, state.as_os_str().as_encoded_bytes())?;
    fs::write(ready_file(state), "")?;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        children.wait()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_over_the_image_has_its_reason_in_the_reference() {
        let page = include_str!("../../../docs/reference/stand-ins.md");
        let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");
        let files =
            shell::run(Command::new("find").current_dir(guest).args([".", "!", "-type", "d"])).unwrap();
        assert!(files.contains("./usr/lib/ake-lab/guest"));
        for file in files.lines().map(|line| line.trim_start_matches("./")) {
            let name = file.rsplit('/').next().unwrap();
            let group = file.find("systemd-udev").map(|at| format!("{}systemd-udev*", &file[..at]));
            let named = page.contains(file) || page.contains(&format!("`{name}`"));
            assert!(
                named || group.is_some_and(|group| page.contains(&group)) || file.contains(".wants/"),
                "{file}"
            );
        }
    }

    #[test]
    fn what_masks_or_wants_a_unit_is_a_link() {
        let units = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/guest/etc/systemd/system"));
        assert_eq!(fs::read_link(units.join("systemd-udevd.service")).unwrap(), Path::new("/dev/null"));
        assert!(units.join("basic.target.wants/ake-lab-guest.service").is_symlink());
    }
}
