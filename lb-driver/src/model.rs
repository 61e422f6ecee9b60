//! What is wanted of a load balancer, whatever device it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    num::NonZeroU16,
    str::FromStr,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

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

/// Whom an object belongs to, and at the same time its name: unique among objects of one kind.
///
/// Prints as `project/cluster/object`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    project: String,
    cluster: String,
    object: String,
}

/// Longest part of an [`Owner`] and longest name of a member.
pub const NAME_LENGTH: usize = 128;

impl Owner {
    /// Each part has 1 to [`NAME_LENGTH`] characters of `A-Z a-z 0-9 . _ -`.
    pub fn new(
        project: impl Into<String>,
        cluster: impl Into<String>,
        object: impl Into<String>,
    ) -> Result<Self, InvalidName> {
        let owner = Self { project: project.into(), cluster: cluster.into(), object: object.into() };
        check_name("project", &owner.project)?;
        check_name("cluster", &owner.cluster)?;
        check_name("object", &owner.object)?;
        Ok(owner)
    }

    /// The OpenStack project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The cluster's identity.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The object's name within the cluster.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Another object of the same cluster.
    pub fn sibling(&self, object: impl Into<String>) -> Result<Self, InvalidName> {
        Self::new(self.project.clone(), self.cluster.clone(), object)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.cluster, self.object)
    }
}

impl FromStr for Owner {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [project, cluster, object] => Self::new(project, cluster, object),
            _ => Err(InvalidName {
                field: "owner",
                value: text.to_owned(),
                expected: "project/cluster/object".to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

/// A name that does not have the form of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not a name: expected {expected}")]
pub struct InvalidName {
    /// Which part of the name.
    pub field: &'static str,
    /// What stood there.
    pub value: String,
    /// What may stand there.
    pub expected: String,
}

/// Checks a name against the form of names: 1 to [`NAME_LENGTH`] characters of `A-Z a-z 0-9 . _ -`.
pub fn check_name(field: &'static str, value: &str) -> Result<(), InvalidName> {
    let fits = (1..=NAME_LENGTH).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        return Ok(());
    }
    Err(InvalidName {
        field,
        value: value.to_owned(),
        expected: format!("1 to {NAME_LENGTH} characters of A-Z a-z 0-9 . _ -"),
    })
}

/// A set of nodes. Under direct server return no port is translated, so a pool needs no port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// Members by name.
    pub members: BTreeMap<String, Member>,
    /// How they are checked; without one, every member counts as healthy.
    pub check: Option<Check>,
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
}

impl Check {
    /// The port that is checked: what the members' security group must admit.
    pub fn port(&self) -> NonZeroU16 {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } => *port,
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

/// A station's Ethernet address: neither a group's nor all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// From its bytes.
    pub fn new(bytes: [u8; 6]) -> Result<Self, InvalidMac> {
        let mac = Self(bytes);
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(InvalidMac { value: mac.to_string() });
        }
        Ok(mac)
    }

    /// Its bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac { value: text.to_owned() };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = InvalidMac;

    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

/// Text that is no station's Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is not a MAC address of a station: expected six pairs of hexadecimal digits like 52:54:00:12:34:56"
)]
pub struct InvalidMac {
    /// What stood there.
    pub value: String,
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
mod tests {
    use super::*;

    fn owner(object: &str) -> Owner {
        Owner::new("p", "c", object).unwrap()
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { protocol: Protocol::Tcp, port: NonZeroU16::new(port).unwrap() }
    }

    fn balancer(vip: &str, pool: &str) -> LoadBalancer {
        LoadBalancer {
            vip: vip.parse().unwrap(),
            listeners: BTreeMap::from([(endpoint(80), owner(pool))]),
            source_ranges: BTreeSet::new(),
            affinity: Affinity::None,
        }
    }

    #[test]
    fn owners_print_as_they_parse() {
        let text = "0f0c/9f8e-11/svc-1";
        assert_eq!(text.parse::<Owner>().unwrap().to_string(), text);
        for wrong in ["", "a/b", "a/b/c/d", "a//c", "a/b/ c", "a/b/ü"] {
            assert!(wrong.parse::<Owner>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mac_address_is_a_stations() {
        let text = "fa:16:3e:00:0a:ff";
        assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), text);
        for wrong in [
            "",
            "fa:16:3e:00:0a",
            "fa:16:3e:00:0a:ff:00",
            "fa-16-3e-00-0a-ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+a:16:3e:00:0a:f",
        ] {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_no_device_can_do_is_named() {
        let mut state = State::default();
        state.load_balancers.insert(owner("a"), balancer("203.0.113.17", "nodes"));
        assert_eq!(
            state.check().unwrap_err().to_string(),
            "load balancer p/c/a: TCP/80: pool p/c/nodes is not in the state"
        );
        state.pools.insert(owner("nodes"), Pool::default());
        state.check().unwrap();
        state.load_balancers.insert(owner("b"), balancer("203.0.113.17", "nodes"));
        assert_eq!(
            state.check().unwrap_err().to_string(),
            "load balancers p/c/a and p/c/b: both listen on TCP/80 of 203.0.113.17"
        );
        state.load_balancers.insert(owner("b"), balancer("224.0.0.1", "nodes"));
        assert!(state.check().unwrap_err().to_string().contains("224.0.0.1"));
    }
}
