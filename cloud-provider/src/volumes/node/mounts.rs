//! What is mounted, and mounting.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags};

/// Where the kernel lists this process's mounts.
const MOUNT_INFO: &str = "/proc/self/mountinfo";

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Major and minor number of the device, as `major:minor`.
    pub(super) device: String,
    /// What of the file system is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// Options of this mount, as `ro`.
    pub(super) options: Vec<String>,
    /// Kind of the file system.
    pub(super) kind: String,
}

/// Reads the list. Lines that are not understood are left out.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(2);
    let (device, root, point, options) = (head.next()?, head.next()?, head.next()?, head.next()?);
    Some(Mount {
        device: device.to_owned(),
        root: unescape(root).into(),
        point: unescape(point).into(),
        options: options.split(',').map(ToOwned::to_owned).collect(),
        kind: tail.split(' ').next()?.to_owned(),
    })
}

/// Blanks and the like stand there as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let value =
            octal.and_then(|o| std::str::from_utf8(o).ok()).and_then(|o| u8::from_str_radix(o, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is mounted at `point`: the topmost, if there are several.
pub(super) async fn at(point: &Path) -> io::Result<Option<Mount>> {
    let text = tokio::fs::read_to_string(MOUNT_INFO).await?;
    // The kernel names no symbolic links.
    let real = tokio::fs::canonicalize(point).await.unwrap_or_else(|_| point.to_owned());
    Ok(parse(&text).into_iter().rfind(|mount| mount.point == real))
}

/// Makes `target` show what `source` shows.
pub(super) async fn bind(source: PathBuf, target: PathBuf, read_only: bool) -> io::Result<()> {
    blocking(move || {
        nix::mount::mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            if let Err(e) = nix::mount::mount(None::<&str>, &target, None::<&str>, flags, None::<&str>) {
                nix::mount::umount2(&target, MntFlags::UMOUNT_NOFOLLOW)?;
                return Err(e.into());
            }
        }
        Ok(())
    })
    .await
}

/// Takes away all that is mounted at `point`.
pub(super) async fn unmount(point: &Path) -> io::Result<()> {
    while at(point).await?.is_some() {
        let point = point.to_owned();
        blocking(move || Ok(nix::mount::umount2(&point, MntFlags::UMOUNT_NOFOLLOW)?)).await?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list() {
        let text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    45 36 7:4 / /var/lib/kubelet/a\\040b ro,relatime shared:9 master:2 - xfs /dev/vdb rw\n\
                    broken\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[1].point, Path::new("/var/lib/kubelet/a b"));
        assert_eq!((mounts[1].device.as_str(), mounts[1].kind.as_str()), ("7:4", "xfs"));
        assert_eq!(mounts[1].options, ["ro", "relatime"]);
        assert_eq!(mounts[0].root, Path::new("/mnt1"));
    }

    #[tokio::test]
    async fn the_root_is_mounted_and_a_new_folder_is_not() {
        let folder = std::env::temp_dir().join(format!("ake-mounts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(at(Path::new("/proc")).await.unwrap().is_some());
        assert_eq!(at(&folder).await.unwrap(), None);
        unmount(&folder).await.unwrap();
        std::fs::remove_dir(&folder).unwrap();
    }
}
