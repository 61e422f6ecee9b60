//! Why a configuration cannot be used.

use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{key} = {path:?}: expected a file that can be read: {reason}")]
    Unreadable {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It is not TOML, or has a key that does not exist, or lacks one.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A value cannot be used.
    #[error("{key} = {value}: expected {expected}")]
    Value {
        /// Its key.
        key: String,
        /// The value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

pub(super) fn value(key: &str, value: impl ToString, expected: impl ToString) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), value: value.to_string(), expected: expected.to_string() }
}

pub(super) fn read(key: &str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        key: key.to_owned(),
        path: path.to_owned(),
        reason: e.to_string(),
    })
}
