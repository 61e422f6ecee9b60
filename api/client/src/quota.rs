//! What a project has of what it may have.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /quota`: what the caller's project has of what it may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quotas {
    /// The Keystone project.
    pub project: String,
    /// By what is counted: `clusters`, `addresses`, `pools`, `members`, `load_balancers`, `listeners`,
    /// `retained`.
    pub quotas: BTreeMap<String, Quota>,
}

/// How much there is, and how much there may be. More than that is refused with the code `quota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    /// In all of the project's clusters.
    pub used: u64,
    /// None where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}
