//! Control groups: each machine has its own in every hierarchy, below a folder that bears the lab's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::Dirs;
use crate::procs::eventually;

const ROOT: &str = "/sys/fs/cgroup";

/// The folder of a lab in every hierarchy. It names the state directory too: labs of one name may live in two.
pub fn folder(dirs: &Dirs) -> String {
    let hash = Sha256::digest(dirs.state.as_os_str().as_encoded_bytes());
    format!("ake-lab-{}-{:02x}{:02x}{:02x}", dirs.name, hash[0], hash[1], hash[2])
}

/// Where hierarchies are mounted: each of version 1 and, beside them or alone, that of version 2.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_path_buf()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    // Two controllers on one hierarchy have a link each to it.
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    found
}

/// Moves the calling process into the group of `machine`, which is made if needed.
pub fn enter(folder: &str, machine: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let top = hierarchy.join(folder);
        fs::create_dir_all(&top)
            .with_context(|| format!("cannot make the control group {}", top.display()))?;
        if top.join("cpuset.cpus").exists() && hierarchy.join("cpuset.cpus").exists() {
            // A new group of this controller has no processors, and so takes no process, unless it is told.
            let _ = fs::write(top.join("cgroup.clone_children"), "1");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let _ = fs::write(top.join(file), fs::read(hierarchy.join(file)).unwrap_or_default());
            }
        }
        let group = top.join(machine);
        fs::create_dir_all(&group)?;
        fs::write(group.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter the control group {}", group.display()))?;
    }
    Ok(())
}

/// Removes a machine's groups; its processes must have ended.
pub fn remove_machine(folder: &str, machine: &str) -> Result<()> {
    remove_all(&hierarchies().into_iter().map(|h| h.join(folder).join(machine)).collect::<Vec<_>>())
}

/// Removes every group of the lab.
pub fn remove_lab(folder: &str) -> Result<()> {
    remove_all(&hierarchies().into_iter().map(|h| h.join(folder)).collect::<Vec<_>>())
}

fn remove_all(groups: &[PathBuf]) -> Result<()> {
    // The last process of a group leaves it a moment after it is seen dead.
    let gone = eventually(Duration::from_secs(60), || groups.iter().all(|group| remove_tree(group)));
    if !gone {
        let left: Vec<String> =
            groups.iter().filter(|g| g.exists()).map(|g| g.display().to_string()).collect();
        bail!("control groups that do not go: {}", left.join(", "));
    }
    Ok(())
}

/// Removes a folder of groups, the deepest first; whether it is gone.
fn remove_tree(group: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
        let _ = fs::remove_dir(group);
    }
    !group.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_of_one_name_in_two_places_do_not_meet() {
        let one = Dirs::in_dirs("demo", Path::new("/a"), Path::new("/c")).unwrap();
        let two = Dirs::in_dirs("demo", Path::new("/b"), Path::new("/c")).unwrap();
        assert_ne!(folder(&one), folder(&two));
        assert!(folder(&one).starts_with("ake-lab-demo-"));
    }
}
