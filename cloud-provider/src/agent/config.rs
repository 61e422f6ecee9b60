//! `/etc/ake/node.json`: what the template wrote for this node. Nothing in it is secret but the claim and the
//! signal's token.

use std::{fmt::Display, net::IpAddr, path::Path, str::FromStr};

use base64::Engine;
use ipnetwork::IpNetwork;
use serde::Deserialize;

/// Where it stands on a node.
pub const PATH: &str = "/etc/ake/node.json";

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not the JSON that is expected.
    #[error("{PATH}: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field has a value that cannot be meant.
    #[error("{PATH}: {field} is {value:?}, expected {expected}")]
    Invalid {
        /// Its name, with dots.
        field: String,
        /// Its value.
        value: String,
        /// What was expected.
        expected: String,
    },
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs the control plane; is no Node.
    Master,
    /// Runs pods.
    Worker,
}

impl Role {
    /// As templates, tags and bundles write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Worker => "worker",
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "master" => Ok(Self::Master),
            "worker" => Ok(Self::Worker),
            _ => Err(()),
        }
    }
}

/// A master, as all nodes know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Name of its server.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
}

/// Where the wait condition's handle takes its signal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Signal {
    /// URL of the handle.
    pub url: String,
    /// Token that the handle takes.
    pub token: String,
}

/// The checked content of `node.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The cluster's identity.
    pub cluster: uuid::Uuid,
    /// The cluster's name, for people.
    pub cluster_name: String,
    /// What this node is for.
    pub role: Role,
    /// Name of the server, and of the Node on a worker.
    pub name: String,
    /// URL of `ake-api`.
    pub api_url: String,
    /// CA bundle of `ake-api`, PEM; empty where the system's serve.
    pub api_ca: String,
    /// The claim's id.
    pub claim_id: String,
    /// The key that opens the bundle.
    pub claim_key: [u8; 32],
    /// The VIP of the API server.
    pub vip: IpAddr,
    /// The port of the API server.
    pub port: u16,
    /// All masters.
    pub masters: Vec<Master>,
    /// The ranges that the cluster's pods have their addresses from: one for each family, the cluster's first one first.
    pub pod_ranges: Vec<IpNetwork>,
    /// The ranges of Services' addresses, of the same families in the same order.
    pub service_ranges: Vec<IpNetwork>,
    /// The address of the cluster's DNS.
    pub cluster_dns: IpAddr,
    /// The cluster's blocks of the VIP range.
    pub vip_blocks: Vec<IpNetwork>,
    /// Id of the cluster's security group.
    pub security_group: String,
}

impl NodeConfig {
    /// Reads the file of this node.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&read(path)?)
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let raw: Raw = serde_json::from_str(text)?;
        let key = base64::engine::general_purpose::STANDARD.decode(&raw.claim.key).unwrap_or_default();
        let config = Self {
            cluster: field("cluster", &raw.cluster, "a UUID")?,
            cluster_name: raw.cluster_name,
            role: field("role", &raw.role, "master or worker")?,
            name: host_name("name", raw.name)?,
            api_url: https("api.url", raw.api.url)?,
            api_ca: raw.api.ca.unwrap_or_default(),
            claim_id: raw.claim.id,
            claim_key: key.try_into().map_err(|_| Error::Invalid {
                field: "claim.key".into(),
                value: "(not shown)".into(),
                expected: "32 bytes in base64".into(),
            })?,
            vip: field("control_plane.vip", &raw.control_plane.vip, "an IP address")?,
            port: raw.control_plane.port,
            masters: raw
                .control_plane
                .masters
                .into_iter()
                .enumerate()
                .map(|(number, master)| {
                    let name = format!("control_plane.masters[{number}]");
                    Ok(Master {
                        address: field(&format!("{name}.address"), &master.address, "an IP address")?,
                        name: host_name(&format!("{name}.name"), master.name)?,
                    })
                })
                .collect::<Result<_, Error>>()?,
            pod_ranges: networks("pod_ranges", &raw.pod_ranges)?,
            service_ranges: networks("service_ranges", &raw.service_ranges)?,
            cluster_dns: field("cluster_dns", &raw.cluster_dns, "an IP address")?,
            vip_blocks: networks("vip_blocks", &raw.vip_blocks)?,
            security_group: raw.security_group,
        };
        config.check()
    }

    fn check(self) -> Result<Self, Error> {
        let invalid = |field: &str, value: String, expected: String| {
            Err(Error::Invalid { field: field.into(), value, expected })
        };
        let families =
            |ranges: &[IpNetwork]| -> Vec<bool> { ranges.iter().map(IpNetwork::is_ipv6).collect() };
        let pods = families(&self.pod_ranges);
        if ![&[false][..], &[true], &[false, true], &[true, false]].contains(&pods.as_slice()) {
            return invalid(
                "pod_ranges",
                listed(&self.pod_ranges),
                "one range, or one of each family".into(),
            );
        }
        if families(&self.service_ranges) != pods {
            let expected = format!("ranges of the families of pod_ranges ({})", listed(&self.pod_ranges));
            return invalid("service_ranges", listed(&self.service_ranges), expected);
        }
        if !self.service_ranges.iter().any(|range| range.contains(self.cluster_dns)) {
            let expected = format!("an address within service_ranges ({})", listed(&self.service_ranges));
            return invalid("cluster_dns", self.cluster_dns.to_string(), expected);
        }
        if self.masters.is_empty() {
            return invalid("control_plane.masters", "[]".into(), "at least one master".into());
        }
        if self.role == Role::Master && self.own_master().is_none() {
            let names: Vec<_> = self.masters.iter().map(|master| master.name.as_str()).collect();
            return invalid(
                "name",
                self.name.clone(),
                format!("the name of one of control_plane.masters ({})", names.join(", ")),
            );
        }
        if self.claim_id.is_empty() {
            return invalid("claim.id", String::new(), "the id of a claim".into());
        }
        Ok(self)
    }

    /// Whether pods have IPv6 addresses.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.pod_ranges.iter().any(IpNetwork::is_ipv6)
    }

    /// This node's entry among the masters, if it is one.
    #[must_use]
    pub fn own_master(&self) -> Option<&Master> {
        self.masters.iter().find(|master| master.name == self.name)
    }

    /// Where this node reaches the API server: a master talks to itself, a worker to the VIP.
    #[must_use]
    pub fn server(&self) -> String {
        match (self.role, self.vip) {
            (Role::Master, _) => format!("https://127.0.0.1:{}", self.port),
            (Role::Worker, IpAddr::V4(vip)) => format!("https://{vip}:{}", self.port),
            (Role::Worker, IpAddr::V6(vip)) => format!("https://[{vip}]:{}", self.port),
        }
    }
}

/// Where to signal to, also from a file whose other fields are wrong.
pub fn signal(path: &Path) -> Result<(String, Signal, Option<String>), Error> {
    #[derive(Deserialize)]
    struct Part {
        name: String,
        signal: Signal,
        api: Option<RawApi>,
    }
    let part: Part = serde_json::from_str(&read(path)?)?;
    Ok((part.name, part.signal, part.api.and_then(|api| api.ca)))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.display().to_string(), source })
}

fn field<T: FromStr>(name: &str, value: &str, expected: &str) -> Result<T, Error> {
    value.parse().map_err(|_| Error::Invalid {
        field: name.into(),
        value: value.into(),
        expected: expected.into(),
    })
}

fn network(name: &str, value: &str) -> Result<IpNetwork, Error> {
    let expected = "a network as ADDRESS/PREFIX without host bits";
    let network: IpNetwork = field(name, value, expected)?;
    if !value.contains('/') || network.ip() != network.network() {
        return Err(Error::Invalid { field: name.into(), value: value.into(), expected: expected.into() });
    }
    Ok(network)
}

fn networks(name: &str, values: &[String]) -> Result<Vec<IpNetwork>, Error> {
    let numbered = values.iter().enumerate();
    numbered.map(|(number, value)| network(&format!("{name}[{number}]"), value)).collect()
}

/// Ranges as flags of Kubernetes and messages write them.
pub fn listed(ranges: &[IpNetwork]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Names end up in file names, flags and certificates.
fn host_name(name: &str, value: String) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if value.is_empty() || value.len() > 63 || !value.chars().all(fits) {
        return Err(Error::Invalid {
            field: name.into(),
            value,
            expected: "1 to 63 characters of a-z, 0-9, - and .".into(),
        });
    }
    Ok(value)
}

fn https(name: &str, value: String) -> Result<String, Error> {
    if value.starts_with("https://") {
        return Ok(value);
    }
    Err(Error::Invalid { field: name.into(), value, expected: "a URL that begins with https://".into() })
}

#[derive(Deserialize)]
struct Raw {
    cluster: String,
    #[serde(default)]
    cluster_name: String,
    role: String,
    name: String,
    api: RawApi,
    claim: RawClaim,
    control_plane: RawControlPlane,
    pod_ranges: Vec<String>,
    service_ranges: Vec<String>,
    cluster_dns: String,
    vip_blocks: Vec<String>,
    #[serde(default)]
    security_group: String,
}

#[derive(Deserialize)]
struct RawApi {
    url: String,
    ca: Option<String>,
}

#[derive(Deserialize)]
struct RawClaim {
    id: String,
    key: String,
}

#[derive(Deserialize)]
struct RawControlPlane {
    vip: String,
    port: u16,
    masters: Vec<RawMaster>,
}

#[derive(Deserialize)]
struct RawMaster {
    name: String,
    address: String,
}

#[cfg(test)]
pub(crate) mod tests;
