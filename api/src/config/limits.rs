//! How often anybody may ask.

use serde::Deserialize;

use super::{ConfigError, error::value};

/// How often anybody may ask.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a second of one project, in the long run; 0 for any number.
    pub project_per_second: u32,
    /// Requests of one project that may come at once.
    pub project_burst: u32,
    /// Requests a second without a token that is known here, from one address (of IPv6, one /64): claims, probes, and
    /// tokens that Keystone is to be asked about; 0 for any number. A host that speaks for many, as heat-engine does,
    /// is one address.
    pub peer_per_second: u32,
    /// Requests of one address that may come at once.
    pub peer_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { project_per_second: 100, project_burst: 1000, peer_per_second: 50, peer_burst: 500 }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, burst) in
            [("limits.project_burst", self.project_burst), ("limits.peer_burst", self.peer_burst)]
        {
            if burst == 0 {
                return Err(value(key, burst, "1 or more"));
            }
        }
        Ok(())
    }
}
