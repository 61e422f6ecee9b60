//! What a cluster's Services and Nodes ask of ake-api and of the security group.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{
    AddressRequest, Affinity, Check, ClusterState, Family, Listener, LoadBalancerRequest, MemberRequest,
    PoolRequest,
};
use sha2::{Digest, Sha256};

use super::{
    annotations::{self, ADDRESS, Finding, NodeSelector, Wishes},
    view::{Endpoints, ServiceView},
};
use crate::{cluster::Key, nodes::view::NodeView};

/// Name of the pool of all nodes.
pub const NODES: &str = "nodes";

/// kube-proxy's own port, which tells whether the node takes traffic.
const PROXY_HEALTH_PORT: u16 = 10256;

/// What a decision is made from; all of it was only read.
#[derive(Debug, Clone)]
pub struct World {
    /// Services that concern us.
    pub services: BTreeMap<Key, ServiceView>,
    /// All Nodes by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// Endpoints of Services by node's name, over all their slices.
    pub endpoints: BTreeMap<Key, BTreeMap<String, Endpoints>>,
    /// Neutron ports of servers, by server's id.
    pub ports: BTreeMap<String, Vec<ServerPort>>,
    /// What ake-api has.
    pub state: ClusterState,
    /// What the security group has; none if we keep none.
    pub rules: Option<Vec<openstack_client::security_groups::Rule>>,
    /// UIDs of Services whose last write was refused and that are left alone for now.
    pub held: BTreeSet<String>,
    /// Names at ake-api whose Service is gone, and that may be removed by now.
    pub ripe: BTreeSet<String>,
}

/// A Neutron port of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPort {
    /// Its id.
    pub id: String,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
}

impl World {
    /// The port of a node that carries the address that load balancers send to.
    #[must_use]
    pub fn port_of(&self, node: &NodeView) -> Option<&ServerPort> {
        let address = node.internal_address()?;
        self.ports.get(node.server_id()?)?.iter().find(|port| port.addresses.contains(&address))
    }
}

/// A load balancer that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBalancer {
    /// UID of the Service that it is for.
    pub uid: String,
    /// Family of its address.
    pub family: Family,
    /// What is asked for.
    pub request: LoadBalancerRequest,
}

/// All that shall be at ake-api for Services.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Addresses by name, each with its Service's UID.
    pub addresses: BTreeMap<String, (String, AddressRequest)>,
    /// Pools by name.
    pub pools: BTreeMap<String, PoolRequest>,
    /// Load balancers by name.
    pub balancers: BTreeMap<String, WantedBalancer>,
    /// Whether addresses that load balancers send to are IPv6; both values where there are both.
    pub node_families: BTreeSet<bool>,
    /// UIDs of Services whose objects stay as they are.
    pub kept: BTreeSet<String>,
    /// Names at ake-api whose Service is not there; they stay until it is sure that it is gone.
    pub orphans: BTreeSet<String>,
    /// What is wrong with Services.
    pub findings: Vec<(Key, Finding)>,
    /// Wanted Services that have no node to go to.
    pub without_nodes: Vec<Key>,
}

/// Names of a Service's addresses and load balancers (both are called the same), by family.
#[must_use]
pub fn balancer_names(uid: &str, families: &[Family]) -> Vec<(String, Family)> {
    let name = |(index, family): (usize, &Family)| {
        let name = match (index, family) {
            (0, _) => format!("svc-{uid}"),
            (_, Family::V4) => format!("svc-{uid}-ipv4"),
            (_, Family::V6) => format!("svc-{uid}-ipv6"),
        };
        (name, *family)
    };
    families.iter().enumerate().map(name).collect()
}

/// Name of the pool of a Service with `externalTrafficPolicy: Local`.
#[must_use]
pub fn local_pool_name(uid: &str) -> String {
    format!("local-{uid}")
}

/// UID of the Service that an object at ake-api is for, if it is one of a Service.
#[must_use]
pub fn owner(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("svc-").or_else(|| name.strip_prefix("local-"))?;
    let rest = rest.strip_suffix("-ipv4").or_else(|| rest.strip_suffix("-ipv6")).unwrap_or(rest);
    Some(rest)
}

/// Whether a pool is one of those that Services share.
#[must_use]
pub fn is_shared_pool(name: &str) -> bool {
    name == NODES || name.strip_prefix("nodes-").is_some_and(|hash| hash.len() == 12)
}

fn shared_pool_name(selector: &NodeSelector) -> String {
    if selector.is_empty() {
        return NODES.to_owned();
    }
    let mut hash = Sha256::new();
    for (key, value) in selector {
        hash.update(key);
        hash.update([0, u8::from(value.is_some())]);
        hash.update(value.as_deref().unwrap_or_default());
        hash.update([0]);
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("nodes-{hash}")
}

fn is_selected(node: &NodeView, selector: &NodeSelector) -> bool {
    selector.iter().all(|(key, value)| {
        node.labels.get(key).is_some_and(|actual| value.as_ref().is_none_or(|value| value == actual))
    })
}

/// Works out what shall be.
#[must_use]
pub fn wanted(world: &World) -> Wanted {
    let addresses = world.nodes.values().filter_map(NodeView::internal_address);
    let mut node_families: BTreeSet<bool> = addresses.map(|address| address.is_ipv6()).collect();
    if node_families.is_empty() {
        node_families.extend([false, true]);
    }
    let mut wanted = Wanted { node_families, ..Wanted::default() };
    for (key, service) in &world.services {
        if !service.is_wanted() {
            continue;
        }
        let (wishes, mut findings) = annotations::read(service);
        let (families, missing) = families(world, service);
        findings.extend(missing);
        findings.extend(outside_our_blocks(world, &wishes, &families));
        let refused = findings.iter().any(|finding| finding.refused);
        wanted.findings.extend(findings.into_iter().map(|finding| (key.clone(), finding)));
        if refused || world.held.contains(&service.uid) {
            wanted.kept.insert(service.uid.clone());
        } else {
            want_service(world, key, service, &wishes, &families, &mut wanted);
        }
    }
    let known: BTreeSet<&String> = world.services.values().map(|service| &service.uid).collect();
    let state = &world.state;
    let names = state.addresses.keys().chain(state.load_balancers.keys()).chain(state.pools.keys());
    for name in names.filter(|name| !world.ripe.contains(*name)) {
        if let Some(uid) = owner(name).filter(|uid| !known.contains(&(*uid).to_owned())) {
            wanted.kept.insert(uid.to_owned());
            wanted.orphans.insert(name.clone());
        }
    }
    keep_as_it_is(state, &mut wanted);
    wanted
}

/// The families that can be had, and what is wrong with the others.
fn families(world: &World, service: &ServiceView) -> (Vec<Family>, Vec<Finding>) {
    let has = |family: Family| {
        world.state.cluster.vip_blocks.iter().any(|block| block.is_ipv6() == (family == Family::V6))
    };
    let (had, lacking): (Vec<Family>, Vec<Family>) =
        service.families.iter().partition(|family| has(**family));
    let findings = lacking.into_iter().map(|family| {
        let text = if family == Family::V6 { "IPv6" } else { "IPv4" };
        Finding {
            field: "spec.ipFamilies".to_owned(),
            value: text.to_owned(),
            expected: format!("a family of the cluster's VIP blocks, which are {}", blocks(&world.state)),
            refused: had.is_empty(),
        }
    });
    let findings = findings.collect();
    (had, findings)
}

fn blocks(state: &ClusterState) -> String {
    let blocks: Vec<_> = state.cluster.vip_blocks.iter().map(ToString::to_string).collect();
    if blocks.is_empty() { "none".to_owned() } else { blocks.join(", ") }
}

fn outside_our_blocks(world: &World, wishes: &Wishes, families: &[Family]) -> Option<Finding> {
    let address = wishes.address?;
    let family = if address.is_ipv6() { Family::V6 } else { Family::V4 };
    let inside = world.state.cluster.vip_blocks.iter().any(|block| block.contains(address));
    if inside && families.contains(&family) {
        return None;
    }
    Some(Finding {
        field: format!("spec.loadBalancerIP or metadata.annotations[{ADDRESS}]"),
        value: address.to_string(),
        expected: format!(
            "an address of the Service's families in the cluster's VIP blocks {}",
            blocks(&world.state)
        ),
        refused: true,
    })
}

fn want_service(
    world: &World,
    key: &Key,
    service: &ServiceView,
    wishes: &Wishes,
    families: &[Family],
    wanted: &mut Wanted,
) {
    let uid = &service.uid;
    let candidates: BTreeMap<&String, &NodeView> = world
        .nodes
        .iter()
        .filter(|(_, node)| node.is_included() && is_selected(node, &wishes.node_selector))
        .filter(|(_, node)| node.server_id().is_some() && node.internal_address().is_some())
        // ake-api refuses a member whose address is no port's of the project.
        .filter(|(_, node)| world.ports.is_empty() || world.port_of(node).is_some())
        .collect();
    if candidates.is_empty() {
        wanted.without_nodes.push(key.clone());
    }
    let (pool, request) = if service.local {
        let endpoints = world.endpoints.get(key);
        let members = candidates.iter().filter_map(|(name, node)| {
            let count = endpoints?.get(*name)?;
            Some(((*name).clone(), member(world, node, count.ready.max(1), count.ready == 0)?))
        });
        let check =
            service.health_check_node_port.map(|port| Check::Http { port, path: "/healthz".to_owned() });
        let checks = check.into_iter().collect();
        let is_blind = world.endpoints.is_empty() || world.nodes.is_empty();
        (local_pool_name(uid), PoolRequest { members: (!is_blind).then(|| members.collect()), checks })
    } else {
        let members = candidates
            .iter()
            .filter_map(|(name, node)| Some(((*name).clone(), member(world, node, 1, false)?)));
        let checks = vec![Check::Http { port: PROXY_HEALTH_PORT, path: "/healthz".to_owned() }];
        // A cluster without any Node is more likely a view that failed: then members stay.
        let members = (!world.nodes.is_empty()).then(|| members.collect());
        (shared_pool_name(&wishes.node_selector), PoolRequest { members, checks })
    };
    wanted.pools.insert(pool.clone(), request);

    let listeners: BTreeSet<Listener> = service
        .ports
        .iter()
        .filter_map(|port| Some(Listener { protocol: port.protocol?, port: port.port, pool: pool.clone() }))
        .collect();
    for (name, family) in balancer_names(uid, families) {
        let address = wishes.address.filter(|address| address.is_ipv6() == (family == Family::V6));
        wanted.addresses.insert(name.clone(), (uid.clone(), AddressRequest { address, family }));
        let of_family = |range: &&ipnetwork::IpNetwork| range.is_ipv6() == (family == Family::V6);
        let request = LoadBalancerRequest {
            address: name.clone(),
            listeners: listeners.iter().cloned().collect(),
            source_ranges: wishes.source_ranges.iter().filter(of_family).copied().collect(),
            affinity: if service.client_affinity { Affinity::ClientIp } else { Affinity::None },
        };
        if request.source_ranges.is_empty() && !wishes.source_ranges.is_empty() {
            // Nobody of this family is let in; an empty list would let in everybody.
            wanted.addresses.remove(&name);
            continue;
        }
        wanted.balancers.insert(name, WantedBalancer { uid: uid.clone(), family, request });
    }
}

fn member(world: &World, node: &NodeView, weight: u16, ending: bool) -> Option<MemberRequest> {
    Some(MemberRequest {
        address: node.internal_address()?,
        weight,
        draining: ending || node.is_leaving(),
        port: world.port_of(node).map(|port| port.id.clone()),
    })
}

/// What stands at ake-api for Services that we do not touch now is wanted as it stands.
fn keep_as_it_is(state: &ClusterState, wanted: &mut Wanted) {
    let is_kept = |name: &str, kept: &BTreeSet<String>| owner(name).is_some_and(|uid| kept.contains(uid));
    for (name, address) in &state.addresses {
        if is_kept(name, &wanted.kept) {
            let uid = owner(name).unwrap_or_default().to_owned();
            let family = if address.address.is_ipv6() { Family::V6 } else { Family::V4 };
            let request = AddressRequest { address: Some(address.address), family };
            wanted.addresses.insert(name.clone(), (uid, request));
        }
    }
    for (name, balancer) in &state.load_balancers {
        if is_kept(name, &wanted.kept) {
            let request = LoadBalancerRequest {
                address: balancer.address.clone(),
                listeners: balancer.listeners.clone(),
                source_ranges: balancer.source_ranges.clone(),
                affinity: balancer.affinity,
            };
            let uid = owner(name).unwrap_or_default().to_owned();
            let family = if balancer.vip.is_ipv6() { Family::V6 } else { Family::V4 };
            wanted.balancers.insert(name.clone(), WantedBalancer { uid, family, request });
        }
    }
    let used: BTreeSet<String> = wanted
        .balancers
        .values()
        .flat_map(|balancer| balancer.request.listeners.iter().map(|listener| listener.pool.clone()))
        .collect();
    for (name, pool) in &state.pools {
        if used.contains(name) && !wanted.pools.contains_key(name) {
            // Without members the set stays as it is.
            wanted.pools.insert(name.clone(), PoolRequest { members: None, checks: pool.checks.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_from_names() {
        for (name, uid) in [
            ("svc-6f3a", Some("6f3a")),
            ("svc-6f3a-ipv6", Some("6f3a")),
            ("local-6f3a", Some("6f3a")),
            ("api", None),
            ("nodes", None),
            ("masters", None),
        ] {
            assert_eq!(owner(name), uid, "{name}");
        }
    }

    #[test]
    fn selectors_have_pools_of_their_own() {
        let none = shared_pool_name(&NodeSelector::new());
        let key = shared_pool_name(&NodeSelector::from([("a".to_owned(), None)]));
        let empty = shared_pool_name(&NodeSelector::from([("a".to_owned(), Some(String::new()))]));
        assert_eq!(none, NODES);
        assert_ne!(key, empty);
        for name in [none, key, empty] {
            assert!(is_shared_pool(&name), "{name}");
        }
        assert!(!is_shared_pool("masters") && !is_shared_pool("nodes-of-heat"));
    }
}
