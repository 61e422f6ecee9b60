//! The supervisor of one machine: the first process of the pid namespace around it.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, waitpid};

use super::{Record, home};
use crate::Dirs;
use crate::cage::{self, NETNS};
use crate::network::namespace;
use crate::procs::{self, eventually};
use crate::{cgroup, disk};

/// Nspawn's exit status when the machine asked for a reboot.
const REBOOT: i32 = 133;

/// Boots the machine, again and again as it wishes, until it is off.
pub(crate) fn supervise(dirs: &Dirs, id: &str) -> Result<ExitCode> {
    let home = home(dirs, id);
    let record: Record = serde_json::from_slice(&fs::read(home.join("machine.json"))?)?;
    cgroup::enter(&cgroup::folder(dirs), id)?;
    mount_root(dirs, &record, &home)?;
    loop {
        let nspawn =
            nspawn(&record, &home).spawn().context("cannot start systemd-nspawn (systemd-container)")?;
        let nspawn = nspawn.id() as i32;
        // /dev is made anew at each boot.
        let mut leader = None;
        eventually(Duration::from_secs(120), || {
            leader = procs::inits_below(nspawn).first().copied();
            leader.is_some() || !procs::parents().contains_key(&nspawn)
        });
        if let Some(leader) = leader {
            disk::show_all(dirs, id, leader)?;
        }
        match reap_until(nspawn)? {
            REBOOT => println!("-- reboot --"),
            0 => return Ok(ExitCode::SUCCESS),
            other => {
                println!("systemd-nspawn ended with status {other}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}

/// The machine's root: its own layer, the lab's, and those of the image.
fn mount_root(dirs: &Dirs, record: &Record, home: &Path) -> Result<()> {
    let guest = cage::guest(dirs);
    let lower: Vec<String> =
        std::iter::once(&guest).chain(&record.layers).map(|layer| layer.display().to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        home.join("upper").display(),
        home.join("work").display()
    );
    mount(Some("overlay"), &home.join("root"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("cannot mount the root of server {}: {options}", record.name))
}

fn nspawn(record: &Record, home: &Path) -> Command {
    let bind = |source: &Path, target: &str| format!("--bind={}:{target}", source.display());
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn
        // "network": all of /sys and of /proc/sys but net is read-only. So networkd configures links without udev, and
        // udev stays off.
        .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
        .args([
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--console=read-only",
        ])
        .args(["--resolv-conf=off", "--timezone=off", "--capability=all"])
        // What kubelet and containerd call beyond nspawn's own list.
        .args(["--system-call-filter=@keyring bpf", "--bind=/dev/kmsg", "--bind=/dev/fuse"])
        .arg("--directory")
        .arg(home.join("root"))
        .arg(format!("--machine={}", record.id))
        .arg(format!("--hostname={}", record.hostname))
        .arg(format!("--uuid={}", record.id))
        .arg(format!("--network-namespace-path={NETNS}/{}", namespace(&record.id)));
    for dir in ["containerd", "kubelet", "etcd"] {
        nspawn.arg(bind(&home.join("disk").join(dir), &format!("/var/lib/{dir}")));
    }
    let drive = record.dir.join("config-drive");
    nspawn.arg(format!("--bind-ro={}:/var/lib/cloud/seed/config_drive", drive.display()));
    nspawn
}

/// Waits for the end of one child, and of whatever else becomes ours to wait for; the child's status.
fn reap_until(child: i32) -> Result<i32> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                return Ok(128 + signal as i32);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
