//! Finding a volume's disk, and what is on it.

use std::{
    ffi::OsStr,
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::run::{self, RunError};

/// Where udev puts links with the disks' serial numbers.
const BY_ID: &str = "/dev/disk/by-id";

/// How long a disk may take to show up after Nova says that it is attached.
const APPEARS_WITHIN: Duration = Duration::from_secs(30);

/// What went wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("volume {volume}: no disk within {} s: expected one of {expected} in {BY_ID}", APPEARS_WITHIN.as_secs())]
    NotThere { volume: String, expected: String },
    #[error("volume {volume}: {disk} has {found} bytes: expected at least {expected}")]
    TooSmall { volume: String, disk: String, found: u64, expected: u64 },
    #[error("{disk} holds {found}: expected nothing, or a file system of type {expected}")]
    HoldsOther { disk: String, found: String, expected: String },
    #[error("file system {0:?}: expected ext4 or xfs")]
    UnknownFileSystem(String),
    #[error("{disk}: {error}")]
    Io { disk: String, error: io::Error },
    #[error(transparent)]
    Run(#[from] RunError),
}

/// File systems that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// By its name; ext4 if there is none, as with cloud-provider-openstack.
    pub(super) fn named(name: &str) -> Result<Self, DiskError> {
        match name {
            "" | "ext4" => Ok(Self::Ext4),
            "xfs" => Ok(Self::Xfs),
            other => Err(DiskError::UnknownFileSystem(other.to_owned())),
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// A disk that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// The device itself, not the link.
    pub(super) path: PathBuf,
    /// As `major:minor`, as the list of mounts has it.
    pub(super) number: String,
    /// In bytes.
    pub(super) size: u64,
}

/// Names that a volume's disk may have. virtio cuts serial numbers after 20 characters.
pub(super) fn links(volume: &str) -> Vec<String> {
    let short: String = volume.chars().take(20).collect();
    vec![
        format!("virtio-{short}"),
        format!("virtio-{volume}"),
        format!("scsi-0QEMU_QEMU_HARDDISK_{short}"),
        format!("scsi-0QEMU_QEMU_HARDDISK_{volume}"),
        format!("wwn-0x{}", volume.replace('-', "")),
    ]
}

/// Waits for a volume's disk, which has at least that many bytes.
pub(super) async fn find(volume: &str, at_least: u64) -> Result<Disk, DiskError> {
    let begun = Instant::now();
    let mut last = None;
    loop {
        for link in links(volume) {
            match look(&Path::new(BY_ID).join(link)).await {
                Ok(disk) if disk.size > 0 && disk.size >= at_least => return Ok(disk),
                // A link to a disk that went, or whose size is not known yet, is looked at again.
                Ok(disk) => last = Some(disk),
                Err(_) => {}
            }
        }
        if begun.elapsed() > APPEARS_WITHIN {
            let volume = volume.to_owned();
            return Err(match last {
                Some(Disk { path, size: found, .. }) => DiskError::TooSmall {
                    volume,
                    disk: path.display().to_string(),
                    found,
                    expected: at_least,
                },
                None => DiskError::NotThere { expected: links(&volume).join(", "), volume },
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Looks at a device or a link to one.
pub(super) async fn look(path: &Path) -> Result<Disk, DiskError> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let path = std::fs::canonicalize(path)?;
        let mut device = std::fs::File::open(&path)?;
        let metadata = device.metadata()?;
        if !metadata.file_type().is_block_device() {
            return Err(io::Error::other("not a block device"));
        }
        let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
        Ok(Disk { path, number: format!("{major}:{minor}"), size: device.seek(SeekFrom::End(0))? })
    });
    looked.await.map_err(io::Error::other).flatten().map_err(|error| DiskError::Io { disk: shown, error })
}

/// What a disk holds, read from the disk itself and not from a cache.
pub(super) async fn content(disk: &Path) -> Result<Option<String>, DiskError> {
    let arguments = ["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export"].map(OsStr::new);
    let output = run::run("blkid", &[&arguments[..], &[disk.as_os_str()]].concat()).await?;
    match output.code {
        Some(0) => Ok(Some(kind_of(&output.stdout))),
        // "No information": for a probe of the disk itself this says that it is blank.
        Some(2) => Ok(None),
        _ => {
            let said = if output.stderr.trim().is_empty() { "ambiguous" } else { output.stderr.trim() };
            Err(DiskError::Io { disk: disk.display().to_string(), error: io::Error::other(said.to_owned()) })
        }
    }
}

fn kind_of(export: &str) -> String {
    let value = |name: &str| export.lines().find_map(|line| line.strip_prefix(name)).map(ToOwned::to_owned);
    value("TYPE=")
        .or_else(|| value("PTTYPE=").map(|kind| format!("a partition table ({kind})")))
        .unwrap_or_else(|| "something that blkid does not name".to_owned())
}

/// Makes a file system on a blank disk; one that is there already is left as it is.
pub(super) async fn format(disk: &Path, wanted: FileSystem) -> Result<(), DiskError> {
    match content(disk).await? {
        Some(found) if found == wanted.name() => return Ok(()),
        Some(found) => {
            let (disk, expected) = (disk.display().to_string(), wanted.name().to_owned());
            return Err(DiskError::HoldsOther { disk, found, expected });
        }
        None => {}
    }
    let disk = disk.as_os_str();
    match wanted {
        // -F: a whole disk without a partition is meant. -m0: no blocks kept back for root.
        FileSystem::Ext4 => {
            run::succeed("mkfs.ext4", &[OsStr::new("-q"), OsStr::new("-F"), OsStr::new("-m0"), disk]).await?
        }
        FileSystem::Xfs => run::succeed("mkfs.xfs", &[OsStr::new("-q"), disk]).await?,
    }
    Ok(())
}

/// Mounts a disk.
pub(super) async fn mount(
    disk: &Path,
    target: &Path,
    kind: FileSystem,
    options: &[String],
) -> Result<(), DiskError> {
    let mut options = options.to_vec();
    if kind == FileSystem::Xfs && !options.iter().any(|option| option == "nouuid") {
        // A clone has the same UUID as its source.
        options.push("nouuid".to_owned());
    }
    let joined = options.join(",");
    let mut arguments = vec![OsStr::new("-t"), OsStr::new(kind.name())];
    if !joined.is_empty() {
        arguments.extend([OsStr::new("-o"), OsStr::new(&joined)]);
    }
    arguments.extend([disk.as_os_str(), target.as_os_str()]);
    Ok(run::succeed("mount", &arguments).await?)
}

/// Lets a mounted file system fill its disk.
pub(super) async fn grow(disk: &Path, mount_point: &Path, kind: &str) -> Result<(), DiskError> {
    match kind {
        "ext2" | "ext3" | "ext4" => Ok(run::succeed("resize2fs", &[disk.as_os_str()]).await?),
        "xfs" => Ok(run::succeed("xfs_growfs", &[mount_point.as_os_str()]).await?),
        other => Err(DiskError::UnknownFileSystem(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_volume() {
        let links = links("0b2fd5ba-5ed8-4d6c-8e4e-6f8d8b8f0001");
        assert_eq!(links[0], "virtio-0b2fd5ba-5ed8-4d6c-8");
        assert_eq!(links[4], "wwn-0x0b2fd5ba5ed84d6c8e4e6f8d8b8f0001");
        assert_eq!(super::links("short")[0], "virtio-short");
    }

    #[test]
    fn what_blkid_says() {
        assert_eq!(kind_of("DEVNAME=/dev/vdb\nTYPE=xfs\n"), "xfs");
        assert_eq!(kind_of("DEVNAME=/dev/vdb\nPTTYPE=gpt\n"), "a partition table (gpt)");
    }

    #[test]
    fn names_of_file_systems() {
        assert_eq!(FileSystem::named("").unwrap(), FileSystem::Ext4);
        assert_eq!(
            FileSystem::named("ntfs").unwrap_err().to_string(),
            r#"file system "ntfs": expected ext4 or xfs"#
        );
    }

    #[tokio::test]
    async fn a_file_is_no_disk() {
        let error = look(Path::new("/proc/self/status")).await.unwrap_err();
        assert!(error.to_string().ends_with("not a block device"), "{error}");
    }
}
