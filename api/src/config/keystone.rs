//! Who we are in OpenStack.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    ConfigError,
    error::{read, value},
};

/// The service user, and how tokens of others are looked up.
#[derive(Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Keystone {
    /// Keystone's URL, with its version.
    pub auth_url: String,
    /// The service user; role `service` in its project.
    pub username: String,
    /// Its password, where it is not in a file.
    pub password: Option<String>,
    /// File that holds its password.
    pub password_file: Option<PathBuf>,
    /// Domain of the user.
    #[serde(default = "default_domain")]
    pub user_domain: String,
    /// The user's project, which owns the VIP network.
    #[serde(default = "service_project")]
    pub project: String,
    /// Domain of the project.
    #[serde(default = "default_domain")]
    pub project_domain: String,
    /// Region of the catalog's endpoints.
    pub region: Option<String>,
    /// PEM file of authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// How long, in seconds, what Keystone said of a token is believed; a revoked one works for so long.
    #[serde(default = "one_minute")]
    pub token_cache_seconds: u64,
    /// How many tokens are remembered.
    #[serde(default = "ten_thousand")]
    pub token_cache_entries: usize,
}

impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystone")
            .field("auth_url", &self.auth_url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

fn one_minute() -> u64 {
    60
}

fn ten_thousand() -> usize {
    10_000
}

fn default_domain() -> String {
    "Default".to_owned()
}

fn service_project() -> String {
    "service".to_owned()
}

impl Keystone {
    /// The service user's password.
    pub(super) fn secret(&self) -> Result<String, ConfigError> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(password.clone()),
            (None, Some(path)) => Ok(read("keystone.password_file", path)?.trim_end().to_owned()),
            (None, None) => {
                Err(value("keystone.password_file", "nothing", "the file of the service user's password"))
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.auth_url.starts_with("https://") && !self.auth_url.starts_with("http://") {
            return Err(value("keystone.auth_url", &self.auth_url, "a URL"));
        }
        if self.password.is_some() == self.password_file.is_some() {
            let has = if self.password.is_some() { "both" } else { "neither" };
            return Err(value("keystone.password, keystone.password_file", has, "one of the two"));
        }
        if self.token_cache_entries == 0 {
            return Err(value("keystone.token_cache_entries", 0, "1 or more"));
        }
        Ok(())
    }
}
