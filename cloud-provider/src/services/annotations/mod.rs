//! What a Service asks for beyond its ports, and what of that direct server return cannot give.

mod tables;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ake_api_client::Family;
use ipnetwork::IpNetwork;

use super::view::ServiceView;
pub use tables::*;

/// How long a node that leaves keeps its flows where nobody says it, in seconds.
pub const DRAIN_SECONDS: u32 = 30;

/// What [`RETAIN`] may be.
pub(super) const RETAIN_WORDS: &str = "true, false or project";

/// What is expected of [`RETAIN`] and [`KEEP_FLOATING_IP`] beside [`SHARE`].
pub(super) const NOT_BOTH: &str = "false, or none, together with ake.dev/share: a shared VIP is nobody's to keep, it goes with the last of its Services";

/// The longest that a Service can ask for, in seconds.
const LONGEST_DRAIN: u32 = 3600;

/// Something in a Service that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it stands, as in `spec.loadBalancerIP`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// Whether the Service gets no load balancer, or an unchanged one, because of it.
    pub refused: bool,
}

impl Finding {
    /// One for which the Service gets no load balancer.
    pub fn refused(field: impl Into<String>, value: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.into(), expected: expected.into(), refused: true }
    }

    /// One that is told and has no effect.
    pub fn ignored(field: impl Into<String>, value: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { refused: false, ..Self::refused(field, value, expected) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, expected, refused } = self;
        let effect = if *refused { "" } else { " (ignored)" };
        write!(f, "{field} = {value:?}: expected {expected}{effect}")
    }
}

/// Where an annotation stands.
#[must_use]
pub fn field(annotation: &str) -> String {
    format!("metadata.annotations[{annotation}]")
}

/// A node selector: labels that must be there, with that value if one is given.
pub type NodeSelector = BTreeMap<String, Option<String>>;

/// What is asked of a node before it takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthCheck {
    /// kube-proxy answers.
    Node,
    /// kube-proxy answers, and the VIP itself through the node.
    Vip,
    /// Nothing.
    None,
}

/// How long a Service's VIPs are its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Retain {
    /// Until it goes.
    #[default]
    No,
    /// They stay reserved for its name, until the cluster goes.
    Cluster,
    /// The same, and they stay the project's when the cluster goes.
    Project,
}

/// What a Service asks for, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Certain VIPs, by family.
    pub addresses: BTreeMap<Family, IpAddr>,
    /// Where its VIPs shall be from; empty for anywhere.
    pub ranges: Vec<IpNetwork>,
    /// The key of the Services that it shares VIPs with.
    pub share: Option<String>,
    /// Namespaces that it shares VIPs with; `*` for all.
    pub share_with: BTreeSet<String>,
    /// What its VIPs shall be that was there before, by family: a retained address, or a port's id.
    pub adopt: BTreeMap<Family, String>,
    /// What stays of its VIPs when it goes.
    pub retain: Retain,
    /// How long a node that leaves keeps its flows, in seconds.
    pub drain_seconds: u32,
    /// What is asked of a node; none if it did not say.
    pub health_check: Option<HealthCheck>,
    /// Clients that are let in; empty for everybody.
    pub source_ranges: Vec<IpNetwork>,
    /// Nodes that carry the Service.
    pub node_selector: NodeSelector,
    /// Whether a client keeps its node.
    pub client_affinity: bool,
}

/// Reads a Service's wishes. With a finding that is `refused` they must not be acted on.
#[must_use]
pub fn read(service: &ServiceView) -> (Wishes, Vec<Finding>) {
    let mut reader = Reader { service, findings: Vec::new() };
    let wishes = Wishes {
        addresses: reader.addresses(),
        adopt: reader.adopt(),
        ranges: reader.ranges(RANGE),
        share: reader.share(),
        share_with: reader.list(SHARE_WITH).into_iter().map(ToOwned::to_owned).collect(),
        retain: reader.retain(),
        drain_seconds: reader.drain_seconds(),
        health_check: reader.health_check(),
        source_ranges: reader.source_ranges(),
        node_selector: reader.node_selector(),
        client_affinity: service.client_affinity | reader.is_by_source(),
    };
    reader.refuse_what_cannot_be();
    reader.refuse_two_addresses(&wishes);
    reader.tell_what_has_no_effect();
    (wishes, reader.findings)
}

struct Reader<'a> {
    service: &'a ServiceView,
    findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    fn annotation(&self, name: &str) -> Option<&'a str> {
        self.service.annotations.get(name).map(|value| value.trim())
    }

    fn list(&self, name: &str) -> Vec<&'a str> {
        parts(self.annotation(name).unwrap_or_default())
    }

    fn refuse(&mut self, field: impl Into<String>, value: &str, expected: &str) {
        self.findings.push(Finding::refused(field, value, expected));
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.annotation(name).filter(|value| !value.is_empty())?;
        match value.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.refuse(field(name), value, "true or false");
                None
            }
        }
    }

    fn addresses(&mut self) -> BTreeMap<Family, IpAddr> {
        let (at, values) = match self.annotation(ADDRESS) {
            Some(_) => (field(ADDRESS), self.list(ADDRESS)),
            None => {
                let value = self.service.load_balancer_ip.as_deref();
                ("spec.loadBalancerIP".to_owned(), value.into_iter().collect())
            }
        };
        let mut addresses = BTreeMap::new();
        for value in values {
            let Ok(address) = value.parse::<IpAddr>() else {
                self.refuse(&at, value, "an IPv4 or IPv6 address of the cluster's VIP blocks");
                continue;
            };
            let family = if address.is_ipv6() { Family::V6 } else { Family::V4 };
            if addresses.insert(family, address).is_some() {
                self.refuse(&at, value, "at most one address of each family");
            }
        }
        addresses
    }

    fn adopt(&mut self) -> BTreeMap<Family, String> {
        let mut adopt = BTreeMap::new();
        let (certain, ports): (Vec<&str>, Vec<&str>) =
            self.list(ADOPT).into_iter().partition(|value| value.parse::<IpAddr>().is_ok());
        for value in certain {
            let family = if value.contains(':') { Family::V6 } else { Family::V4 };
            if adopt.insert(family, value.to_owned()).is_some() {
                self.refuse(field(ADOPT), value, "at most one address of each family");
            }
        }
        for value in ports {
            let free: Vec<Family> =
                self.service.families.iter().copied().filter(|f| !adopt.contains_key(f)).collect();
            if value.parse::<uuid::Uuid>().is_err() {
                self.refuse(
                    field(ADOPT),
                    value,
                    "an IP address that the project has retained, or the id of a port",
                );
            } else if free.is_empty() {
                self.refuse(
                    field(ADOPT),
                    value,
                    "at most one address of each family of the Service, or one port for those without",
                );
            }
            adopt.extend(free.into_iter().map(|family| (family, value.to_owned())));
        }
        adopt
    }

    /// A port is not looked at here: only Neutron knows its addresses.
    fn refuse_two_addresses(&mut self, wishes: &Wishes) {
        for (family, adopted) in &wishes.adopt {
            let Some(wished) = wishes.addresses.get(family) else { continue };
            if adopted.parse::<IpAddr>().is_ok_and(|adopted| adopted != *wished) {
                let expected = format!(
                    "{wished}, which spec.loadBalancerIP or {ADDRESS} asks for, or one of the two alone"
                );
                self.refuse(field(ADOPT), adopted, &expected);
            }
        }
    }

    fn retain(&mut self) -> Retain {
        let kept = self.boolean(KEEP_FLOATING_IP).map(|kept| if kept { Retain::Cluster } else { Retain::No });
        let value = self.annotation(RETAIN).unwrap_or_default();
        let said = match value.to_ascii_lowercase().as_str() {
            "" => None,
            "true" => Some(Retain::Cluster),
            "project" => Some(Retain::Project),
            "false" => Some(Retain::No),
            _ => {
                self.refuse(field(RETAIN), value, RETAIN_WORDS);
                None
            }
        };
        let retain = said.or(kept).unwrap_or_default();
        if retain != Retain::No && self.annotation(SHARE).is_some() {
            let name = if said.is_some() { RETAIN } else { KEEP_FLOATING_IP };
            self.refuse(field(name), self.annotation(name).unwrap_or_default(), NOT_BOTH);
        }
        retain
    }

    fn ranges(&mut self, name: &str) -> Vec<IpNetwork> {
        let values = self.list(name).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>();
        self.networks(&field(name), &values)
    }

    fn networks(&mut self, at: &str, values: &[String]) -> Vec<IpNetwork> {
        let mut networks = Vec::new();
        for value in values.iter().map(|value| value.trim()) {
            match value.parse::<IpNetwork>() {
                Ok(network) if value.contains('/') => networks.push(masked(network)),
                _ => self.refuse(at, value, "a range such as 192.0.2.0/24"),
            }
        }
        networks.sort();
        networks.dedup();
        networks
    }

    fn source_ranges(&mut self) -> Vec<IpNetwork> {
        if self.service.source_ranges.is_empty() {
            return self.ranges(SOURCE_RANGES);
        }
        self.networks("spec.loadBalancerSourceRanges", &self.service.source_ranges)
    }

    fn share(&mut self) -> Option<String> {
        let key = self.annotation(SHARE);
        if key.is_none() && self.annotation(SHARE_WITH).is_some() {
            self.refuse(field(SHARE), "", "a key, since ake.dev/share-with is given");
        }
        let key = key?;
        if key.is_empty() || key.chars().count() > 63 || key.chars().any(char::is_control) {
            self.refuse(field(SHARE), key, "1 to 63 printable characters");
            return None;
        }
        Some(key.to_owned())
    }

    fn drain_seconds(&mut self) -> u32 {
        let Some(value) = self.annotation(DRAIN) else { return DRAIN_SECONDS };
        value.parse().ok().filter(|seconds| *seconds <= LONGEST_DRAIN).unwrap_or_else(|| {
            self.refuse(field(DRAIN), value, "a number of seconds from 0 to 3600");
            DRAIN_SECONDS
        })
    }

    fn health_check(&mut self) -> Option<HealthCheck> {
        let monitored = self.boolean(HEALTH_MONITOR);
        match self.annotation(HEALTH_CHECK) {
            None => monitored.filter(|monitored| !monitored).map(|_| HealthCheck::None),
            Some("node") => Some(HealthCheck::Node),
            Some("vip") => Some(HealthCheck::Vip),
            Some("none") => Some(HealthCheck::None),
            Some(other) => {
                self.refuse(field(HEALTH_CHECK), other, "node, vip or none");
                None
            }
        }
    }

    fn node_selector(&mut self) -> NodeSelector {
        let mut selector = NodeSelector::new();
        for part in self.list(NODE_SELECTOR) {
            let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
            if key.is_empty() {
                self.refuse(field(NODE_SELECTOR), part, "key=value or key");
            } else {
                selector.insert(key.to_owned(), value.map(ToOwned::to_owned));
            }
        }
        selector
    }

    fn is_by_source(&mut self) -> bool {
        let method = self.annotation(METHOD).unwrap_or("SOURCE_IP_PORT");
        match method.to_ascii_uppercase().as_str() {
            "SOURCE_IP" => return true,
            "SOURCE_IP_PORT" => {}
            _ => self.findings.push(Finding::ignored(
                field(METHOD),
                method,
                "SOURCE_IP or SOURCE_IP_PORT: flows are spread by hash",
            )),
        }
        false
    }

    fn refuse_what_cannot_be(&mut self) {
        for (name, expected) in IMPOSSIBLE {
            let name = format!("{OPENSTACK}{name}");
            let value = self.annotation(&name).unwrap_or_default();
            if !value.is_empty() && !value.eq_ignore_ascii_case("false") {
                self.refuse(field(&name), value, expected);
            }
        }
        for port in &self.service.ports {
            if port.protocol.is_none() {
                let at = format!("spec.ports[{}].protocol", port.port);
                self.refuse(at, &port.protocol_text, "TCP, UDP or SCTP");
            }
        }
    }

    fn tell_what_has_no_effect(&mut self) {
        for (name, expected) in WITHOUT_EFFECT {
            let name = format!("{OPENSTACK}{name}");
            match self.annotation(&name) {
                None => {}
                Some("-1") if name.ends_with("/connection-limit") => {}
                Some(value) => self.findings.push(Finding::ignored(field(&name), value, *expected)),
            }
        }
        if self.boolean(INTERNAL) == Some(false) {
            let expected = "true, or none: there are no floating IPs";
            self.findings.push(Finding::ignored(field(INTERNAL), "false", expected));
        }
        for (name, value) in &self.service.annotations {
            if (name.starts_with(OPENSTACK) || name.starts_with(OURS)) && !is_known(name) {
                let expected = "one of the annotations of the reference page: this one is not known";
                self.findings.push(Finding::ignored(field(name), value, expected));
            }
        }
    }
}

fn parts(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// The range without the bits behind its prefix, as the cloud writes it.
fn masked(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}
