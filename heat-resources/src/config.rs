//! What the operator says to this program.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where it stands, unless `AKE_HEAT_CONFIG` in heat-engine's environment names another file.
pub const FILE: &str = "/etc/ake/heat.toml";

/// The variable that names another file.
pub const VARIABLE: &str = "AKE_HEAT_CONFIG";

/// The file's content; all of it may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// PEM certificates that ake-api is trusted by, besides the system's. Nodes get them too.
    pub api_ca_file: Option<PathBuf>,
    /// The address of ake-api, instead of the one that the cloud's catalog has for type `ake`.
    pub api_url: Option<String>,
    /// PEM certificates that the cloud's services are trusted by, besides the system's. Nodes get them too.
    pub cloud_ca_file: Option<PathBuf>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{field}: {path}: expected a readable file: {reason}")]
    File {
        /// Which key, or the variable.
        field: &'static str,
        /// Its value.
        path: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file makes no sense.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// What the reader said.
        reason: String,
    },
}

impl Config {
    /// Reads `named`, or the usual file if there is one.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(reason) => {
                return Err(Error::File { field: VARIABLE, path: path.display().to_string(), reason });
            }
        };
        toml::from_str(&text).map_err(|e| Error::Content {
            path: path.display().to_string(),
            reason: e.to_string().trim().replace('\n', " "),
        })
    }

    /// The content of `api-ca-file`.
    pub fn api_ca(&self) -> Result<Option<String>, Error> {
        read("api-ca-file", self.api_ca_file.as_deref())
    }

    /// The content of `cloud-ca-file`.
    pub fn cloud_ca(&self) -> Result<Option<String>, Error> {
        read("cloud-ca-file", self.cloud_ca_file.as_deref())
    }
}

fn read(field: &'static str, path: Option<&Path>) -> Result<Option<String>, Error> {
    let Some(path) = path else { return Ok(None) };
    std::fs::read_to_string(path).map(Some).map_err(|reason| Error::File {
        field,
        path: path.display().to_string(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("api-cafile = '/x'").unwrap_err().to_string();
        assert!(error.contains("api-cafile"), "{error}");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Config::load(Some(Path::new("/nonexistent/heat.toml"))).unwrap_err().to_string();
        assert!(error.starts_with("AKE_HEAT_CONFIG: /nonexistent/heat.toml: "), "{error}");
    }
}
