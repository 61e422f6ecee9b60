//! What outlives the process: the data plane's link and the tables that must survive, pinned in a BPF file system.
//!
//! | file | is |
//! |---|---|
//! | `link-INDEX-MODE` | the attachment to the interface of that index |
//! | `LAYOUT/NAME` | a table that the next process takes over, if it knows that layout |

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::config::Mode;

/// Of flows and counters: tables of another one cannot be taken over. `build.rs` makes it from `bpf/layout.h`.
const LAYOUT: &str = env!("AKE_XDP_LAYOUT");
/// Ends the name of a table that takes another's place once the data plane uses it. (The file system takes no dots.)
const NEXT: &str = "-next";

/// Why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// It cannot be used.
    #[error("pins = {}: {cause}", path.display())]
    Folder {
        /// The folder, or what is in it.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is no BPF file system, and cannot be made one.
    #[error(
        "pins = {}: expected a BPF file system; mounting one: {cause}; `ake-xdp prepare` does it as root",
        path.display()
    )]
    Mount {
        /// The folder.
        path: PathBuf,
        /// Why.
        cause: nix::Error,
    },
    /// Somebody else works with it.
    #[error("pins = {}: another ake-xdp uses it", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

/// An attachment that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Where.
    pub path: PathBuf,
    /// The interface's index.
    pub interface: u32,
    /// How.
    pub mode: Mode,
}

/// The folder of one balancer. It is nobody else's as long as this value lives.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    _lock: File,
}

impl Pins {
    /// Opens a folder; it is made, and a BPF file system mounted there, where that is missing.
    pub fn open(folder: &Path) -> Result<Self, PinsError> {
        let error = |cause| PinsError::Folder { path: folder.to_owned(), cause };
        prepare(folder)?;
        let lock = File::open(folder).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(PinsError::Busy { path: folder.to_owned() }),
            Err(TryLockError::Error(cause)) => Err(error(cause)),
        }
    }

    /// Where a table is pinned.
    pub(crate) fn table(&self, name: &str) -> PathBuf {
        self.folder.join(LAYOUT).join(name)
    }

    /// Where a table is pinned that will take another's place.
    pub(crate) fn next(&self, name: &str) -> PathBuf {
        self.table(&format!("{name}{NEXT}"))
    }

    /// Makes room for tables, and removes what a process left that ended while it took tables over.
    pub(crate) fn make_room(&self) -> Result<(), PinsError> {
        let folder = self.folder.join(LAYOUT);
        match fs::create_dir(&folder) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PinsError::Folder { path: folder, cause });
            }
            _ => {}
        }
        for path in self.list(&folder)? {
            if final_name(&path).is_some() {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// The data plane works with the tables that were taken over: from now on the next process shall find these, and
    /// no others.
    pub(crate) fn settle(&self) -> Result<(), PinsError> {
        for path in self.list(&self.folder.join(LAYOUT))? {
            if let Some(place) = final_name(&path) {
                fs::rename(&path, place).map_err(|cause| self.error(&path, cause))?;
            }
        }
        for path in self.list(&self.folder)? {
            if path.is_dir() && !path.ends_with(LAYOUT) {
                self.remove_tables(&path)?;
            }
        }
        Ok(())
    }

    /// Where an attachment is pinned.
    pub(crate) fn attachment(&self, interface: u32, mode: Mode) -> PathBuf {
        let mode = if mode == Mode::Native { "native" } else { "generic" };
        self.folder.join(format!("link-{interface}-{mode}"))
    }

    /// Attachments that are pinned.
    pub fn attachments(&self) -> Result<Vec<Attachment>, PinsError> {
        let attachment = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix("link-")?;
            let (interface, mode) = name.split_once('-')?;
            let mode = if mode == "native" { Mode::Native } else { Mode::Generic };
            Some(Attachment { interface: interface.parse().ok()?, mode, path })
        };
        Ok(self.list(&self.folder)?.into_iter().filter_map(attachment).collect())
    }

    /// Removes an attachment or a table: it goes once nobody has it open.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), PinsError> {
        fs::remove_file(path).map_err(|cause| self.error(path, cause))
    }

    /// Removes everything: the data plane is detached, flows and counters are forgotten. Answers what was detached.
    pub fn clear(&self) -> Result<Vec<Attachment>, PinsError> {
        let attachments = self.attachments()?;
        for attachment in &attachments {
            self.remove(&attachment.path)?;
        }
        for path in self.list(&self.folder)? {
            if path.is_dir() {
                self.remove_tables(&path)?;
            }
        }
        Ok(attachments)
    }

    fn remove_tables(&self, folder: &Path) -> Result<(), PinsError> {
        for path in self.list(folder)? {
            self.remove(&path)?;
        }
        fs::remove_dir(folder).map_err(|cause| self.error(folder, cause))
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, PinsError> {
        let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = read().map_err(|cause| self.error(folder, cause))?;
        paths.sort();
        Ok(paths)
    }

    fn error(&self, path: &Path, cause: io::Error) -> PinsError {
        PinsError::Folder { path: path.to_owned(), cause }
    }
}

/// The place that a table will take.
fn final_name(path: &Path) -> Option<PathBuf> {
    Some(path.with_file_name(path.file_name()?.to_str()?.strip_suffix(NEXT)?))
}

/// Makes a folder a BPF file system of its own, unless it lies on one. Needs CAP_SYS_ADMIN to do so.
pub fn prepare(folder: &Path) -> Result<(), PinsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| PinsError::Folder { path: folder.to_owned(), cause })?;
    let error = |cause| PinsError::Mount { path: folder.to_owned(), cause };
    if statfs(folder).map_err(error)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), folder, Some("bpf"), flags, Some("mode=0700")).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_names_a_folder() {
        assert!(LAYOUT.len() == 16 && LAYOUT.bytes().all(|byte| byte.is_ascii_hexdigit()), "{LAYOUT}");
    }

    #[test]
    fn an_attachment_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins { folder: folder.path().to_owned(), _lock: File::open(folder.path()).unwrap() };
        let path = pins.attachment(7, Mode::Generic);
        fs::write(&path, "").unwrap();
        fs::create_dir(folder.path().join("0123")).unwrap();
        fs::write(folder.path().join("0123/flows"), "").unwrap();
        let attachment = Attachment { path, interface: 7, mode: Mode::Generic };
        assert_eq!(pins.attachments().unwrap(), std::slice::from_ref(&attachment));
        pins.make_room().unwrap();
        fs::write(pins.table("flows"), "old").unwrap();
        fs::write(pins.next("flows"), "new").unwrap();
        pins.settle().unwrap();
        assert_eq!(fs::read_to_string(pins.table("flows")).unwrap(), "new");
        assert!(!folder.path().join("0123").exists(), "tables of another layout");
        fs::write(pins.next("drops"), "").unwrap();
        pins.make_room().unwrap();
        assert!(!pins.next("drops").exists(), "left by a process that ended early");
        assert_eq!(pins.clear().unwrap(), [attachment]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
