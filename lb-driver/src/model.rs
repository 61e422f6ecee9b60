//! What is wanted of a load balancer, whatever device it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    num::NonZeroU16,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

mod mac;
mod name;

pub use mac::{InvalidMac, MacAddr};
pub use name::{InvalidName, NAME_LENGTH, Owner, check_name};

/// Everything that a device shall do for us, as one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Orders states; a device refuses an older one.
    pub version: Version,
    /// Sets of nodes.
    pub pools: BTreeMap<Owner, Pool>,
    /// VIPs with their listeners.
    pub load_balancers: BTreeMap<Owner, LoadBalancer>,
}

/// Which state is newer: first by epoch, then by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Counts the writers: one whose numbers begin anew (a lost database) takes a higher epoch.
    pub epoch: u64,
    /// Counts the states of one writer.
    pub number: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// A set of nodes. Under direct server return no port is translated, so a pool needs no port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// Members by name.
    pub members: BTreeMap<String, Member>,
    /// How they are checked: a member is healthy when it passes all of them; without any, always.
    pub checks: BTreeSet<Check>,
}

/// A node in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its own address, which is checked.
    pub address: IpAddr,
    /// Where its packets are sent; without one it takes none.
    pub mac: Option<MacAddr>,
    /// Its share of new flows relative to others; 0 takes none.
    pub weight: u16,
    /// Keeps its flows, takes no new ones.
    pub draining: bool,
}

/// How a member is checked. The device takes an unhealthy member out, never in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// A TCP connection to the port is accepted.
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
    /// A TCP connection to a VIP is accepted when it is sent to the member's MAC address: what clients do.
    Vip {
        /// The VIP.
        vip: IpAddr,
        /// Port of the VIP.
        port: NonZeroU16,
    },
}

impl Check {
    /// The port that is checked: what the members' security group must admit.
    pub fn port(&self) -> NonZeroU16 {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } | Self::Vip { port, .. } => *port,
        }
    }
}

/// A VIP and what listens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The address that clients speak to.
    pub vip: IpAddr,
    /// Its ports, and the pool behind each.
    pub listeners: BTreeMap<Endpoint, Owner>,
    /// Clients that are let in; empty for everybody.
    pub source_ranges: BTreeSet<IpNetwork>,
    /// How flows are spread.
    pub affinity: Affinity,
}

/// A protocol's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port; members answer on the same one.
    pub port: NonZeroU16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// Transport protocols of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// How flows are spread over members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// By addresses and ports.
    #[default]
    None,
    /// By the client's address alone.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// What makes a state impossible for any device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidState {
    /// A listener names a pool that the state has not.
    #[error("load balancer {load_balancer}: {endpoint}: pool {pool} is not in the state")]
    NoSuchPool {
        /// Whose listener.
        load_balancer: Owner,
        /// Which listener.
        endpoint: Endpoint,
        /// The pool it names.
        pool: Owner,
    },
    /// Two load balancers claim one port of one VIP.
    #[error("load balancers {first} and {second}: both listen on {endpoint} of {vip}")]
    Conflict {
        /// One of them.
        first: Owner,
        /// The other.
        second: Owner,
        /// The VIP.
        vip: IpAddr,
        /// The port.
        endpoint: Endpoint,
    },
    /// A VIP, or a member's address, that no station can have.
    #[error("{whose}: address {address}: expected the address of one station")]
    Address {
        /// The object it stands in.
        whose: String,
        /// The address.
        address: IpAddr,
    },
    /// A source range of the other family than the VIP.
    #[error(
        "load balancer {load_balancer}: source range {range}: expected a range of the family of its VIP {vip}"
    )]
    Family {
        /// Whose range.
        load_balancer: Owner,
        /// The range.
        range: IpNetwork,
        /// The VIP.
        vip: IpAddr,
    },
    /// A name that does not have the form of one.
    #[error("pool {pool}: {invalid}")]
    Member {
        /// Whose member.
        pool: Owner,
        /// What is wrong.
        invalid: InvalidName,
    },
}

impl State {
    /// Checks what every device relies on: pools exist, no port is claimed twice, addresses are stations'.
    pub fn check(&self) -> Result<(), InvalidState> {
        for (owner, pool) in &self.pools {
            for (name, member) in &pool.members {
                check_name("member", name)
                    .map_err(|invalid| InvalidState::Member { pool: owner.clone(), invalid })?;
                check_station(|| format!("pool {owner}: member {name}"), member.address)?;
            }
            for check in &pool.checks {
                if let Check::Vip { vip, .. } = check {
                    check_station(|| format!("pool {owner}: check of a VIP"), *vip)?;
                }
            }
        }
        let mut claims: BTreeMap<(IpAddr, Endpoint), &Owner> = BTreeMap::new();
        for (owner, balancer) in &self.load_balancers {
            check_station(|| format!("load balancer {owner}"), balancer.vip)?;
            if let Some(range) = balancer.source_ranges.iter().find(|r| r.is_ipv4() != balancer.vip.is_ipv4())
            {
                let (range, vip) = (*range, balancer.vip);
                return Err(InvalidState::Family { load_balancer: owner.clone(), range, vip });
            }
            for (endpoint, pool) in &balancer.listeners {
                if !self.pools.contains_key(pool) {
                    return Err(InvalidState::NoSuchPool {
                        load_balancer: owner.clone(),
                        endpoint: *endpoint,
                        pool: pool.clone(),
                    });
                }
                if let Some(first) = claims.insert((balancer.vip, *endpoint), owner) {
                    return Err(InvalidState::Conflict {
                        first: first.clone(),
                        second: owner.clone(),
                        vip: balancer.vip,
                        endpoint: *endpoint,
                    });
                }
            }
        }
        Ok(())
    }
}

fn check_station(whose: impl Fn() -> String, address: IpAddr) -> Result<(), InvalidState> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast || mapped {
        return Err(InvalidState::Address { whose: whose(), address });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
