//! Neutron's ports and security groups, in Neutron's own words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All ports and security groups at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with every change, also over a restart of Neutron.
    pub generation: u64,
    /// Every port of every network.
    pub ports: Vec<Port>,
    /// The rules of each security group, by the group's id.
    #[serde(default)]
    pub groups: BTreeMap<String, Group>,
}

/// The rules of a security group.
pub type Group = Vec<Rule>;

/// A Neutron port, as its API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: String,
    /// Its MAC address.
    pub mac_address: String,
    /// Its own addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// What else it may send from.
    #[serde(default)]
    pub allowed_address_pairs: Vec<Pair>,
    /// Whether sources are checked and security groups count.
    #[serde(default = "yes")]
    pub port_security_enabled: bool,
    /// The ids of its security groups.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The project that owns it.
    #[serde(default)]
    pub project_id: String,
    /// The server it is plugged into.
    #[serde(default)]
    pub device_id: String,
    /// What kind of thing `device_id` is: `compute:nova`.
    #[serde(default)]
    pub device_owner: String,
    /// Whether it is switched on.
    #[serde(default = "yes")]
    pub admin_state_up: bool,
}

fn yes() -> bool {
    true
}

impl Port {
    /// Its bridge port.
    pub fn tap(&self) -> String {
        crate::network::tap(&self.id)
    }

    /// Whether a server has it.
    pub fn of_server(&self) -> bool {
        self.device_owner.starts_with("compute:") && !self.device_id.is_empty()
    }
}

/// An address of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// The address.
    pub ip_address: String,
}

/// An allowed address pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// An address or a range.
    pub ip_address: String,
    /// The MAC address that goes with it; none is the port's own.
    #[serde(default)]
    pub mac_address: Option<String>,
}

/// A rule of a security group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// A name or a number; none is any.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The lowest port, or the type of ICMP.
    #[serde(default)]
    pub port_range_min: Option<u32>,
    /// The highest port, or the code of ICMP.
    #[serde(default)]
    pub port_range_max: Option<u32>,
    /// Who is on the other side, as a range.
    #[serde(default)]
    pub remote_ip_prefix: Option<String>,
    /// Who is on the other side, as the members of a group.
    #[serde(default)]
    pub remote_group_id: Option<String>,
    /// Who is on the other side, as a group of addresses.
    #[serde(default)]
    pub remote_address_group_id: Option<String>,
}
