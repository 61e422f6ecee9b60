//! Addresses: what is asked for, and what is there.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterId;

/// Address families.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default, JsonSchema,
)]
pub enum Family {
    /// IPv4.
    #[default]
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// `PUT .../addresses/{name}`: asks for a VIP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressRequest {
    /// A certain address of the cluster's blocks; without it, any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The family, where no address is named.
    #[serde(default)]
    pub family: Family,
    /// What to adopt: the id of a Neutron port of the caller's project on the VIP network, which nothing else uses, or
    /// an address that the project has retained. Either stays the project's when the address goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<String>,
    /// Whether the address stays the project's when the cluster goes. Without it what was said before holds, and at first
    /// it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// What it is for, in words for people: at most 200 characters. Without it what was said before holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// A VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Whether it stays the project's when the cluster goes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retained: bool,
    /// What it is for, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

impl Address {
    /// One that goes with its cluster, and of which nothing is said.
    #[must_use]
    pub fn plain(address: IpAddr) -> Self {
        Self { address, retained: false, about: None }
    }
}

/// `GET /addresses`: a VIP of the project, of one of its clusters or retained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectAddress {
    /// The address.
    pub address: IpAddr,
    /// Its name at its cluster; of one without a cluster, the name that it had.
    pub name: String,
    /// The cluster that has it; none for one that outlived its cluster and was not adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// Whether it stays the project's when the cluster goes.
    pub retained: bool,
    /// Whether a load balancer uses it.
    pub used: bool,
    /// What it is for, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}
