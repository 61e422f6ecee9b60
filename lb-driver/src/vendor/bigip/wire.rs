//! Objects of iControl REST, as far as the driver writes them. Reading accepts every form that the device
//! gives back: numbers as text, several words for yes, paths with and without their partition.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::forms::{address, destination, monitors, named_none, none, number, or_none, text};

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its address.
    #[serde(deserialize_with = "address")]
    pub address: IpAddr,
    /// Whose it is.
    #[serde(default)]
    pub description: String,
}

/// A health check, `ltm monitor tcp` or `ltm monitor http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Monitor {
    /// What is asked instead of the member: `*:port`, or a VIP through the member.
    #[serde(deserialize_with = "destination")]
    pub destination: String,
    /// Seconds between checks.
    #[serde(deserialize_with = "number")]
    pub interval: u32,
    /// Seconds without success before a member is down.
    #[serde(deserialize_with = "number")]
    pub timeout: u32,
    /// `enabled`: the packets keep the destination and are sent to the member.
    pub transparent: String,
    /// What is said.
    #[serde(default = "none", deserialize_with = "or_none")]
    pub send: String,
    /// What the answer must match.
    #[serde(default = "none", deserialize_with = "or_none")]
    pub recv: String,
    /// Whose it is.
    #[serde(default)]
    pub description: String,
}

/// How packets are handled, `ltm profile fastl4`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FastL4 {
    /// Where the rest comes from.
    pub defaults_from: String,
    /// A FIN of the client alone ends a flow: the server's is never seen.
    pub loose_close: String,
    /// A flow may begin with any packet: after a failover it has no other.
    pub loose_initialization: String,
    /// Seconds.
    #[serde(deserialize_with = "text")]
    pub idle_timeout: String,
    /// Seconds from the client's FIN to the end of the flow.
    #[serde(deserialize_with = "text")]
    pub tcp_close_timeout: String,
    /// A RST would be the device's own, from the VIP.
    pub reset_on_timeout: String,
    /// SYN cookies need both directions.
    pub syn_cookie_enable: String,
    /// Whose it is.
    #[serde(default)]
    pub description: String,
}

/// Affinity by the client's address, `ltm persistence source-addr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceAddr {
    /// Where the rest comes from.
    pub defaults_from: String,
    /// All ports of a VIP share the records.
    pub match_across_services: String,
    /// Seconds.
    #[serde(deserialize_with = "text")]
    pub timeout: String,
}

/// Records by name, `ltm data-group internal` of type string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataGroup {
    /// `string`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In the order of their names.
    #[serde(default)]
    pub records: Vec<Record>,
    /// Whose it is, and what it says.
    #[serde(default)]
    pub description: String,
}

/// A record of a [`DataGroup`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// Its key.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub data: String,
}

/// A set of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// `ratio-member`.
    pub load_balancing_mode: String,
    /// Full paths of monitors, sorted, joined by ` and `; empty for none.
    #[serde(default, deserialize_with = "monitors", serialize_with = "named_none")]
    pub monitor: String,
    /// What becomes of the flows of a member that is down.
    pub service_down_action: String,
    /// Seconds in which a new member gets its full share.
    #[serde(deserialize_with = "number")]
    pub slow_ramp_time: u32,
    /// Whose it is.
    #[serde(default)]
    pub description: String,
    /// In the order of their names.
    pub members: Vec<Member>,
}

/// A member of a [`Pool`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// Full path of its node with the port 0: every port.
    pub name: String,
    /// Its share relative to others', 1 to 100.
    pub ratio: u32,
    /// `user-enabled`, or `user-disabled` where it takes no new flows.
    pub session: String,
    /// `user-up`; `user-down` was written by somebody else.
    pub state: String,
    /// Its name, and what the device has no property for.
    pub description: String,
}

/// The address of virtual servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualAddress {
    /// The VIP.
    #[serde(deserialize_with = "address")]
    pub address: IpAddr,
    /// Whether the device answers ARP and neighbour solicitations for it.
    pub arp: String,
    /// `false`: it goes when it is told to.
    #[serde(deserialize_with = "text")]
    pub auto_delete: String,
    /// Which unit of a pair has it.
    pub traffic_group: String,
    /// Whose it is.
    #[serde(default)]
    pub description: String,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Virtual {
    /// `/partition/address:port`, `/partition/address.port` for IPv6.
    pub destination: String,
    /// All ones.
    pub mask: String,
    /// `tcp`, `udp` or `sctp`.
    pub ip_protocol: String,
    /// Clients that it serves, as a range.
    pub source: String,
    /// Full path; empty for none.
    pub pool: String,
    /// Full paths.
    pub profiles: Vec<String>,
    /// Full paths.
    pub persist: Vec<String>,
    /// `disabled`.
    pub translate_address: String,
    /// `disabled`.
    pub translate_port: String,
    /// `none`.
    pub source_address_translation: Translation,
    /// `preserve`.
    pub source_port: String,
    /// `disabled`: with loose initialization flows outlive a failover without.
    pub mirror: String,
    /// Whether it listens.
    pub enabled: bool,
    /// Whose it is.
    pub description: String,
}

/// How the client's address is translated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// `none`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { full_path, ratio, session, state, description } = Read::deserialize(deserializer)?;
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            full_path: String,
            #[serde(deserialize_with = "number")]
            ratio: u32,
            session: String,
            state: String,
            #[serde(default)]
            description: String,
        }
        let name = match full_path.strip_suffix("any") {
            Some(rest) => format!("{rest}0"),
            None => full_path,
        };
        // what monitors say is no wish
        let session = if session == "user-disabled" { session } else { "user-enabled".to_owned() };
        let state = if state == "user-down" { state } else { "user-up".to_owned() };
        Ok(Self { name, ratio, session, state, description })
    }
}

impl<'de> Deserialize<'de> for Virtual {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Read {
            #[serde(deserialize_with = "destination")]
            destination: String,
            #[serde(default)]
            mask: String,
            ip_protocol: String,
            source: String,
            #[serde(default)]
            pool: String,
            #[serde(default)]
            profiles_reference: Reference,
            #[serde(default)]
            persist: Vec<Named>,
            translate_address: String,
            translate_port: String,
            source_address_translation: Translation,
            source_port: String,
            mirror: String,
            #[serde(default)]
            disabled: bool,
            #[serde(default)]
            description: String,
        }
        let read = Read::deserialize(deserializer)?;
        let profiles = read.profiles_reference.items.into_iter().map(Named::path);
        Ok(Self {
            destination: read.destination,
            mask: read.mask,
            ip_protocol: read.ip_protocol,
            source: read.source,
            pool: read.pool,
            profiles: profiles.collect(),
            persist: read.persist.into_iter().map(Named::path).collect(),
            translate_address: read.translate_address,
            translate_port: read.translate_port,
            source_address_translation: read.source_address_translation,
            source_port: read.source_port,
            mirror: read.mirror,
            enabled: !read.disabled,
            description: read.description,
        })
    }
}

/// An expanded subcollection.
#[derive(Debug, Default, Deserialize)]
struct Reference {
    #[serde(default)]
    items: Vec<Named>,
}

/// Something that is named by name and partition.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    partition: String,
}

impl Named {
    fn path(self) -> String {
        if self.name.starts_with('/') { self.name } else { format!("/{}/{}", self.partition, self.name) }
    }
}

/// Descriptions are written even when empty, so that a foreign word does not stay.
impl Serialize for super::objects::Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use super::objects::Object;
        match self {
            Object::Monitor(object) => object.serialize(serializer),
            Object::Node(object) => object.serialize(serializer),
            Object::Profile(object) => object.serialize(serializer),
            Object::Persistence(object) => object.serialize(serializer),
            Object::Group(object) => object.serialize(serializer),
            Object::Pool(object) => object.serialize(serializer),
            Object::Address(object) => object.serialize(serializer),
            Object::Virtual(object) => object.serialize(serializer),
        }
    }
}
