//! A unit's disk: what `save sys config` keeps over a start.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    config::{Config, Object},
    device::Options,
    kinds::Kind,
};

/// Why a disk is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{}: expected a configuration that the stand-in saved", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
}

/// The file of a unit, where there are disks.
pub(crate) fn of(options: &Options, unit: usize) -> Option<PathBuf> {
    Some(options.disks.as_ref()?.join(format!("unit-{}.json", unit + 1)))
}

/// Writes a configuration.
pub(crate) fn store(path: &Path, config: &Config) -> Result<(), DiskError> {
    let one = |((kind, name), object): (&(&str, String), &Object)| json!({"kind": kind, "path": name, "fields": object.fields, "generation": object.generation});
    let objects: Vec<Value> = config.objects.iter().map(one).collect();
    let text = json!({"generation": config.generation, "objects": objects}).to_string();
    // a device that loses its power has the old configuration or the new one
    let fresh = path.with_extension("new");
    let wrong = |error| DiskError::Io { path: path.to_owned(), error };
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path)).map_err(wrong)
}

/// Reads it; none where nothing was saved yet.
pub(crate) fn load(path: &Path) -> Result<Option<Config>, DiskError> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| DiskError::Io { path: path.to_owned(), error })?,
    };
    let read: Value = serde_json::from_slice(&text).unwrap_or_default();
    let form = || DiskError::Form { path: path.to_owned() };
    let mut objects = BTreeMap::new();
    for item in read["objects"].as_array().ok_or_else(form)? {
        let kind = Kind::find(item["kind"].as_str().unwrap_or_default()).ok_or_else(form)?;
        let (Some(name), Some(fields)) = (item["path"].as_str(), item["fields"].as_object()) else {
            return Err(form());
        };
        let generation = item["generation"].as_u64().ok_or_else(form)?;
        objects.insert((kind.path, name.to_owned()), Object { fields: fields.clone(), generation });
    }
    Ok(Some(Config { objects, generation: read["generation"].as_u64().ok_or_else(form)? }))
}
