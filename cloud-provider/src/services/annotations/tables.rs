//! All annotations that are read, one by one: what is honoured, what is refused, what has no effect, and why.

/// The prefix of the annotations of cloud-provider-openstack.
pub const OPENSTACK: &str = "loadbalancer.openstack.org/";

/// The prefix of our own.
pub const OURS: &str = "ake.dev/";

/// Asks for a certain VIP. As `spec.loadBalancerIP`, which it overrides.
pub const ADDRESS: &str = "ake.dev/address";
/// Asks for a VIP of a certain range.
pub const RANGE: &str = "ake.dev/range";
/// Shares a VIP with other Services that give the same key.
pub const SHARE: &str = "ake.dev/share";
/// Namespaces that a VIP is shared with.
pub const SHARE_WITH: &str = "ake.dev/share-with";
/// Gives the Service an address that was there before.
pub const ADOPT: &str = "ake.dev/adopt-address";
/// Keeps the VIP when the Service goes.
pub const RETAIN: &str = "ake.dev/retain-address";
/// How long a node that leaves keeps its flows.
pub const DRAIN: &str = "ake.dev/drain-seconds";
/// What is asked of a node before it takes traffic.
pub const HEALTH_CHECK: &str = "ake.dev/health-check";
/// Clients that are let in.
pub const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Nodes that carry the Service.
pub const NODE_SELECTOR: &str = "loadbalancer.openstack.org/node-selector";
/// As [`RETAIN`].
pub const KEEP_FLOATING_IP: &str = "loadbalancer.openstack.org/keep-floatingip";
/// Whether nodes are checked at all.
pub const HEALTH_MONITOR: &str = "loadbalancer.openstack.org/enable-health-monitor";
/// How flows are spread.
pub const METHOD: &str = "loadbalancer.openstack.org/lb-method";
/// Whether a floating IP is asked for.
pub const INTERNAL: &str = "service.beta.kubernetes.io/openstack-internal-load-balancer";

/// An annotation that is honoured.
pub(in crate::services) struct Honoured {
    /// Its whole name.
    pub name: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Annotations that are honoured.
pub(in crate::services) const HONOURED: &[Honoured] = &[
    Honoured {
        name: ADDRESS,
        kind: "IP addresses, separated by commas; at most one of each family",
        default: "any free one",
        meaning: "A certain VIP of the cluster's blocks. Overrides `spec.loadBalancerIP`.",
    },
    Honoured {
        name: RANGE,
        kind: "CIDRs, separated by commas",
        default: "all of the cluster's VIP blocks",
        meaning: "A VIP of one of these ranges, as far as they are in the cluster's blocks.",
    },
    Honoured {
        name: ADOPT,
        kind: "IP addresses, at most one of each family, and the id of one Neutron port, separated by commas",
        default: "none",
        meaning: "The VIP is an address that the project has retained, given as it is, or that of a port of the project on the VIP \
                  network that nothing else uses, given by its id: it has an address of each family of the Service for which none is \
                  given. It stays the project's when the Service goes, for another Service or cluster to adopt.",
    },
    Honoured {
        name: SHARE,
        kind: "a key of at most 63 characters",
        default: "a VIP of its own",
        meaning: "Services of a namespace with the same key share one VIP, each with its own ports. Where two want the same \
                  port of the same protocol, the one that has it keeps it, and the other hears why it gets no load balancer. \
                  The VIP goes with the last of them.",
    },
    Honoured {
        name: SHARE_WITH,
        kind: "namespaces, separated by commas, or `*`",
        default: "none",
        meaning: "With `ake.dev/share`: the VIP is shared across namespaces, with Services of the same key whose \
                  namespaces are named here and that name this one's in turn.",
    },
    Honoured {
        name: RETAIN,
        kind: "true, false or `project`",
        default: "false",
        meaning: "The VIP stays reserved for the Service's name when the Service goes, and the next one of that name gets it. It is \
                  given back by a Service of that name without this, or with the cluster; with `project` it outlives the cluster, \
                  and another cluster of the project can adopt it. An Event says so when the Service goes, and \
                  `GET /v1/addresses` of ake-api lists what is kept. Not together with `ake.dev/share`.",
    },
    Honoured {
        name: DRAIN,
        kind: "seconds from 0 to 3600",
        default: "30",
        meaning: "How long a node that leaves keeps its flows before it is taken out. Of Services that share a pool of nodes, the \
                  longest counts.",
    },
    Honoured {
        name: HEALTH_CHECK,
        kind: "`node`, `vip` or `none`",
        default: "`vip` with externalTrafficPolicy Local, else `node`",
        meaning: "`node`: kube-proxy's own health port (with Local: the Service's healthCheckNodePort) answers. `vip`: in addition \
                  the node answers on the Service's first TCP port of the VIP itself; the checks' own addresses \
                  must be among the source ranges. Where it is asked for and cannot be, an Event says why, and nodes are \
                  asked alone. `none`: every node counts as healthy.",
    },
    Honoured {
        name: SOURCE_RANGES,
        kind: "CIDRs, separated by commas",
        default: "everybody",
        meaning: "Clients that are let in, where `spec.loadBalancerSourceRanges` is empty.",
    },
    Honoured {
        name: NODE_SELECTOR,
        kind: "`key=value,key`",
        default: "all nodes",
        meaning: "Only nodes with these labels carry the Service; a key without a value asks for any.",
    },
    Honoured {
        name: KEEP_FLOATING_IP,
        kind: "true or false",
        default: "false",
        meaning: "As `ake.dev/retain-address`, which goes before it. Not together with `ake.dev/share`.",
    },
    Honoured {
        name: HEALTH_MONITOR,
        kind: "true or false",
        default: "true",
        meaning: "false is `ake.dev/health-check: none`, which goes before it.",
    },
    Honoured {
        name: METHOD,
        kind: "SOURCE_IP or SOURCE_IP_PORT",
        default: "SOURCE_IP_PORT",
        meaning: "SOURCE_IP keeps a client at its node, as `sessionAffinity: ClientIP` does at the balancer. ROUND_ROBIN and \
                  LEAST_CONNECTIONS are told by an Event to have no effect: flows are spread by hash.",
    },
    Honoured {
        name: INTERNAL,
        kind: "true or false",
        default: "true",
        meaning: "true is what every Service gets: there are no floating IPs. false is told by an Event to have no effect.",
    },
];

/// Annotations of cloud-provider-openstack that would change what the client or the pod sees, each with what is
/// expected. The balancer only rewrites the destination MAC address, so a Service with one of them gets no load
/// balancer.
pub(in crate::services) const IMPOSSIBLE: &[(&str, &str)] = &[
    (
        "proxy-protocol",
        "false, or none: direct server return cannot insert a PROXY header; pods see the client's address with externalTrafficPolicy Local",
    ),
    (
        "x-forwarded-for",
        "false, or none: direct server return does not read HTTP; pods see the client's address with externalTrafficPolicy Local",
    ),
    (
        "default-tls-container-ref",
        "none: direct server return does not terminate TLS; an Ingress or the pod does",
    ),
    ("hostname", "none: kube-proxy needs the address itself in the status"),
    (
        "port-id",
        "none: VIPs come from the cluster's blocks (to take a port's address: ake.dev/adopt-address)",
    ),
];

/// Annotations of cloud-provider-openstack that choose or tune what there is not, each with what is expected.
pub(in crate::services) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("load-balancer-id", "none: there are no load balancers of Octavia's (to share a VIP: ake.dev/share)"),
    ("load-balancer-address", "none: the address stands in the status (to choose one: ake.dev/address)"),
    (
        "connection-limit",
        "-1, or none: the balancer does not see connections end, and so does not count them",
    ),
    ("floating-network-id", "none: there are no floating IPs (to choose a range: ake.dev/range)"),
    ("floating-subnet", "none: there are no floating IPs (to choose a range: ake.dev/range)"),
    ("floating-subnet-id", "none: there are no floating IPs (to choose a range: ake.dev/range)"),
    ("floating-subnet-tags", "none: there are no floating IPs (to choose a range: ake.dev/range)"),
    ("class", "none: cloud.conf has no classes here (to choose a range: ake.dev/range)"),
    ("subnet-id", "none: VIPs come from the cluster's blocks (to choose a range: ake.dev/range)"),
    ("network-id", "none: VIPs come from the cluster's blocks (to choose a range: ake.dev/range)"),
    (
        "member-subnet-id",
        "none: packets go to the node's own port (to choose nodes: loadbalancer.openstack.org/node-selector)",
    ),
    (
        "timeout-client-data",
        "none: the balancer ends no flow; idle ones are forgotten as the operator has set it",
    ),
    ("timeout-member-connect", "none: the balancer opens no connections to members"),
    ("timeout-member-data", "none: answers do not pass the balancer"),
    ("timeout-tcp-inspect", "none: the balancer does not look into connections"),
    ("flavor-id", "none: the operator's balancer serves all Services"),
    ("availability-zone", "none: the operator's balancer serves all Services"),
    ("health-monitor-delay", "none: the operator sets how often nodes are checked"),
    ("health-monitor-timeout", "none: the operator sets how long a check may take"),
    ("health-monitor-max-retries", "none: the operator sets how many checks it takes to be back"),
    ("health-monitor-max-retries-down", "none: the operator sets how many checks it takes to be out"),
];

/// Whether an annotation with one of the prefixes is one that is known.
pub(in crate::services) fn is_known(name: &str) -> bool {
    let of_openstack = |row: &(&str, &str)| name.strip_prefix(OPENSTACK) == Some(row.0);
    HONOURED.iter().any(|row| row.name == name)
        || IMPOSSIBLE.iter().any(of_openstack)
        || WITHOUT_EFFECT.iter().any(of_openstack)
}
