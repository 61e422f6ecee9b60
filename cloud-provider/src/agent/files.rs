//! Files as they come into being: whole, with their mode, or not at all.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file to be.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Where, from the root.
    pub path: String,
    /// What is in it.
    pub content: String,
    /// Who may read it.
    pub mode: u32,
}

impl File {
    /// A file that only root may read.
    #[must_use]
    pub fn secret(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into(), mode: 0o600 }
    }

    /// A file that everybody may read.
    #[must_use]
    pub fn public(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into(), mode: 0o644 }
    }
}

/// Contents may be keys and are not shown.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:o}, {} bytes)", self.path, self.mode, self.content.len())
    }
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write {path}: {source}")]
pub struct Error {
    /// Its path.
    pub path: String,
    /// What the system said.
    pub source: io::Error,
}

/// Writes one file below `root`.
pub fn write(root: &Path, file: &File) -> Result<(), Error> {
    let path = root.join(file.path.trim_start_matches('/'));
    replace(&path, file).map_err(|source| Error { path: file.path.clone(), source })
}

fn replace(path: &Path, file: &File) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name that no program takes for one of its own files (`*.conf`, `*.conflist`, `*.yaml`).
    let partial: PathBuf = path.with_file_name(format!(".{name}.partial"));
    // What an interrupted run left would keep its mode.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&partial)?;
    opened.write_all(file.content.as_bytes())?;
    opened.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(file.mode))?;
    opened.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &File::public("/etc/a/b", "one")).unwrap();
        write(root.path(), &File::secret("/etc/a/b", "two")).unwrap();
        let path = root.path().join("etc/a/b");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(root.path().join("etc/a")).unwrap().count(), 1);
    }

    #[test]
    fn a_debug_print_shows_no_content() {
        assert!(!format!("{:?}", File::secret("/k", "KEY")).contains("KEY"));
    }
}
