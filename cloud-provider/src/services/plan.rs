//! From what is there and what is wanted to steps, in the order in which they are safe.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::{Check, ClusterState, LoadBalancer, LoadBalancerRequest, Pool, PoolRequest, Write};

use super::{
    annotations::Finding,
    rules,
    step::{Owner, Step},
    view::{SENTINEL, ServiceView},
    wanted::{self, Wanted, World},
};
use crate::{cluster::Key, nodes::pairs};

/// What to do, and what is to be said.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Services whose load balancer the device does not have yet, with its words if it gave any.
    pub waiting: BTreeMap<Key, Option<String>>,
    /// UIDs of Services with all that they asked for.
    pub settled: BTreeSet<String>,
    /// What is wrong with Services.
    pub findings: Vec<(Key, Finding)>,
    /// Services that have no node to go to.
    pub without_nodes: Vec<Key>,
    /// Names at ake-api whose Service is not there.
    pub orphans: BTreeSet<String>,
    /// Why nothing at all is done.
    pub stopped: Option<String>,
}

/// Works out what to do. After doing it, planning again with what is there then gives the next round, until
/// there is nothing left to do.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let sentinel = Key::new(SENTINEL.0, SENTINEL.1);
    if !world.services.contains_key(&sentinel) {
        let stopped = Some(format!(
            "the view of Services is incomplete: {sentinel}, which is always there, is not in it"
        ));
        return Plan { stopped, ..Plan::default() };
    }
    let wanted = wanted::wanted(world);
    let mut plan = Plan {
        findings: wanted.findings.clone(),
        without_nodes: wanted.without_nodes.clone(),
        orphans: wanted.orphans.clone(),
        ..Plan::default()
    };
    let deleting = world.state.cluster.deleting;
    for (key, service) in &world.services {
        if service.is_wanted() && !service.finalizer && !deleting {
            plan.steps.push(Step::AddFinalizer { service: key.clone(), uid: service.uid.clone() });
        }
    }
    let (add, remove) = match &world.rules {
        Some(actual) => rules::difference(&rules::wanted(&world.state, &wanted), actual),
        None => Default::default(),
    };
    let writes = writes(&world.state, &wanted).into_iter().chain(pairs::writes(world));
    let allowed = |write: &Write| !deleting || is_deletion(write);
    plan.steps.extend(
        writes.filter(|(_, write)| allowed(write)).map(|(owner, write)| Step::Write { owner, write }),
    );
    if !deleting {
        plan.steps.extend(add.into_iter().map(|(uid, spec)| {
            let owner = uid.map_or(Owner::All, Owner::Service);
            Step::AddRule { owner, spec }
        }));
    }
    if !deleting {
        plan.steps.extend(remove.into_iter().map(Step::RemoveRule));
    }
    for (key, service) in &world.services {
        finish(world, &wanted, key, service, &mut plan);
    }
    plan
}

fn is_deletion(write: &Write) -> bool {
    matches!(
        write,
        Write::DeleteAddress { .. }
            | Write::DeletePool { .. }
            | Write::DeleteLoadBalancer { .. }
            | Write::DeleteMember { .. }
            | Write::DeleteNodePort { .. }
    )
}

/// Writes for load balancers: what is in the way goes first, then what is referred to, then what refers to it,
/// then what nothing refers to any more.
fn writes(state: &ClusterState, wanted: &Wanted) -> Vec<(Owner, Write)> {
    let owner = |name: &str| wanted::owner(name).map_or(Owner::All, |uid| Owner::Service(uid.to_owned()));
    let misplaced: BTreeSet<&String> = wanted
        .addresses
        .iter()
        .filter(|(name, (_, request))| {
            state.addresses.get(*name).is_some_and(|actual| match request.address {
                Some(address) => actual.address != address,
                None => actual.address.is_ipv6() != (request.family == ake_api_client::Family::V6),
            })
        })
        .map(|(name, _)| name)
        .collect();
    let mut writes = Vec::new();
    let mut push = |name: &str, write: Write| writes.push((owner(name), write));

    for name in state.load_balancers.keys().filter(|name| wanted::owner(name).is_some()) {
        if !wanted.balancers.contains_key(name) || misplaced.contains(name) {
            push(name, Write::DeleteLoadBalancer { name: name.clone() });
        }
    }
    for name in state.addresses.keys().filter(|name| wanted::owner(name).is_some()) {
        if !wanted.addresses.contains_key(name) || misplaced.contains(name) {
            push(name, Write::DeleteAddress { name: name.clone() });
        }
    }
    for (name, (_, request)) in &wanted.addresses {
        if !state.addresses.contains_key(name) || misplaced.contains(name) {
            push(name, Write::PutAddress { name: name.clone(), request: request.clone() });
        }
    }
    for (name, request) in &wanted.pools {
        let ours = wanted::owner(name).is_some() || wanted::is_shared_pool(name);
        if ours && state.pools.get(name).is_none_or(|actual| !is_same_pool(actual, request)) {
            push(name, Write::PutPool { name: name.clone(), request: request.clone() });
        }
    }
    for (name, balancer) in &wanted.balancers {
        let actual = state.load_balancers.get(name).filter(|_| !misplaced.contains(name));
        if actual.is_none_or(|actual| !is_same_balancer(actual, &balancer.request)) {
            push(name, Write::PutLoadBalancer { name: name.clone(), request: balancer.request.clone() });
        }
    }
    for name in state.pools.keys() {
        let ours = wanted::owner(name).is_some() || wanted::is_shared_pool(name);
        if ours && !wanted.pools.contains_key(name) {
            push(name, Write::DeletePool { name: name.clone() });
        }
    }
    writes
}

fn is_same_pool(actual: &Pool, request: &PoolRequest) -> bool {
    let members_fit = request.members.as_ref().is_none_or(|wanted| {
        let fits = |(name, wanted): (&String, &ake_api_client::MemberRequest)| {
            actual.members.get(name).is_some_and(|member| {
                (member.address, member.weight, member.draining)
                    == (wanted.address, wanted.weight, wanted.draining)
            })
        };
        wanted.len() == actual.members.len() && wanted.iter().all(fits)
    });
    let set = |checks: &[Check]| checks.iter().cloned().collect::<BTreeSet<_>>();
    members_fit && set(&actual.checks) == set(&request.checks)
}

fn is_same_balancer(actual: &LoadBalancer, request: &LoadBalancerRequest) -> bool {
    fn set<T: Ord>(items: &[T]) -> BTreeSet<&T> {
        items.iter().collect()
    }
    actual.address == request.address
        && actual.affinity == request.affinity
        && set(&actual.listeners) == set(&request.listeners)
        && set(&actual.source_ranges) == set(&request.source_ranges)
}

/// The status once everything before it is in place, and the finalizer once nothing is left.
fn finish(world: &World, wanted: &Wanted, key: &Key, service: &ServiceView, plan: &mut Plan) {
    let uid = &service.uid;
    if service.is_wanted() {
        if wanted.kept.contains(uid) || world.state.cluster.deleting {
            return;
        }
        let mut addresses = Vec::new();
        let mine = wanted.balancers.iter().filter(|(_, balancer)| balancer.uid == *uid);
        for (name, balancer) in mine {
            let actual = world.state.load_balancers.get(name);
            let Some(actual) = actual.filter(|actual| is_same_balancer(actual, &balancer.request)) else {
                return;
            };
            let admitted = world.rules.as_ref().is_none_or(|actual| rules::admit(actual, balancer));
            if !actual.applied {
                plan.waiting.insert(key.clone(), actual.reason.clone());
            }
            if !actual.applied || !admitted {
                return;
            }
            addresses.push(actual.vip);
        }
        // The order of families, not of names.
        addresses.sort_by_key(|address| {
            service
                .families
                .iter()
                .position(|family| (*family == ake_api_client::Family::V6) == address.is_ipv6())
        });
        let published: Vec<_> = service.ingress.iter().map(|entry| (entry.ip, entry.plain_vip)).collect();
        let wished: Vec<_> = addresses.iter().map(|address| (Some(*address), true)).collect();
        if addresses.is_empty() || published == wished {
            plan.settled.insert(uid.clone());
        } else {
            plan.steps.push(Step::SetStatus { service: key.clone(), uid: uid.clone(), addresses });
        }
        return;
    }
    let state = &world.state;
    let mut names = state.addresses.keys().chain(state.load_balancers.keys()).chain(state.pools.keys());
    if !service.finalizer || names.any(|name| wanted::owner(name) == Some(uid)) {
        return;
    }
    if !service.ingress.is_empty() && !service.deleting {
        plan.steps.push(Step::SetStatus { service: key.clone(), uid: uid.clone(), addresses: Vec::new() });
    }
    plan.steps.push(Step::RemoveFinalizer { service: key.clone(), uid: uid.clone() });
}
