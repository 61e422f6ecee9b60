//! The API of `ake-xdp`, version 1, as JSON carries it.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /v1/state` with a [`Document`] | [`Applied`]; 409 [`Problem`] where it holds a newer one; 422 where it cannot be |
//! | `GET /v1/state` | the [`Document`] it holds; 404 before the first |
//! | `GET /v1/status` | [`StatusDocument`] |
//! | `GET /v1/status?seen=MARK&wait=SECONDS` | the same, as soon as its mark is another one than `seen`, or after `wait`, at most [`LONGEST_WAIT`] |

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::model::{Affinity, MacAddr, Owner, Protocol, Version};

/// Path of the state.
pub const STATE: &str = "/v1/state";
/// Path of the status.
pub const STATUS: &str = "/v1/status";
/// Longest that a request for the status may wait for news, in seconds.
pub const LONGEST_WAIT: u64 = 30;

/// A whole state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// A lower one than the one held is refused, and so is an equal one with other content.
    pub version: Version,
    /// Sets of nodes.
    pub pools: Vec<Pool>,
    /// VIPs with their listeners.
    pub load_balancers: Vec<LoadBalancer>,
}

/// A set of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// `project/cluster/object`.
    pub owner: Owner,
    /// Nodes.
    pub members: Vec<Member>,
    /// How they are checked: a member is healthy when it passes all of them; without any, always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, unique in the pool.
    pub name: String,
    /// Its own address, which is checked.
    pub address: IpAddr,
    /// Where its packets are sent; without one it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Its share of new flows relative to others; 0 takes none.
    pub weight: u16,
    /// Keeps its flows, takes no new ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// How members are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Check {
    /// A TCP connection is accepted.
    Tcp {
        /// Port on the member.
        port: NonZeroU16,
    },
    /// A GET is answered with a status from 200 to 299.
    Http {
        /// Port on the member.
        port: NonZeroU16,
        /// Path of the request, with the leading slash.
        path: String,
    },
    /// A TCP connection to a VIP is accepted when it is sent to the member's MAC address.
    Vip {
        /// The VIP.
        vip: IpAddr,
        /// Port of the VIP.
        port: NonZeroU16,
    },
}

/// A VIP with its listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancer {
    /// `project/cluster/object`.
    pub owner: Owner,
    /// The address that clients speak to.
    pub vip: IpAddr,
    /// Its ports.
    pub listeners: Vec<Listener>,
    /// Clients that are let in; empty for everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<IpNetwork>,
    /// How flows are spread.
    #[serde(default)]
    pub affinity: Affinity,
}

/// A port of a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port; members answer on the same one.
    pub port: NonZeroU16,
    /// The pool behind it.
    pub pool: Owner,
}

/// Answer to an accepted state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The version that is held now.
    pub version: Version,
    /// Whether anything had to be done for it.
    pub changed: bool,
}

/// Answer to a request that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, for people: field, value, expectation.
    pub message: String,
    /// The version that is held, where the one sent is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Version>,
}

/// Health and counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// Changes with every change of a member's health, of its reason, or of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u64>,
    /// The version that is held, if any.
    pub version: Option<Version>,
    /// What an instance of a pair knows of the other one; none where there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairStatus>,
    /// Health and shares.
    pub pools: Vec<PoolStatus>,
    /// Traffic.
    pub load_balancers: Vec<LoadBalancerStatus>,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// New flows that went by the ring alone, because too many began within a second.
    #[serde(default)]
    pub unrecorded_flows: u64,
    /// How much it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// How much of each a state may have; no limit where nothing stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Load balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancers: Option<u32>,
    /// Ports of all load balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<u32>,
    /// Pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<u32>,
    /// Members, counted once per pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Source ranges of all load balancers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<u32>,
}

/// One instance of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStatus {
    /// Whether VRRP gave it the addresses that VIPs are routed to; true where VRRP has no part.
    pub active: bool,
    /// Whether the other instance is told of its flows.
    pub peer_told: bool,
    /// Flows that the other instance was told of, since the start.
    pub flows_told: u64,
    /// Flows that the other instance told of, since the start.
    pub flows_heard: u64,
    /// As many more were of members that this instance has not.
    pub flows_unknown: u64,
}

/// A pool, as the device sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// `project/cluster/object`.
    pub owner: Owner,
    /// Slots of its ring; 0 where no member can take flows.
    pub ring_size: u32,
    /// Its members.
    pub members: Vec<MemberStatus>,
}

/// A member, as the device sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// What the last check said; none before the first.
    pub healthy: Option<bool>,
    /// Why it takes no flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Slots of the ring that are its own.
    pub slots: u32,
    /// Flows that began at it since it was taken in.
    pub new_flows: u64,
}

/// A VIP's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancerStatus {
    /// `project/cluster/object`.
    pub owner: Owner,
    /// The VIP.
    pub vip: IpAddr,
    /// Its ports.
    pub listeners: Vec<ListenerStatus>,
    /// Packets to the VIP that were dropped and no port was asked about, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
}

/// A port's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: NonZeroU16,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Those of them that were dropped, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
}
