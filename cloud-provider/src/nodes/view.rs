//! What is kept of a Node.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnetwork::IpNetwork;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};

/// Put on by kubelet; we take it off once we have said what the node is.
pub const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Put on a node whose server is switched off.
pub const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";

/// Put on by the cluster autoscaler before it removes a node.
pub const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Put on by an administrator who knows that the node is down for good.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Keeps a node out of load balancers.
pub const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The addresses that kubelet was started with.
pub const PROVIDED_ADDRESS: &str = "alpha.kubernetes.io/provided-node-ip";

/// An address in a Node's status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, ...
    pub kind: String,
    /// The address or name.
    pub address: String,
}

/// A Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// What its status says.
    pub addresses: Vec<NodeAddress>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The addresses that kubelet was started with.
    pub provided: Vec<IpAddr>,
    /// The ranges of its pods.
    pub pod_ranges: Vec<IpNetwork>,
    /// Whether kubelet says that it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it waits for us to say what it is.
    pub uninitialized: bool,
    /// Whether it is marked as switched off.
    pub shutdown: bool,
    /// Whether the autoscaler is about to remove it.
    pub to_be_deleted: bool,
    /// Whether an administrator has said that it is down for good.
    pub out_of_service: bool,
}

impl NodeView {
    /// Id of its server, if that is known.
    #[must_use]
    pub fn server_id(&self) -> Option<&str> {
        self.provider_id.as_deref().and_then(server_id)
    }

    /// The address that load balancers send to: IPv4 if it has one.
    #[must_use]
    pub fn internal_address(&self) -> Option<IpAddr> {
        self.internal_addresses().find(IpAddr::is_ipv4).or_else(|| self.internal_addresses().next())
    }

    /// Its own addresses, of both families.
    pub fn internal_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let of_kind = self.addresses.iter().filter(|address| address.kind == "InternalIP");
        of_kind.filter_map(|address| address.address.parse().ok())
    }

    /// Whether load balancers may send to it. As upstream: a value that is no boolean excludes.
    #[must_use]
    pub fn is_included(&self) -> bool {
        match self.labels.get(EXCLUDED).map(String::as_str) {
            None | Some("false" | "False" | "FALSE" | "f" | "F" | "0") => true,
            Some(_) => false,
        }
    }

    /// How long it has been there, by this machine's clock.
    #[must_use]
    pub fn age(&self) -> Duration {
        let age = self.made.map(|made| Timestamp::now().duration_since(made));
        age.and_then(|age| age.try_into().ok()).unwrap_or_default()
    }

    /// Whether it is about to go: it keeps its flows and takes no new ones.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.deleting || self.to_be_deleted || self.out_of_service
    }
}

/// The server's id in a providerID: `openstack:///<id>`, `openstack://<region>/<id>`, or a bare `/<id>`.
#[must_use]
pub fn server_id(provider_id: &str) -> Option<&str> {
    let rest = match provider_id.strip_prefix("openstack://") {
        Some(rest) => rest.split_once('/').map(|(_, id)| id)?,
        None => provider_id.strip_prefix('/')?,
    };
    (!rest.is_empty() && !rest.contains('/')).then_some(rest)
}

/// What is kept of a Node.
#[must_use]
pub fn node(node: Node) -> Option<NodeView> {
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let meta = node.metadata;
    let taints = spec.taints.unwrap_or_default();
    let has_taint = |key: &str| taints.iter().any(|taint| taint.key == key);
    let pod_ranges = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    let provided = meta.annotations.as_ref().and_then(|annotations| annotations.get(PROVIDED_ADDRESS));
    Some(NodeView {
        uid: meta.uid.unwrap_or_default(),
        made: meta.creation_timestamp.map(|time| time.0),
        provider_id: spec.provider_id.filter(|id| !id.is_empty()),
        addresses: status
            .addresses
            .unwrap_or_default()
            .into_iter()
            .map(|address| NodeAddress { kind: address.type_, address: address.address })
            .collect(),
        provided: provided
            .into_iter()
            .flat_map(|list| list.split(','))
            .filter_map(|a| a.trim().parse().ok())
            .collect(),
        pod_ranges: pod_ranges.iter().filter_map(|range| range.parse().ok()).collect(),
        ready: status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        deleting: meta.deletion_timestamp.is_some(),
        uninitialized: has_taint(UNINITIALIZED),
        shutdown: has_taint(SHUTDOWN),
        to_be_deleted: has_taint(TO_BE_DELETED),
        out_of_service: has_taint(OUT_OF_SERVICE),
        labels: meta.labels.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_ids_of_every_form_are_read() {
        for (text, id) in [
            ("openstack:///7f0c", Some("7f0c")),
            ("openstack://RegionOne/7f0c", Some("7f0c")),
            ("/7f0c", Some("7f0c")),
            ("openstack://7f0c", None),
            ("openstack:///", None),
            ("aws:///zone/i-1", None),
            ("", None),
        ] {
            assert_eq!(server_id(text), id, "{text}");
        }
    }

    #[test]
    fn exclusion_is_read_as_upstream_does() {
        for (value, included) in
            [(None, true), (Some("false"), true), (Some("true"), false), (Some(""), false)]
        {
            let labels = value.map(|value| (EXCLUDED.to_owned(), value.to_owned())).into_iter().collect();
            assert_eq!(NodeView { labels, ..NodeView::default() }.is_included(), included, "{value:?}");
        }
    }
}
