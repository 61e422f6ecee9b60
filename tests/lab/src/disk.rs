//! Volumes of a machine, as virtio disks would look: a sparse file behind a loop device.
//!
//! The loop device clears itself when nobody holds it, and a process of the cage does: it goes with the cage, however
//! that ends. In the machine there is a node `/dev/vdX` and the link `/dev/disk/by-id/virtio-<first 20 of the id>`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde::{Deserialize, Serialize};

use crate::Dirs;
use crate::cage::Cage;
use crate::procs::{Process, eventually, replace};
use crate::{machine, shell};

/// Of a loop device.
const LOOP_MAJOR: u64 = 7;
/// How much of a volume's id virtio shows as the serial number.
const SERIAL: usize = 20;

/// The loop device of a volume, and who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    number: u64,
    holder: Process,
}

/// A volume at a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Volume {
    id: String,
    /// `vdb`, `vdc`, and so on.
    name: String,
    held: Held,
}

impl Volume {
    fn link(&self) -> String {
        format!("disk/by-id/virtio-{}", self.id.get(..SERIAL).unwrap_or(&self.id))
    }

    fn device(&self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.held.number))
    }
}

/// The volumes of one machine, locked.
struct Volumes {
    file: PathBuf,
    list: Vec<Volume>,
    _lock: Flock<File>,
}

impl Volumes {
    fn of(dirs: &Dirs, server: &str) -> Result<Self> {
        let home = machine::home(dirs, server);
        let file = home.join("volumes.json");
        let lock = File::create(home.join("volumes.lock"))
            .with_context(|| format!("server {server} has no machine"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| anyhow!("cannot lock the volumes of server {server}: {errno}"))?;
        let list = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file, list, _lock: lock })
    }

    fn save(&self) -> Result<()> {
        replace(&self.file, &serde_json::to_vec_pretty(&self.list)?)
    }

    fn find(&self, id: &str) -> Option<&Volume> {
        self.list.iter().find(|volume| volume.id == id)
    }
}

/// The name for a new disk: the one that Nova wishes, if it is free, else the first that is.
fn choose_name(taken: &[&str], wished: Option<&str>) -> Option<String> {
    let wished = wished.map(|device| device.trim_start_matches("/dev/").to_owned());
    let wished = wished.filter(|name| name.starts_with("vd") && name.len() == 3 && name != "vda");
    wished
        .into_iter()
        .chain(('b'..='z').map(|letter| format!("vd{letter}")))
        .find(|name| !taken.contains(&name.as_str()))
}

/// Attaches the volume `id`, whose data is in `file`; the name that it has in the machine.
pub(crate) fn attach(
    cage: &Cage,
    server: &str,
    id: &str,
    file: &Path,
    wished: Option<&str>,
) -> Result<String> {
    let mut volumes = Volumes::of(cage.dirs(), server)?;
    if let Some(volume) = volumes.find(id)
        && volume.held.holder.alive()
    {
        return Ok(volume.name.clone());
    }
    volumes.list.retain(|volume| volume.id != id);
    let taken: Vec<&str> = volumes.list.iter().map(|volume| volume.name.as_str()).collect();
    let name =
        choose_name(&taken, wished).with_context(|| format!("server {server} has no disk name left"))?;
    let note = volumes.file.with_file_name(format!("volume-{id}"));
    let held = start_holder(cage, file, &note)?;
    let volume = Volume { id: id.to_owned(), name: name.clone(), held };
    let shown = machine::leader_of(cage.dirs(), server).map_or(Ok(()), |leader| show(&volume, leader));
    if shown.is_err() {
        held.holder.signal(Signal::SIGKILL);
    }
    shown?;
    volumes.list.push(volume);
    volumes.save()?;
    Ok(name)
}

fn start_holder(cage: &Cage, file: &Path, note: &Path) -> Result<Held> {
    let _ = fs::remove_file(note);
    let error = note.with_extension("error");
    let mut holder = cage
        .command(None, "setsid")
        .arg(crate::cage::program(cage.dirs()))
        .args(["internal", "disk-hold"])
        .arg(file)
        .arg(note)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&error)?)
        .spawn()
        .context("cannot start setsid (util-linux)")?;
    let mut ended = false;
    eventually(Duration::from_secs(120), || {
        ended = holder.try_wait().is_ok_and(|status| status.is_some());
        ended || note.exists()
    });
    let held = fs::read(note).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let why = fs::read_to_string(&error).unwrap_or_default();
    let _ = (fs::remove_file(note), fs::remove_file(&error));
    if held.is_none() && !ended {
        let _ = holder.kill();
    }
    held.with_context(|| format!("no loop device for {}: {}", file.display(), why.trim()))
}

/// Makes the node and the link of a volume in a running machine.
fn show(volume: &Volume, leader: i32) -> Result<()> {
    let dev = PathBuf::from(format!("/proc/{leader}/root/dev"));
    let (node, link) = (dev.join(&volume.name), dev.join(volume.link()));
    fs::create_dir_all(dev.join("disk/by-id"))?;
    let _ = (fs::remove_file(&node), fs::remove_file(&link));
    let mode = Mode::from_bits_truncate(0o660);
    mknod(&node, SFlag::S_IFBLK, mode, makedev(LOOP_MAJOR, volume.held.number))
        .with_context(|| format!("cannot make /dev/{} in the machine", volume.name))?;
    symlink(format!("../../{}", volume.name), &link)?;
    Ok(())
}

/// Makes the nodes of all volumes of a machine that has just been booted.
pub(crate) fn show_all(dirs: &Dirs, server: &str, leader: i32) -> Result<()> {
    for volume in &Volumes::of(dirs, server)?.list {
        show(volume, leader)?;
    }
    Ok(())
}

/// Detaches a volume, unless it is in use in the machine. One that is not there is detached.
pub(crate) fn detach(cage: &Cage, server: &str, id: &str) -> Result<()> {
    let mut volumes = Volumes::of(cage.dirs(), server)?;
    let Some(volume) = volumes.find(id).cloned() else { return Ok(()) };
    // Whoever has mounted a block device, in whatever namespace, holds it exclusively; nobody else may then.
    let exclusive =
        OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_EXCL.bits()).open(volume.device());
    if let Err(error) = exclusive
        && volume.held.holder.alive()
    {
        bail!("volume {id} is in use in the server: /dev/{}: {error}", volume.name);
    }
    if let Some(leader) = machine::leader_of(cage.dirs(), server) {
        let dev = PathBuf::from(format!("/proc/{leader}/root/dev"));
        let _ = (fs::remove_file(dev.join(volume.link())), fs::remove_file(dev.join(&volume.name)));
    }
    release(&volume)?;
    volumes.list.retain(|volume| volume.id != id);
    volumes.save()
}

/// Detaches what is left of a machine that has ended.
pub(crate) fn detach_all(dirs: &Dirs, server: &str) -> Result<()> {
    if !machine::home(dirs, server).exists() {
        return Ok(());
    }
    Volumes::of(dirs, server)?.list.iter().try_for_each(release)
}

fn release(volume: &Volume) -> Result<()> {
    volume.held.holder.kill()?;
    let backing = PathBuf::from(format!("/sys/block/loop{}/loop/backing_file", volume.held.number));
    // The number may be another volume's in the next moment: it is given up when it is nobody's, or not ours.
    eventually(Duration::from_secs(2), || !backing.exists());
    Ok(())
}

/// Lets a machine see that a volume's file has grown.
pub(crate) fn extend(cage: &Cage, server: &str, id: &str) -> Result<()> {
    let volumes = Volumes::of(cage.dirs(), server)?;
    let volume =
        volumes.find(id).with_context(|| format!("volume {id} is not attached to server {server}"))?;
    shell::run(Command::new("losetup").arg("--set-capacity").arg(volume.device()))?;
    Ok(())
}

/// What the process does that holds a volume's loop device.
pub(crate) fn hold(file: &Path, note: &Path) -> Result<()> {
    let set_up = |direct: &[&str]| {
        shell::run(Command::new("losetup").args(["--find", "--show"]).args(direct).arg(file))
    };
    // Past the page cache, as a disk would be; not every file system can.
    let device = set_up(&["--direct-io=on"]).or_else(|_| set_up(&[]))?;
    let device = device.trim();
    let number = device.strip_prefix("/dev/loop").and_then(|n| n.parse().ok());
    let number = number.with_context(|| format!("losetup says {device:?}, not a loop device"))?;
    let open = OpenOptions::new().read(true).write(true).open(device)?;
    // "Detached" while it is open: it clears itself when we end.
    shell::run(Command::new("losetup").args(["--detach", device]))?;
    let holder = Process::of(std::process::id() as i32).context("/proc does not know this process")?;
    replace(note, &serde_json::to_vec(&Held { number, holder })?)?;
    loop {
        std::thread::park();
        // Nobody wakes it; the device is held as long as this is alive.
        let _ = &open;
    }
}

/// The loop devices whose file lies below a directory.
fn below(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            Path::new(file.trim()).starts_with(dir)
        })
        .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()))
        .collect()
}

/// Frees the loop devices of a lab that has ended.
pub(crate) fn release_below(state: &Path) -> Result<()> {
    // Those that clear themselves do so a moment after their holder's end.
    if eventually(Duration::from_secs(20), || below(state).is_empty()) {
        return Ok(());
    }
    // And one whose holder was killed before it could say so needs to be told.
    for device in below(state) {
        let _ = shell::run(Command::new("losetup").args(["--detach", &device]));
    }
    if !eventually(Duration::from_secs(30), || below(state).is_empty()) {
        bail!("loop devices that do not go: {}", below(state).join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_gets_the_name_that_is_wished_or_the_first_free_one() {
        for (taken, wished, expected) in [
            (&[][..], None, "vdb"),
            (&["vdb"], None, "vdc"),
            (&["vdb"], Some("/dev/vdb"), "vdc"),
            (&["vdb"], Some("/dev/vdf"), "vdf"),
            (&[], Some("/dev/sda"), "vdb"),
            (&[], Some("/dev/vda"), "vdb"),
        ] {
            assert_eq!(choose_name(taken, wished).unwrap(), expected, "{taken:?} {wished:?}");
        }
        let all: Vec<String> = ('b'..='z').map(|letter| format!("vd{letter}")).collect();
        assert_eq!(choose_name(&all.iter().map(String::as_str).collect::<Vec<_>>(), None), None);
    }

    #[test]
    fn the_link_is_what_virtio_would_show() {
        let held = Held { number: 3, holder: Process { pid: 1, started: 1 } };
        let volume =
            Volume { id: "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".to_owned(), name: "vdb".to_owned(), held };
        assert_eq!(volume.link(), "disk/by-id/virtio-0a1b2c3d-4e5f-6071-8");
    }
}
