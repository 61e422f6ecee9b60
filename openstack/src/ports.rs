//! Neutron: ports.

use std::net::IpAddr;

use http::Method;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Error, Service, Session, page};

/// A port.
#[derive(Debug, Clone, Deserialize)]
pub struct Port {
    /// Its UUID.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What its owner wrote to it.
    #[serde(default)]
    pub description: String,
    /// The network that it is on.
    pub network_id: String,
    /// The project that it belongs to.
    #[serde(default)]
    pub project_id: String,
    /// Its MAC address.
    #[serde(default)]
    pub mac_address: String,
    /// Its own addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// What else it may send and receive.
    #[serde(default)]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// The server or other thing that it is of.
    #[serde(default)]
    pub device_id: String,
    /// What kind of thing that is: `compute:<zone>` for servers.
    #[serde(default)]
    pub device_owner: String,
    /// ACTIVE, DOWN, BUILD, ...
    #[serde(default)]
    pub status: String,
    /// Words on it.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its security groups.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Counts its changes; see [`update`].
    #[serde(default)]
    pub revision_number: u64,
}

impl Port {
    /// Its own addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.fixed_ips.iter().map(|fixed| fixed.ip_address)
    }
}

/// An address of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// The subnet it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,
    /// The address.
    pub ip_address: IpAddr,
}

/// Something that a port may send and receive besides its own address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "WrittenPair", into = "WrittenPair")]
pub struct AddressPair {
    /// An address or a range.
    pub ip_address: IpNetwork,
    /// Whether an address is written without a prefix length. Neutron keeps and shows it as it was written, and takes the two
    /// for different ones.
    pub bare: bool,
    /// The port's own, if absent.
    pub mac_address: Option<String>,
}

/// The same, in Neutron's words.
#[derive(Serialize, Deserialize)]
struct WrittenPair {
    ip_address: Written,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac_address: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Address(IpAddr),
    Range(IpNetwork),
}

impl From<WrittenPair> for AddressPair {
    fn from(written: WrittenPair) -> Self {
        let (ip_address, bare) = match written.ip_address {
            Written::Address(address) => (address.into(), true),
            Written::Range(range) => (range, false),
        };
        Self { ip_address, bare, mac_address: written.mac_address }
    }
}

impl From<AddressPair> for WrittenPair {
    fn from(pair: AddressPair) -> Self {
        let ip_address =
            if pair.bare { Written::Address(pair.ip_address.ip()) } else { Written::Range(pair.ip_address) };
        Self { ip_address, mac_address: pair.mac_address }
    }
}

/// Which ports to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this server or other thing.
    pub device_id: Option<String>,
    /// Of a thing of this kind.
    pub device_owner: Option<String>,
    /// With this address.
    pub ip_address: Option<IpAddr>,
    /// On this network.
    pub network_id: Option<String>,
    /// Of this project.
    pub project_id: Option<String>,
    /// With this name.
    pub name: Option<String>,
    /// With all of these tags.
    pub tags: Vec<String>,
}

/// A port to be made.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewPort {
    /// The network.
    pub network_id: String,
    /// Its name.
    pub name: String,
    /// What to write to it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its addresses; chosen by Neutron if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<FixedIp>,
    /// The thing that it is of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_id: String,
    /// What kind of thing that is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_owner: String,
    /// The project that it shall belong to; ours if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Its security groups; the project's default one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Whether it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state_up: Option<bool>,
    /// Whether the switch checks what it sends; it does unless this is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security_enabled: Option<bool>,
}

/// What to change on a port; what is absent stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PortUpdate {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is written to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// All that it may send and receive besides its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_address_pairs: Option<Vec<AddressPair>>,
    /// All its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ips: Option<Vec<FixedIp>>,
    /// The thing that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// What kind of thing that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_owner: Option<String>,
}

/// One port.
pub async fn get(session: &Session, id: &str) -> Result<Port, Error> {
    session
        .call(Service::Network, Method::GET, "get port", format!("/ports/{id}"))
        .about(id)
        .fetch("port")
        .await
}

/// All ports that we see and that pass the filter.
pub async fn list(session: &Session, filter: &Filter) -> Result<Vec<Port>, Error> {
    let mut call = session.call(Service::Network, Method::GET, "list ports", "/ports");
    for (name, value) in [
        ("device_id", &filter.device_id),
        ("device_owner", &filter.device_owner),
        ("network_id", &filter.network_id),
        ("project_id", &filter.project_id),
        ("name", &filter.name),
    ] {
        if let Some(value) = value {
            call = call.query(name, value);
        }
    }
    if let Some(address) = filter.ip_address {
        call = call.query("fixed_ips", format!("ip_address={address}"));
    }
    if !filter.tags.is_empty() {
        call = call.query("tags", filter.tags.join(","));
    }
    page::collect(call, "ports").await
}

/// Makes a port. An address that is taken is a conflict (`IpAddressAlreadyAllocated`).
pub async fn create(session: &Session, port: &NewPort) -> Result<Port, Error> {
    session
        .call(Service::Network, Method::POST, "create port", "/ports")
        .about(&port.name)
        .body(json!({ "port": port }))
        .fetch("port")
        .await
}

/// Changes a port. With a revision it is a conflict if the port has changed since that one.
pub async fn update(
    session: &Session,
    id: &str,
    revision: Option<u64>,
    change: &PortUpdate,
) -> Result<Port, Error> {
    let mut call = session
        .call(Service::Network, Method::PUT, "update port", format!("/ports/{id}"))
        .about(id)
        .body(json!({ "port": change }));
    if let Some(revision) = revision {
        call = call.header("If-Match", format!("revision_number={revision}"));
    }
    call.fetch("port").await
}

/// Puts these tags on a port, and no others.
pub async fn replace_tags(session: &Session, id: &str, tags: &[String]) -> Result<(), Error> {
    session
        .call(Service::Network, Method::PUT, "tag port", format!("/ports/{id}/tags"))
        .about(id)
        .body(json!({ "tags": tags }))
        .send()
        .await
        .map(drop)
}

/// Deletes a port; one that is gone already is success.
pub async fn delete(session: &Session, id: &str) -> Result<(), Error> {
    session
        .call(Service::Network, Method::DELETE, "delete port", format!("/ports/{id}"))
        .about(id)
        .send_unless_missing()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_as_neutron_writes_it() {
        let pairs = json!([{"ip_address": "10.240.1.0/24", "mac_address": "fa:16:3e:00:00:01"},
                           {"ip_address": "203.0.113.17", "mac_address": "fa:16:3e:00:00:01"},
                           {"ip_address": "203.0.113.18/32"}]);
        let port: Port = serde_json::from_value(json!({
            "id": "p", "network_id": "n", "fixed_ips": [{"subnet_id": "s", "ip_address": "192.168.77.20"}],
            "allowed_address_pairs": pairs,
            "revision_number": 7, "binding:vnic_type": "normal"
        }))
        .unwrap();
        assert_eq!(port.allowed_address_pairs[1].ip_address.to_string(), "203.0.113.17/32");
        assert_eq!(serde_json::to_value(&port.allowed_address_pairs).unwrap(), pairs, "as it was written");
        assert_eq!(port.addresses().next().map(|a| a.to_string()).as_deref(), Some("192.168.77.20"));
    }

    #[test]
    fn nothing_is_sent_that_was_not_said() {
        let port = NewPort { network_id: "n".into(), name: "a".into(), ..NewPort::default() };
        assert_eq!(serde_json::to_value(port).unwrap(), json!({"network_id": "n", "name": "a"}));
    }
}
