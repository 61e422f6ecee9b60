//! What a cluster's Services and Nodes ask of ake-api and of the security group.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{
    AddressRequest, Affinity, ClusterState, Family, KubernetesId, Listener, LoadBalancerRequest, PoolRequest,
};

use super::{
    addresses::{self, Addresses},
    annotations::{self, Finding, Wishes},
    names, pools, share,
    step::Owner,
    view::{Endpoints, ServiceView},
};
use crate::{cluster::Key, nodes::view::NodeView};

/// What a decision is made from; all of it was only read.
#[derive(Debug, Clone)]
pub struct World {
    /// Services that concern us.
    pub services: BTreeMap<Key, ServiceView>,
    /// All Nodes by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// Endpoints of Services by node's name, over all their slices of a family.
    pub endpoints: BTreeMap<(Key, Family), BTreeMap<String, Endpoints>>,
    /// Neutron ports of servers, by server's id.
    pub ports: BTreeMap<String, Vec<ServerPort>>,
    /// Whether nodes' ports are to let through what pods send.
    pub routes: bool,
    /// Addresses of the project's ports that nothing uses, by port's id; none if they are not looked at.
    pub free_ports: Option<BTreeMap<String, Vec<IpAddr>>>,
    /// What ake-api has.
    pub state: ClusterState,
    /// Which Kubernetes this is.
    pub kubernetes: KubernetesId,
    /// What the security group has; none if we keep none.
    pub rules: Option<Vec<openstack_client::security_groups::Rule>>,
    /// Whose last step was refused, and who are left alone for now.
    pub held: BTreeSet<Owner>,
    /// Names at ake-api whose Service is gone, and that may be removed by now.
    pub ripe: BTreeSet<String>,
    /// Members of pools that have had their time to end, each as pool and node.
    pub drained: BTreeSet<(String, String)>,
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
        self.port_with(node, node.internal_address()?)
    }

    /// The port of a node that carries an address.
    #[must_use]
    pub fn port_with(&self, node: &NodeView, address: IpAddr) -> Option<&ServerPort> {
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
    /// Addresses by name, each with the UID of a Service that it is for.
    pub addresses: BTreeMap<String, (String, AddressRequest)>,
    /// Names of addresses that stayed with a Service's name and that it does not want to keep.
    pub given_back: BTreeSet<String>,
    /// Pools by name.
    pub pools: BTreeMap<String, PoolRequest>,
    /// Members that are about to go, as pool and node, each with the seconds that it has to end.
    pub leaving: BTreeMap<(String, String), u32>,
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

/// A Service that shall have a load balancer, read.
pub(super) struct Draft<'a> {
    pub(super) key: &'a Key,
    pub(super) service: &'a ServiceView,
    pub(super) wishes: Wishes,
    pub(super) families: Vec<Family>,
    findings: Vec<Finding>,
}

impl Draft<'_> {
    fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.refused)
    }
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
    let mut drafts: Vec<Draft<'_>> = world
        .services
        .iter()
        .filter(|(_, service)| service.is_wanted())
        .map(|(key, service)| draft(world, key, service))
        .collect();
    let able = drafts.iter().filter(|draft| !draft.is_refused());
    let mut conflicts = share::conflicts(world, able);
    let mut chosen = Addresses::new(world, drafts.iter());
    for draft in &mut drafts {
        draft.findings.extend(conflicts.remove(draft.key));
        let held = world.held.contains(&Owner::Service(draft.service.uid.clone()));
        if !draft.is_refused() && !held {
            match chosen.choose(draft) {
                Ok(addresses) => want_service(world, draft, addresses, &mut wanted),
                Err(finding) => draft.findings.push(finding),
            }
            draft.findings.append(&mut chosen.ignored);
        }
        if draft.is_refused() || held {
            wanted.kept.insert(draft.service.uid.clone());
        }
        let findings = std::mem::take(&mut draft.findings);
        wanted.findings.extend(findings.into_iter().map(|finding| (draft.key.clone(), finding)));
    }
    keep_orphans(world, &mut wanted);
    keep_as_it_is(&world.state, &mut wanted);
    addresses::inherit(&world.state, &mut wanted);
    wanted
}

fn draft<'a>(world: &World, key: &'a Key, service: &'a ServiceView) -> Draft<'a> {
    let (wishes, mut findings) = annotations::read(service);
    let (mut families, missing) = families(&world.state, service);
    findings.extend(missing);
    findings.extend(addresses::findings(&world.state, &wishes, &families));
    families.retain(|family| {
        // An empty list would let in everybody.
        let of_family = |range: &ipnetwork::IpNetwork| range.is_ipv6() == (*family == Family::V6);
        let admitted = wishes.source_ranges.is_empty() || wishes.source_ranges.iter().any(of_family);
        if !admitted {
            let ranges: Vec<_> = wishes.source_ranges.iter().map(ToString::to_string).collect();
            findings.push(Finding::ignored(
                "spec.loadBalancerSourceRanges",
                ranges.join(","),
                format!(
                    "a range of {} too: without one there is no load balancer of that family",
                    text(*family)
                ),
            ));
        }
        admitted
    });
    Draft { key, service, wishes, families, findings }
}

/// The families that can be had, and what is wrong with the others.
fn families(state: &ClusterState, service: &ServiceView) -> (Vec<Family>, Vec<Finding>) {
    let has = |family: Family| {
        state.cluster.vip_blocks.iter().any(|block| block.is_ipv6() == (family == Family::V6))
    };
    let (had, lacking): (Vec<Family>, Vec<Family>) =
        service.families.iter().partition(|family| has(**family));
    let findings = lacking.into_iter().map(|family| Finding {
        field: "spec.ipFamilies".to_owned(),
        value: text(family).to_owned(),
        expected: format!("a family of the cluster's VIP blocks, which are {}", addresses::blocks(state)),
        refused: had.is_empty(),
    });
    let findings = findings.collect();
    (had, findings)
}

/// A family, as Kubernetes writes it.
pub(super) fn text(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn want_service(
    world: &World,
    draft: &Draft<'_>,
    addresses: Vec<(String, AddressRequest)>,
    wanted: &mut Wanted,
) {
    let Draft { key, service, wishes, families, .. } = draft;
    let uid = &service.uid;
    for family in [Family::V4, Family::V6] {
        wanted.given_back.insert(names::kept_address(key, family));
    }
    if !pools::has_nodes(world, wishes) {
        wanted.without_nodes.push((*key).clone());
    }
    let balancers = names::balancers(uid, families);
    for (index, ((name, family), (address, request))) in balancers.into_iter().zip(addresses).enumerate() {
        let pool = pools::want(world, draft, index, family, &address, wanted);
        wanted.given_back.remove(&address);
        let known = wanted.addresses.entry(address.clone()).or_insert_with(|| (uid.clone(), request.clone()));
        known.1.address = known.1.address.or(request.address);
        known.1.adopt = known.1.adopt.take().or(request.adopt);
        let listeners: BTreeSet<Listener> = service
            .ports
            .iter()
            .filter_map(|port| {
                Some(Listener { protocol: port.protocol?, port: port.port, pool: pool.clone() })
            })
            .collect();
        let of_family = |range: &&ipnetwork::IpNetwork| range.is_ipv6() == (family == Family::V6);
        let request = LoadBalancerRequest {
            address,
            listeners: listeners.into_iter().collect(),
            source_ranges: wishes.source_ranges.iter().filter(of_family).copied().collect(),
            affinity: if wishes.client_affinity { Affinity::ClientIp } else { Affinity::None },
        };
        wanted.balancers.insert(name, WantedBalancer { uid: uid.clone(), family, request });
    }
}

/// What has no Service stays until it is sure that it is gone.
fn keep_orphans(world: &World, wanted: &mut Wanted) {
    let known: BTreeSet<&str> = world.services.values().map(|service| service.uid.as_str()).collect();
    let state = &world.state;
    let names = state.addresses.keys().chain(state.load_balancers.keys()).chain(state.pools.keys());
    for name in names.filter(|name| !world.ripe.contains(*name)) {
        if let Some(uid) = names::owner(name).filter(|uid| !known.contains(uid)) {
            wanted.kept.insert(uid.to_owned());
            wanted.orphans.insert(name.clone());
        }
    }
}

/// What stands at ake-api for Services that we do not touch now is wanted as it stands.
fn keep_as_it_is(state: &ClusterState, wanted: &mut Wanted) {
    let is_kept =
        |name: &str, kept: &BTreeSet<String>| names::owner(name).is_some_and(|uid| kept.contains(uid));
    let mut used: BTreeSet<(&String, &str)> = BTreeSet::new();
    for (name, balancer) in &state.load_balancers {
        if is_kept(name, &wanted.kept) {
            let request = LoadBalancerRequest {
                address: balancer.address.clone(),
                listeners: balancer.listeners.clone(),
                source_ranges: balancer.source_ranges.clone(),
                affinity: balancer.affinity,
            };
            let uid = names::owner(name).unwrap_or_default();
            let family = if balancer.vip.is_ipv6() { Family::V6 } else { Family::V4 };
            used.insert((&balancer.address, uid));
            wanted.balancers.insert(name.clone(), WantedBalancer { uid: uid.to_owned(), family, request });
        }
    }
    for name in state.addresses.keys().filter(|name| is_kept(name, &wanted.kept)) {
        used.insert((name, names::owner(name).unwrap_or_default()));
    }
    for (name, uid) in used {
        if let Some(address) = state.addresses.get(name).filter(|_| names::holder(name).is_some()) {
            let family = if address.address.is_ipv6() { Family::V6 } else { Family::V4 };
            let request =
                AddressRequest { address: Some(address.address), family, ..AddressRequest::default() };
            // Others who share it get no other one as long as this one is here.
            wanted.addresses.insert(name.clone(), (uid.to_owned(), request));
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
