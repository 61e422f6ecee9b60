//! The sets of nodes behind Services, and how nodes are checked.

use std::net::IpAddr;

use ake_api_client::{Check, ClusterState, Family, MemberRequest, PoolRequest, Protocol};
use ipnetwork::IpNetwork;

use super::{
    annotations::{Finding, HEALTH_CHECK, HealthCheck, NodeSelector, Wishes, field},
    names,
    view::ServiceView,
    wanted::{Draft, Wanted, World, text},
};
use crate::nodes::view::NodeView;

/// kube-proxy's own port, which tells whether the node takes traffic.
pub(super) const PROXY_HEALTH_PORT: u16 = 10256;

/// Its path there. `/healthz` says no as soon as a node is about to be removed (KEP-3836), which would end the flows that
/// a drain is to keep.
const PROXY_HEALTH_PATH: &str = "/livez";

/// kube-proxy's path on a Service's own health port.
const SERVICE_HEALTH_PATH: &str = "/healthz";

/// How a node stands to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It takes new flows.
    In,
    /// It keeps the flows that it has.
    Leaving,
    /// It has no place there.
    Out,
}

/// Whether there is any node that could carry the Service.
pub(super) fn has_nodes(world: &World, wishes: &Wishes) -> bool {
    world.nodes.values().any(|node| is_able(world, node) && is_chosen(node, &wishes.node_selector))
}

/// Puts the pool that one of a Service's families needs among what is wanted; its name.
pub(super) fn want(
    world: &World,
    draft: &Draft<'_>,
    index: usize,
    family: Family,
    address: &str,
    wanted: &mut Wanted,
) -> String {
    let Draft { key, service, wishes, .. } = draft;
    let health =
        wishes.health_check.unwrap_or(if service.local { HealthCheck::Vip } else { HealthCheck::Node });
    let is_own = service.local || health == HealthCheck::Vip;
    let name = if is_own {
        names::own_pool(&service.uid, index, family)
    } else {
        names::shared_pool(&wishes.node_selector, health != HealthCheck::None)
    };
    if wanted.pools.contains_key(&name) {
        // Of those that share it, the one that gives the most time counts.
        let members = world.state.pools.get(&name).into_iter().flat_map(|pool| pool.members.keys());
        for member in members {
            if let Some(seconds) = wanted.leaving.get_mut(&(name.clone(), member.clone())) {
                *seconds = (*seconds).max(wishes.drain_seconds);
            }
        }
        return name;
    }
    let mut members = Vec::new();
    let mut add = |node_name: &String, node: &NodeView, weight: u16, ending: bool| {
        let standing = standing(world, &name, node_name, node, &wishes.node_selector);
        if !is_staying(node, &wishes.node_selector) && is_member(world, &name, node_name) {
            wanted.leaving.insert((name.clone(), node_name.clone()), wishes.drain_seconds);
        }
        if let (Standing::In | Standing::Leaving, Some(address)) = (standing, address_of(world, draft, node))
        {
            let draining = ending || standing == Standing::Leaving;
            let port = world.port_with(node, address).map(|port| port.id.clone());
            members.push((node_name.clone(), MemberRequest { address, weight, draining, port }));
        }
    };
    // A cluster without any Node is more likely a view that failed: then members stay.
    let mut is_blind = world.nodes.is_empty();
    if service.local {
        is_blind |= world.endpoints.is_empty();
        let endpoints = world.endpoints.get(&((*key).clone(), family));
        for (node_name, count) in endpoints.into_iter().flatten() {
            if let Some(node) = world.nodes.get(node_name) {
                add(node_name, node, count.ready.max(1), count.ready == 0);
            }
        }
    } else {
        for (node_name, node) in &world.nodes {
            add(node_name, node, 1, false);
        }
    }
    let members = (!is_blind).then(|| members.into_iter().collect());
    let mut checks = checks(service, health);
    if health == HealthCheck::Vip {
        match vip_check(&world.state, service, wishes, family, address) {
            Ok(check) => checks.push(check),
            // By itself it is asked where it can be.
            Err(_) if wishes.health_check.is_none() => {}
            Err(expected) => {
                let told = ((*key).clone(), Finding::ignored(field(HEALTH_CHECK), "vip", expected));
                // Both families of a Service may come to the same.
                if wanted.findings.last() != Some(&told) {
                    wanted.findings.push(told);
                }
            }
        }
    }
    wanted.pools.insert(name.clone(), PoolRequest { members, checks });
    name
}

/// The address that a node is checked at. kube-proxy serves a Service's own health port in the Service's families only.
fn address_of(world: &World, draft: &Draft<'_>, node: &NodeView) -> Option<IpAddr> {
    let is_v6 = draft.families.first() == Some(&Family::V6);
    let can_be_asked = world.state.cluster.check_sources.iter().any(|source| source.is_ipv6() == is_v6);
    let of_family = node.internal_addresses().find(|address| address.is_ipv6() == is_v6);
    of_family
        .filter(|address| {
            draft.service.local
                && can_be_asked
                && (world.ports.is_empty() || world.port_with(node, *address).is_some())
        })
        .or_else(|| node.internal_address())
}

/// What a node is asked itself.
fn checks(service: &ServiceView, health: HealthCheck) -> Vec<Check> {
    if health == HealthCheck::None {
        return Vec::new();
    }
    let (port, path) = match service.local {
        true => (service.health_check_node_port, SERVICE_HEALTH_PATH),
        false => (Some(PROXY_HEALTH_PORT), PROXY_HEALTH_PATH),
    };
    Vec::from_iter(port.map(|port| Check::Http { port, path: path.to_owned() }))
}

/// What is asked of the VIP by way of a node, or what is expected for that.
fn vip_check(
    state: &ClusterState,
    service: &ServiceView,
    wishes: &Wishes,
    family: Family,
    address: &str,
) -> Result<Check, String> {
    let of_family = |network: &&IpNetwork| network.is_ipv6() == (family == Family::V6);
    let sources: Vec<_> = state.cluster.check_sources.iter().filter(of_family).collect();
    let ranges: Vec<_> = wishes.source_ranges.iter().filter(of_family).collect();
    // kube-proxy lets nobody else in, checks included.
    let is_let_in = |source: &&&IpNetwork| {
        let covers =
            |range: &&IpNetwork| range.prefix() <= source.prefix() && range.contains(source.network());
        ranges.is_empty() || ranges.iter().any(covers)
    };
    let Some(port) = service.ports.iter().find(|port| port.protocol == Some(Protocol::Tcp)) else {
        return Err("node or none, or a TCP port: nothing else can be asked of the VIP itself".to_owned());
    };
    if sources.is_empty() {
        return Err(format!("node or none: no balancer has an {} address to ask the VIP from", text(family)));
    }
    if let Some(source) = sources.iter().find(|source| !is_let_in(source)) {
        return Err(format!(
            "node or none, or source ranges with {source}, from where the VIP would be asked"
        ));
    }
    Ok(Check::Vip { address: address.to_owned(), port: port.port })
}

fn standing(world: &World, pool: &str, name: &str, node: &NodeView, selector: &NodeSelector) -> Standing {
    if !is_able(world, node) {
        return Standing::Out;
    }
    if is_staying(node, selector) {
        return Standing::In;
    }
    let is_over = world.drained.contains(&(pool.to_owned(), name.to_owned()));
    if is_member(world, pool, name) && !is_over { Standing::Leaving } else { Standing::Out }
}

/// Whether packets can be sent to it at all.
fn is_able(world: &World, node: &NodeView) -> bool {
    // ake-api refuses a member whose address is no port's of the project.
    let has_port = world.ports.is_empty() || world.port_of(node).is_some();
    node.server_id().is_some() && node.internal_address().is_some() && has_port
}

fn is_chosen(node: &NodeView, selector: &NodeSelector) -> bool {
    node.is_included() && is_selected(node, selector)
}

fn is_staying(node: &NodeView, selector: &NodeSelector) -> bool {
    is_chosen(node, selector) && !node.is_leaving()
}

fn is_member(world: &World, pool: &str, name: &str) -> bool {
    world.state.pools.get(pool).is_some_and(|pool| pool.members.contains_key(name))
}

fn is_selected(node: &NodeView, selector: &NodeSelector) -> bool {
    selector.iter().all(|(key, value)| {
        node.labels.get(key).is_some_and(|actual| value.as_ref().is_none_or(|value| value == actual))
    })
}
