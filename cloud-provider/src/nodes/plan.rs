//! What a Node should say of itself, and the steps that make it so.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnetwork::IpNetwork;

use super::{
    observe::ServerView,
    view::{NodeAddress, NodeView},
};
use crate::steps::Kind;

/// Labels of a Node that say where it is and what it is, each with the older name that some still read.
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
const INSTANCE_TYPE: [&str; 2] = ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"];

/// One thing to do to a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes `status.addresses`; before anything else, since load balancers start from the provider id.
    SetAddresses {
        /// The Node's name.
        node: String,
        /// What it shall say.
        addresses: Vec<NodeAddress>,
    },
    /// Says what it is and takes the taint off.
    Initialize {
        /// The Node's name.
        node: String,
        /// `spec.providerID`.
        provider_id: String,
        /// Labels to add.
        labels: BTreeMap<String, String>,
    },
    /// Keeps pods off it while its server is switched off.
    MarkShutdown {
        /// The Node's name.
        node: String,
    },
    /// Lets pods onto it again.
    UnmarkShutdown {
        /// The Node's name.
        node: String,
    },
    /// Removes the Node of a server that is gone.
    Delete {
        /// The Node's name.
        node: String,
        /// Its UID: another one of that name stays.
        uid: String,
    },
}

impl Step {
    /// The Node that it is done to.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::SetAddresses { node, .. }
            | Self::Initialize { node, .. }
            | Self::MarkShutdown { node }
            | Self::UnmarkShutdown { node }
            | Self::Delete { node, .. } => node,
        }
    }

    /// The step's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::SetAddresses { .. } => Kind::SetNodeAddresses,
            Self::Initialize { .. } => Kind::InitializeNode,
            Self::MarkShutdown { .. } => Kind::MarkNodeShutdown,
            Self::UnmarkShutdown { .. } => Kind::UnmarkNodeShutdown,
            Self::Delete { .. } => Kind::DeleteNode,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAddresses { node, addresses } => {
                let shown: Vec<_> = addresses.iter().map(|a| format!("{} {}", a.kind, a.address)).collect();
                write!(f, "set the addresses of Node {node} to {}", shown.join(", "))
            }
            Self::Initialize { node, provider_id, .. } => {
                write!(f, "initialize Node {node} as {provider_id}")
            }
            Self::MarkShutdown { node } => write!(f, "mark Node {node} as switched off"),
            Self::UnmarkShutdown { node } => {
                write!(f, "take the mark of being switched off from Node {node}")
            }
            Self::Delete { node, .. } => {
                write!(f, "Deleting node {node} because it does not exist in the cloud provider")
            }
        }
    }
}

/// Why a Node cannot be said to be a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// No server fits.
    #[error("no server named {name:?} of this cluster: expected one in the project{expected}")]
    NoServer {
        /// The Node's name.
        name: String,
        /// What else it must have.
        expected: String,
    },
    /// Several servers fit.
    #[error("{} servers are named {name:?} and fit: {}; expected one", ids.len(), ids.join(", "))]
    Several {
        /// The Node's name.
        name: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// kubelet was told an address that is another's.
    #[error(
        "metadata.annotations[alpha.kubernetes.io/provided-node-ip] = {provided}: expected an address of server {server}, \
         which has {has}"
    )]
    ForeignAddress {
        /// What kubelet was told.
        provided: IpAddr,
        /// The server's id.
        server: String,
        /// Its addresses.
        has: String,
    },
}

/// The server that a Node without a provider id is: of its name, marked with the cluster's id where servers are
/// marked, and with its address.
pub fn find<'a>(
    name: &str,
    node: &NodeView,
    servers: &'a [ServerView],
    cluster_id: &str,
) -> Result<&'a ServerView, Mismatch> {
    let known: Vec<IpAddr> = if node.provided.is_empty() {
        let internal = node.addresses.iter().filter(|address| address.kind == "InternalIP");
        internal.filter_map(|address| address.address.parse().ok()).collect()
    } else {
        node.provided.clone()
    };
    let ours = |server: &&ServerView| server.cluster.as_deref().is_none_or(|cluster| cluster == cluster_id);
    let fits = |server: &&ServerView| {
        known.is_empty() || known.iter().any(|address| server.internal.contains(address))
    };
    let found: Vec<&ServerView> =
        servers.iter().filter(|server| server.name == name).filter(ours).filter(fits).collect();
    match found.as_slice() {
        [server] => Ok(server),
        [] => {
            let addresses: Vec<_> = known.iter().map(ToString::to_string).collect();
            let expected = if addresses.is_empty() {
                String::new()
            } else {
                format!(" with address {}", addresses.join(" or "))
            };
            Err(Mismatch::NoServer { name: name.to_owned(), expected })
        }
        several => Err(Mismatch::Several {
            name: name.to_owned(),
            ids: several.iter().map(|server| server.id.clone()).collect(),
        }),
    }
}

/// What a Node's status shall say: kubelet's host name, the server's addresses, and of a kind that kubelet was
/// told an address of, that one alone. The first is the one that pods on the host network have, so where kubelet was told
/// none, the family of the pods' first range comes first: the order of a port's addresses is Neutron's, by chance.
pub fn addresses(name: &str, node: &NodeView, server: &ServerView) -> Result<Vec<NodeAddress>, Mismatch> {
    let hostnames: Vec<NodeAddress> =
        node.addresses.iter().filter(|address| address.kind == "Hostname").cloned().collect();
    let of_cloud = server
        .internal
        .iter()
        .map(|address| ("InternalIP", *address))
        .chain(server.external.iter().map(|address| ("ExternalIP", *address)));
    let mut of_cloud: Vec<(&str, IpAddr)> = of_cloud.collect();
    let is_ipv4_first = node.pod_ranges.first().is_none_or(IpNetwork::is_ipv4);
    of_cloud.sort_by_key(|(kind, address)| (*kind != "InternalIP", address.is_ipv4() != is_ipv4_first));
    let mut chosen: Vec<(&str, IpAddr)> = Vec::new();
    for provided in &node.provided {
        let Some(known) = of_cloud.iter().find(|(_, address)| address == provided) else {
            let has: Vec<_> = of_cloud.iter().map(|(_, address)| address.to_string()).collect();
            return Err(Mismatch::ForeignAddress {
                provided: *provided,
                server: server.id.clone(),
                has: if has.is_empty() { "none".to_owned() } else { has.join(", ") },
            });
        };
        chosen.push(*known);
    }
    let is_settled = |kind: &str| chosen.iter().any(|(chosen, _)| *chosen == kind);
    let rest: Vec<_> = of_cloud.iter().filter(|(kind, _)| !is_settled(kind)).copied().collect();
    chosen.extend(rest);
    let mut addresses: Vec<NodeAddress> = Vec::new();
    for (kind, address) in chosen {
        let address = NodeAddress { kind: kind.to_owned(), address: address.to_string() };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if hostnames.is_empty() {
        addresses.push(NodeAddress { kind: "Hostname".to_owned(), address: name.to_owned() });
    } else {
        addresses.extend(hostnames);
    }
    Ok(addresses)
}

/// What to do to a Node that is a certain server.
pub fn plan(
    name: &str,
    node: &NodeView,
    server: &ServerView,
    region: Option<&str>,
) -> Result<Vec<Step>, Mismatch> {
    let mut steps = Vec::new();
    let addresses = addresses(name, node, server)?;
    if addresses != node.addresses {
        steps.push(Step::SetAddresses { node: name.to_owned(), addresses });
    }
    if node.uninitialized || node.provider_id.is_none() {
        let mut labels = BTreeMap::new();
        for (names, value) in
            [(ZONE, server.zone.as_deref()), (REGION, region), (INSTANCE_TYPE, server.flavor.as_deref())]
        {
            if let Some(value) = value.map(label_value).filter(|value| !value.is_empty()) {
                labels.extend(names.map(|name| (name.to_owned(), value.clone())));
            }
        }
        let provider_id = node.provider_id.clone().unwrap_or_else(|| format!("openstack:///{}", server.id));
        steps.push(Step::Initialize { node: name.to_owned(), provider_id, labels });
    }
    Ok(steps)
}

/// Text as a label takes it: at most 63 of `A-Z a-z 0-9 - _ .`, a letter or digit at either end.
fn label_value(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let text: String = text.chars().map(allowed).take(63).collect();
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::observe::ServerState, *};

    fn server(id: &str, cluster: Option<&str>, internal: &[&str]) -> ServerView {
        ServerView {
            id: id.into(),
            name: "w0".into(),
            cluster: cluster.map(Into::into),
            internal: internal.iter().map(|a| a.parse().unwrap()).collect(),
            external: Vec::new(),
            zone: Some("nova east".into()),
            flavor: Some("m1.node".into()),
            state: ServerState::Running,
        }
    }

    fn node(addresses: &[(&str, &str)]) -> NodeView {
        NodeView {
            uninitialized: true,
            addresses: addresses
                .iter()
                .map(|(kind, address)| NodeAddress { kind: (*kind).into(), address: (*address).into() })
                .collect(),
            ..NodeView::default()
        }
    }

    #[test]
    fn a_server_is_found_by_name_cluster_and_address() {
        let servers = [
            server("1", Some("other"), &["10.0.0.1"]),
            server("2", Some("ours"), &["10.0.0.2"]),
            server("3", Some("ours"), &["10.0.0.3"]),
        ];
        let at = |address| node(&[("InternalIP", address)]);
        assert_eq!(find("w0", &at("10.0.0.3"), &servers, "ours").unwrap().id, "3");
        assert!(matches!(find("w0", &at("10.0.0.1"), &servers, "ours"), Err(Mismatch::NoServer { .. })));
        assert!(
            matches!(find("w0", &node(&[]), &servers, "ours"), Err(Mismatch::Several { ids, .. }) if ids == ["2", "3"])
        );
        assert!(matches!(find("w1", &node(&[]), &servers, "ours"), Err(Mismatch::NoServer { .. })));
    }

    #[test]
    fn addresses_come_before_the_provider_id() {
        let node = node(&[("Hostname", "w0")]);
        let steps =
            plan("w0", &node, &server("2", None, &["10.0.0.2", "fd00::2"]), Some("RegionOne")).unwrap();
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "set the addresses of Node w0 to InternalIP 10.0.0.2, InternalIP fd00::2, Hostname w0",
                "initialize Node w0 as openstack:///2",
            ]
        );
        let Step::Initialize { labels, .. } = &steps[1] else { panic!("{steps:?}") };
        assert_eq!(labels["topology.kubernetes.io/zone"], "nova-east");
        assert_eq!(labels["failure-domain.beta.kubernetes.io/region"], "RegionOne");
        assert_eq!(labels["beta.kubernetes.io/instance-type"], "m1.node");
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let mut node = node(&[("InternalIP", "10.0.0.2"), ("Hostname", "w0")]);
        node.uninitialized = false;
        node.provider_id = Some("openstack:///2".into());
        assert_eq!(plan("w0", &node, &server("2", None, &["10.0.0.2"]), None).unwrap(), []);
    }

    #[test]
    fn the_address_that_kubelet_was_told_is_the_only_one_of_its_kind() {
        let mut view = node(&[("Hostname", "w0")]);
        view.provided = vec!["10.0.0.3".parse().unwrap()];
        let shown = addresses("w0", &view, &server("2", None, &["10.0.0.2", "10.0.0.3"])).unwrap();
        assert_eq!(shown.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(), ["10.0.0.3", "w0"]);
        view.provided = vec!["10.0.0.9".parse().unwrap()];
        let error = addresses("w0", &view, &server("2", None, &["10.0.0.2"])).unwrap_err().to_string();
        assert!(error.contains("10.0.0.9") && error.contains("10.0.0.2"), "{error}");
    }

    #[test]
    fn the_clusters_first_family_comes_first_whatever_neutron_says() {
        let mut view = node(&[("Hostname", "w0")]);
        for (ranges, first) in [
            (vec![], "10.0.0.2"),
            (vec!["10.240.0.0/24", "fd00:240::/64"], "10.0.0.2"),
            (vec!["fd00:240::/64", "10.240.0.0/24"], "fd00::2"),
        ] {
            view.pod_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            for order in [["10.0.0.2", "fd00::2"], ["fd00::2", "10.0.0.2"]] {
                let shown = addresses("w0", &view, &server("2", None, &order)).unwrap();
                assert_eq!(shown[0].address, first, "{ranges:?} {order:?}");
            }
        }
    }
}
