//! What a Service asks for beyond its ports, and what of that direct server return cannot give.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnetwork::IpNetwork;

use super::view::ServiceView;

/// Asks for a certain VIP, an address of the cluster's blocks. As `spec.loadBalancerIP`, which it overrides.
///
/// Type: IP address. Default: any free one.
pub const ADDRESS: &str = "ake.dev/address";

/// Clients that are let in, where `spec.loadBalancerSourceRanges` is empty.
///
/// Type: CIDRs, separated by commas. Default: everybody.
pub const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Only nodes with these labels carry the Service; a key without a value asks for any.
///
/// Type: `key=value,key`. Default: all nodes.
pub const NODE_SELECTOR: &str = "loadbalancer.openstack.org/node-selector";

/// The prefix of the annotations of cloud-provider-openstack.
pub const OPENSTACK: &str = "loadbalancer.openstack.org/";

/// Annotations of cloud-provider-openstack that would change what the client or the pod sees. The balancer only
/// rewrites the destination MAC address, so a Service with one of them gets no load balancer.
pub(super) const IMPOSSIBLE: &[(&str, &str)] = &[
    ("proxy-protocol", "false, or none: direct server return cannot insert a PROXY header"),
    ("x-forwarded-for", "false, or none: direct server return does not read HTTP"),
    ("default-tls-container-ref", "none: direct server return does not terminate TLS"),
    ("hostname", "none: kube-proxy needs the address itself in the status"),
    ("load-balancer-id", "none: a load balancer belongs to one Service"),
    ("port-id", "none: VIPs come from the cluster's blocks (to choose one: ake.dev/address)"),
];

/// Annotations of cloud-provider-openstack that tune what there is not.
pub(super) const WITHOUT_EFFECT: &[&str] = &[
    "connection-limit",
    "floating-network-id",
    "floating-subnet",
    "floating-subnet-id",
    "floating-subnet-tags",
    "class",
    "keep-floatingip",
    "lb-method",
    "subnet-id",
    "network-id",
    "member-subnet-id",
    "timeout-client-data",
    "timeout-member-connect",
    "timeout-member-data",
    "timeout-tcp-inspect",
    "flavor-id",
    "availability-zone",
    "health-monitor-delay",
    "health-monitor-timeout",
    "health-monitor-max-retries",
    "health-monitor-max-retries-down",
];

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

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, expected, refused } = self;
        let effect = if *refused { "" } else { " (ignored)" };
        write!(f, "{field} = {value:?}: expected {expected}{effect}")
    }
}

/// A node selector: labels that must be there, with that value if one is given.
pub type NodeSelector = BTreeMap<String, Option<String>>;

/// What a Service asks for, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A certain VIP.
    pub address: Option<IpAddr>,
    /// Clients that are let in; empty for everybody.
    pub source_ranges: Vec<IpNetwork>,
    /// Nodes that carry the Service.
    pub node_selector: NodeSelector,
}

/// Reads a Service's wishes. With a finding that is `refused` they must not be acted on.
#[must_use]
pub fn read(service: &ServiceView) -> (Wishes, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut refuse = |field: &str, value: &str, expected: &str| {
        findings.push(Finding {
            field: field.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
            refused: true,
        });
    };
    let annotation = |name: &str| service.annotations.get(name).map(|value| value.trim());

    let mut wishes = Wishes::default();
    let address =
        annotation(ADDRESS).map(|value| (format!("metadata.annotations[{ADDRESS}]"), value)).or_else(|| {
            service.load_balancer_ip.as_deref().map(|value| ("spec.loadBalancerIP".to_owned(), value))
        });
    if let Some((field, value)) = address {
        match value.parse() {
            Ok(address) => wishes.address = Some(address),
            Err(_) => refuse(&field, value, "an IPv4 or IPv6 address of the cluster's VIP blocks"),
        }
    }

    let ranges: Vec<(&str, String)> = if service.source_ranges.is_empty() {
        let field = format!("metadata.annotations[{SOURCE_RANGES}]");
        let list = annotation(SOURCE_RANGES).unwrap_or_default();
        list.split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
            .map(|range| (range, field.clone()))
            .collect()
    } else {
        let field = "spec.loadBalancerSourceRanges";
        service.source_ranges.iter().map(|range| (range.trim(), field.to_owned())).collect()
    };
    for (range, field) in ranges {
        match range.parse::<IpNetwork>() {
            Ok(network) if range.contains('/') => wishes.source_ranges.push(masked(network)),
            _ => refuse(&field, range, "a range such as 192.0.2.0/24"),
        }
    }
    wishes.source_ranges.sort();
    wishes.source_ranges.dedup();

    for part in annotation(NODE_SELECTOR)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            refuse(&format!("metadata.annotations[{NODE_SELECTOR}]"), part, "key=value or key");
        } else {
            wishes.node_selector.insert(key.to_owned(), value.map(ToOwned::to_owned));
        }
    }

    for (name, expected) in IMPOSSIBLE {
        if let Some(value) = annotation(&format!("{OPENSTACK}{name}"))
            && !value.is_empty()
            && !value.eq_ignore_ascii_case("false")
        {
            refuse(&format!("metadata.annotations[{OPENSTACK}{name}]"), value, expected);
        }
    }
    for port in &service.ports {
        if port.protocol.is_none() {
            refuse(&format!("spec.ports[{}].protocol", port.port), &port.protocol_text, "TCP, UDP or SCTP");
        }
    }
    for name in WITHOUT_EFFECT {
        if let Some(value) = annotation(&format!("{OPENSTACK}{name}")) {
            findings.push(Finding {
                field: format!("metadata.annotations[{OPENSTACK}{name}]"),
                value: value.to_owned(),
                expected: "none: it means nothing under direct server return".to_owned(),
                refused: false,
            });
        }
    }
    (wishes, findings)
}

/// The range without the bits behind its prefix, as the cloud writes it.
fn masked(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(annotations: &[(&str, &str)]) -> ServiceView {
        ServiceView {
            annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..ServiceView::default()
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_field_value_and_expectation() {
        for (name, value) in [
            ("loadbalancer.openstack.org/proxy-protocol", "v2"),
            ("loadbalancer.openstack.org/x-forwarded-for", "true"),
            ("loadbalancer.openstack.org/default-tls-container-ref", "http://barbican/1"),
            ("loadbalancer.openstack.org/hostname", "a.example"),
            (ADDRESS, "203.0.113"),
            (SOURCE_RANGES, "10.0.0.0/33"),
        ] {
            let (_, findings) = read(&service(&[(name, value)]));
            assert_eq!(findings.len(), 1, "{name}: {findings:?}");
            assert!(findings[0].refused);
            let text = findings[0].to_string();
            assert!(text.contains(name) && text.contains(value) && text.contains("expected"), "{text}");
        }
    }

    #[test]
    fn switched_off_is_not_asked_for() {
        let (_, findings) = read(&service(&[
            ("loadbalancer.openstack.org/proxy-protocol", "false"),
            ("loadbalancer.openstack.org/x-forwarded-for", "False"),
        ]));
        assert_eq!(findings, []);
    }

    #[test]
    fn tuning_without_effect_is_told_but_not_refused() {
        let (_, findings) = read(&service(&[("loadbalancer.openstack.org/timeout-client-data", "5")]));
        assert!(matches!(findings.as_slice(), [Finding { refused: false, .. }]));
    }

    #[test]
    fn wishes_are_read() {
        let mut view = service(&[
            (ADDRESS, "203.0.113.20"),
            (SOURCE_RANGES, "10.1.2.3/8, 192.0.2.0/24"),
            (NODE_SELECTOR, "a=b, c"),
        ]);
        view.load_balancer_ip = Some("203.0.113.21".into());
        let (wishes, findings) = read(&view);
        assert_eq!(findings, []);
        assert_eq!(wishes.address, "203.0.113.20".parse().ok());
        let ranges: Vec<_> = wishes.source_ranges.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.0.0.0/8", "192.0.2.0/24"]);
        assert_eq!(wishes.node_selector["a"].as_deref(), Some("b"));
        assert_eq!(wishes.node_selector["c"], None);
    }
}
