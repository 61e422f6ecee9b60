//! Where a lab keeps its things.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The longest name a lab may have: it becomes part of host names and of paths of sockets.
const LONGEST_NAME: usize = 24;

/// The directories of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// The lab's name.
    pub name: String,
    /// Everything that belongs to this lab alone; gone after `down`.
    pub state: PathBuf,
    /// What labs share and what takes long to make: virtual environments, baked states, images.
    pub cache: PathBuf,
}

impl Dirs {
    /// The directories of the lab `name`, as the environment says: `AKE_LAB_HOME`, `XDG_CACHE_HOME`.
    pub fn of(name: &str) -> Result<Self> {
        let cache = match std::env::var_os("XDG_CACHE_HOME") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                .join(".cache"),
        };
        Self::in_dirs(name, &home(), &cache.join("ake"))
    }

    /// The directories of the lab `name` below two given ones.
    pub fn in_dirs(name: &str, home: &Path, cache: &Path) -> Result<Self> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(letters) || name.starts_with('-')
        {
            bail!(
                "--name {name:?}: expected 1 to {LONGEST_NAME} of a-z, 0-9 and \"-\", beginning with a letter or digit"
            );
        }
        Ok(Self { name: name.to_owned(), state: home.join(name), cache: cache.to_path_buf() })
    }

    /// Logs of everything that runs in the lab outside the machines.
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// What is only of use while the lab runs: pid files, sockets.
    pub fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    /// OpenStack's configuration, databases and volumes.
    pub fn openstack(&self) -> PathBuf {
        self.state.join("openstack")
    }

    /// What AKE's own services read: certificates and configuration.
    pub fn ake(&self) -> PathBuf {
        self.state.join("ake")
    }
}

/// The directory that holds every lab's state: `AKE_LAB_HOME`, or `/var/lib/ake-lab`.
pub fn home() -> PathBuf {
    match std::env::var_os("AKE_LAB_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from("/var/lib/ake-lab"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_that_fits_paths_and_host_names() {
        for good in ["demo", "a", "lab-2", "0"] {
            assert!(Dirs::in_dirs(good, Path::new("/h"), Path::new("/c")).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "..", "a b", &"x".repeat(25)] {
            assert!(Dirs::in_dirs(bad, Path::new("/h"), Path::new("/c")).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_labs_share_nothing_but_the_cache() {
        let one = Dirs::in_dirs("one", Path::new("/h"), Path::new("/c")).unwrap();
        let two = Dirs::in_dirs("two", Path::new("/h"), Path::new("/c")).unwrap();
        assert_eq!(one.cache, two.cache);
        assert!(!one.state.starts_with(&two.state) && !two.state.starts_with(&one.state));
    }
}
