//! `AKE::Cluster::Registration`: made first, gone last.

use std::net::IpAddr;

use ake_api_client::{ClusterId, ClusterRequest};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    plan::{Invalid, Plan, Reclaim, Resource, Seen, Step},
    schema::{Attribute, Property, Reference, ResourceType, Type},
};

/// Its name in templates.
pub const NAME: &str = "AKE::Cluster::Registration";

/// Seconds to wait for servers and volumes to go.
const LIMIT_S: u64 = 900;

/// States of a volume in which Cinder deletes it.
const DELETABLE: [&str; 2] = ["available", "error"];

/// Families, as Kubernetes calls them.
const V4: &str = "IPv4";
const V6: &str = "IPv6";

/// A registration.
pub struct Registration {
    /// The cluster's id: that of the root stack.
    pub id: ClusterId,
    /// As the template has them.
    pub properties: Properties,
}

/// Its properties.
#[derive(Debug, Clone, Deserialize)]
pub struct Properties {
    /// For people.
    pub name: String,
    /// Id of the nodes' network.
    pub network: String,
    /// What Kubernetes is told.
    #[serde(default)]
    pub kubernetes: Kubernetes,
}

/// What Kubernetes is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Families of pods and Services; the first one is a Service's that asks for none.
    pub ip_families: Vec<String>,
    /// Addresses of Services.
    pub service_range: String,
    /// The same for IPv6.
    pub service_range_v6: String,
    /// The address of the cluster's DNS.
    pub cluster_dns: String,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            ip_families: vec![V4.to_owned()],
            service_range: "10.96.0.0/16".to_owned(),
            service_range_v6: "fd00:96::/112".to_owned(),
            cluster_dns: "10.96.0.10".to_owned(),
        }
    }
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    let defaults = Kubernetes::default();
    ResourceType {
        name: NAME,
        description: "Registers a cluster with ake-api, which gives it a range for its pods and a block of \
            addresses for its load balancers. Made first and gone last: when it goes, it waits until the \
            cluster's servers are gone, deletes the volumes whose reclaim policy is Delete, frees addresses and \
            ranges, and lists in an event the volumes that stay. It stands in the cluster's root stack, whose id \
            is the cluster's.",
        reference: Reference::RootStack,
        properties: vec![
            Property::new(
                "name",
                Type::String,
                "The cluster's name, and the first part of its nodes' names.",
            )
            .required()
            .length(1, 40)
            .pattern("[a-z]([-a-z0-9]*[a-z0-9])?"),
            Property::new("network", Type::String, "Name or id of the network that the nodes are on.")
                .required()
                .network(),
            Property::new("kubernetes", Type::Map, "What Kubernetes is told at its nodes' first start.")
                .default(json!({}))
                .fields(vec![
                    Property::new(
                        "ip_families",
                        Type::List,
                        "Families of pods and Services: [IPv4], [IPv4, IPv6] or [IPv6, IPv4]. The first one is that \
                            of a Service which asks for none. IPv6 needs an IPv6 subnet of the network with fixed \
                            addresses, and a pool of pod ranges that the operator gives it.",
                    )
                    .default(json!(defaults.ip_families))
                    .items(Property::new("family", Type::String, "IPv4 or IPv6.").one_of(&[V4, V6])),
                    Property::new("service_range", Type::String, "The range of the Services' addresses.")
                        .default(defaults.service_range)
                        .checked_as("net_cidr"),
                    Property::new(
                        "service_range_v6",
                        Type::String,
                        "The range of their IPv6 addresses, where ip_families has IPv6.",
                    )
                    .default(defaults.service_range_v6)
                    .checked_as("net_cidr"),
                    Property::new(
                        "cluster_dns",
                        Type::String,
                        "The address of the cluster's DNS in that range.",
                    )
                    .default(defaults.cluster_dns)
                    .checked_as("ip_addr"),
                ]),
        ],
        attributes: vec![
            Attribute::new("id", Type::String, "The cluster's id."),
            Attribute::new("pod_range", Type::String, "The range of the pods' IPv4 addresses."),
            Attribute::new("pod_ranges", Type::List, "One range for each of ip_families, in their order."),
            Attribute::new("service_ranges", Type::List, "The same of Services' addresses."),
            Attribute::new("vip_blocks", Type::List, "The blocks of addresses for load balancers."),
            Attribute::new("check_sources", Type::List, "Where health checks of the nodes come from."),
            Attribute::new("check_sources_v4", Type::List, "Those of them that are IPv4."),
            Attribute::new("check_sources_v6", Type::List, "Those of them that are IPv6."),
            Attribute::new("api_url", Type::String, "The address of ake-api."),
            Attribute::new(
                "api_ca",
                Type::String,
                "The CA that ake-api is trusted by, PEM; empty for the system's.",
            ),
            Attribute::new("kubernetes", Type::Map, "The property of that name, with defaults filled in."),
        ],
    }
}

impl Resource for Registration {
    fn wanted(&self, seen: &Seen) -> Result<Plan, Invalid> {
        self.properties.kubernetes.check()?;
        if let Some(state) = &seen.cluster {
            if state.cluster.deleting {
                return Err(Invalid::new(
                    "cluster",
                    self.id,
                    "a cluster that is not going away: delete the stack and make another",
                ));
            }
            if state.cluster.network == self.properties.network {
                self.properties.kubernetes.check_pods(state.cluster.pod_range_v6)?;
                return Ok(Plan::default());
            }
        }
        Ok(Plan::steps(vec![Step::PutCluster(ClusterRequest {
            name: self.properties.name.clone(),
            network: self.properties.network.clone(),
        })]))
    }

    fn unwanted(&self, seen: &Seen) -> Plan {
        let Some(state) = &seen.cluster else { return Plan::default() };
        if !state.cluster.deleting {
            return Plan::steps(vec![Step::MarkDeleting]);
        }
        if !seen.servers.is_empty() {
            let reason = format!("servers of the cluster are still there: {}", seen.servers.join(", "));
            return Plan::wait(reason, 3, LIMIT_S);
        }
        let (going, staying): (Vec<_>, Vec<_>) =
            seen.volumes.iter().partition(|volume| volume.reclaim == Reclaim::Delete);
        let steps: Vec<_> = going
            .iter()
            .filter(|volume| DELETABLE.contains(&volume.status.as_str()))
            .map(|volume| Step::DeleteVolume(volume.id.clone()))
            .collect();
        if !steps.is_empty() {
            return Plan::steps(steps);
        }
        if !going.is_empty() {
            let list = list(going.iter().map(|v| format!("{} ({}) is {}", v.name, v.id, v.status)));
            return Plan::wait(format!("volumes of the cluster are not gone yet: {list}"), 2, LIMIT_S);
        }
        let event = (!staying.is_empty()).then(|| {
            let list = list(staying.iter().map(|v| match &v.reclaim {
                Reclaim::Refused(why) => format!("{} ({}): {why}", v.name, v.id),
                _ => format!("{} ({}): reclaim policy Retain", v.name, v.id),
            }));
            format!("volumes that stay: {list}")
        });
        Plan { event, ..Plan::steps(vec![Step::DeleteCluster]) }
    }

    fn missing(&self, seen: &Seen) -> Option<String> {
        match &seen.cluster {
            None => Some(format!("ake-api does not know cluster {}", self.id)),
            Some(state) if state.cluster.deleting => Some(format!("cluster {} is going away", self.id)),
            Some(_) => None,
        }
    }

    fn attributes(&self, seen: &Seen) -> Map<String, Value> {
        let Some(state) = &seen.cluster else { return Map::new() };
        let cluster = &state.cluster;
        let (v4, v6): (Vec<IpNetwork>, Vec<IpNetwork>) =
            cluster.check_sources.iter().copied().partition(IpNetwork::is_ipv4);
        let kubernetes = &self.properties.kubernetes;
        let pod_ranges: Vec<_> = kubernetes
            .in_order(Some(cluster.pod_range), cluster.pod_range_v6)
            .into_iter()
            .flatten()
            .collect();
        [
            ("id", json!(cluster.id)),
            ("pod_range", json!(cluster.pod_range)),
            ("pod_ranges", json!(pod_ranges)),
            (
                "service_ranges",
                json!(kubernetes.in_order(&kubernetes.service_range, &kubernetes.service_range_v6)),
            ),
            ("vip_blocks", json!(cluster.vip_blocks)),
            ("check_sources", json!(cluster.check_sources)),
            ("check_sources_v4", json!(v4)),
            ("check_sources_v6", json!(v6)),
            ("api_url", json!(seen.service.url)),
            ("api_ca", json!(seen.service.ca)),
            (
                "kubernetes",
                json!({"ip_families": kubernetes.ip_families, "service_range": kubernetes.service_range,
                    "service_range_v6": kubernetes.service_range_v6, "cluster_dns": kubernetes.cluster_dns}),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
    }

    fn cluster(&self) -> ClusterId {
        self.id
    }

    fn outlives_servers(&self) -> bool {
        true
    }
}

impl Kubernetes {
    /// What is of each family, in the order of the families.
    fn in_order<T: Clone>(&self, v4: T, v6: T) -> Vec<T> {
        self.ip_families.iter().map(|family| if family == V6 { v6.clone() } else { v4.clone() }).collect()
    }

    /// Whether what Kubernetes is told can be had from what `ake-api` gave.
    fn check_pods(&self, pod_range_v6: Option<IpNetwork>) -> Result<(), Invalid> {
        if pod_range_v6.is_none() && self.ip_families.iter().any(|family| family == V6) {
            let expected =
                "IPv4 alone: the operator gives this network no pod_pool_v6 (ake-api's configuration)";
            return Err(Invalid::new("kubernetes.ip_families", self.ip_families.join(", "), expected));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Invalid> {
        let families: Vec<&str> = self.ip_families.iter().map(String::as_str).collect();
        if ![&[V4][..], &[V4, V6], &[V6, V4]].contains(&families.as_slice()) {
            let expected = "[IPv4], [IPv4, IPv6] or [IPv6, IPv4]";
            return Err(Invalid::new("kubernetes.ip_families", families.join(", "), expected));
        }
        service_range("kubernetes.service_range_v6", &self.service_range_v6, "fd00:96::/112", 108..=120)?;
        let range = service_range("kubernetes.service_range", &self.service_range, "10.96.0.0/16", 12..=24)?;
        let dns: Option<IpAddr> = self.cluster_dns.parse().ok();
        if dns.is_none_or(|dns| !range.contains(dns)) {
            let expected = format!("an address of kubernetes.service_range, {range}");
            return Err(Invalid::new("kubernetes.cluster_dns", &self.cluster_dns, expected));
        }
        Ok(())
    }
}

fn service_range(
    field: &str,
    text: &str,
    example: &str,
    sizes: std::ops::RangeInclusive<u8>,
) -> Result<IpNetwork, Invalid> {
    let invalid = |expected: String| Err(Invalid::new(field, text, expected));
    let range = text.parse::<IpNetwork>().ok();
    let alike = |range: &IpNetwork| range.is_ipv6() == example.contains(':');
    let Some(range) = range.filter(alike) else { return invalid(format!("a range such as {example}")) };
    if range.network() != range.ip() {
        return invalid(format!("the range's first address, {}/{}", range.network(), range.prefix()));
    }
    if !sizes.contains(&range.prefix()) {
        return invalid(format!("a prefix length from {} to {}", sizes.start(), sizes.end()));
    }
    Ok(range)
}

/// At most ten, and how many more.
fn list(items: impl Iterator<Item = String>) -> String {
    let all: Vec<_> = items.collect();
    let more = if all.len() > 10 { format!(" and {} more", all.len() - 10) } else { String::new() };
    format!("{}{more}", all[..all.len().min(10)].join(", "))
}
