//! The last good state, on disk.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lb_driver::{
    model::State,
    vendor::xdp::{translate, wire},
};

/// A file that holds a state, replaced as a whole.
#[derive(Debug, Clone)]
pub struct Store {
    file: PathBuf,
}

/// Why a state could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", file.display())]
pub struct StoreError {
    file: PathBuf,
    cause: io::Error,
}

impl Store {
    /// One in this file.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// Keeps a state: after a crash at any moment the file holds the old one or this one.
    pub fn save(&self, state: &State) -> Result<(), StoreError> {
        let folder =
            self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            // at once: a write for each word of a large state takes seconds
            let mut text = serde_json::to_vec(&translate::document(state))?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(&self.file).map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|cause| self.error(cause))
    }

    /// The state that was kept, if any. A file that holds none is put aside, so that it can be looked at
    /// and the balancer can take a new one.
    pub fn load(&self) -> Result<Option<State>, StoreError> {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(self.error(cause)),
        };
        let problem = match serde_json::from_slice::<wire::Document>(&bytes) {
            Ok(document) => match translate::state(&document) {
                Ok(state) => return Ok(Some(state)),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        let aside = self.file.with_extension("broken");
        fs::rename(&self.file, &aside).map_err(|cause| self.error(cause))?;
        tracing::error!(file = %self.file.display(), aside = %aside.display(), problem, "the kept state is none");
        Ok(None)
    }

    fn error(&self, cause: io::Error) -> StoreError {
        StoreError { file: self.file.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use lb_driver::model::Version;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("state.json"));
        assert_eq!(store.load().unwrap(), None);
        let state = State { version: Version { epoch: 1, number: 7 }, ..State::default() };
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap(), Some(state));
    }

    #[test]
    fn a_broken_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        fs::write(&file, "{\"version\":").unwrap();
        assert_eq!(Store::new(&file).load().unwrap(), None);
        assert_eq!(fs::read_to_string(folder.path().join("state.broken")).unwrap(), "{\"version\":");
        assert!(!file.exists());
    }

    #[test]
    fn a_failure_names_the_file() {
        let store = Store::new("/nonexistent/state.json");
        assert!(
            store.save(&State::default()).unwrap_err().to_string().starts_with("/nonexistent/state.json: ")
        );
    }
}
