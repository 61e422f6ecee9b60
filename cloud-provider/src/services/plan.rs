//! From what is there and what is wanted to steps, in the order in which they are safe.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::Write;

use super::{
    annotations::Finding,
    claim, names, rules,
    step::{Owner, Step},
    view::{SENTINEL, ServiceView},
    wanted::{self, Wanted, World},
    writes,
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
    /// Members that are about to go, as pool and node, each with the seconds that it has to end.
    pub leaving: BTreeMap<(String, String), u32>,
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
    if let Some(reason) = claim::stopped(world) {
        return Plan { stopped: Some(reason), ..Plan::default() };
    }
    let wanted = wanted::wanted(world);
    let mut plan = Plan {
        findings: wanted.findings.clone(),
        without_nodes: wanted.without_nodes.clone(),
        orphans: wanted.orphans.clone(),
        leaving: wanted.leaving.clone(),
        ..Plan::default()
    };
    let deleting = world.state.cluster.deleting;
    for (key, service) in &world.services {
        if service.is_wanted() && !service.finalizer && !deleting {
            plan.steps.push(Step::AddFinalizer { service: key.clone(), uid: service.uid.clone() });
        }
    }
    let admitted = world.rules.as_deref().map(rules::Admitted::new);
    let (add, remove) = match (&world.rules, &admitted) {
        (Some(actual), Some(admitted)) => {
            rules::difference(&rules::wanted(&world.state, &wanted), actual, admitted)
        }
        _ => Default::default(),
    };
    let writes = writes::writes(&world.state, &wanted).into_iter().chain(pairs::writes(world));
    let allowed = |write: &Write| !deleting || is_deletion(write);
    plan.steps.extend(
        writes.filter(|(_, write)| allowed(write)).map(|(owner, write)| Step::Write { owner, write }),
    );
    if !deleting {
        plan.steps.extend(add.into_iter().map(|(uid, spec)| {
            let owner = uid.map_or(Owner::Checks, Owner::Service);
            Step::AddRule { owner, spec }
        }));
        plan.steps.extend(remove.into_iter().map(Step::RemoveRule));
    }
    // Those of Services are not even wanted; Nodes are seen to where their ports are.
    let of_none = [Owner::All, Owner::Checks, Owner::Nobody];
    plan.steps.retain(|step| {
        let owner = step.owner();
        !(of_none.contains(&owner) && world.held.contains(&owner))
    });
    for (key, service) in &world.services {
        finish(world, &wanted, admitted.as_ref(), key, service, &mut plan);
    }
    plan
}

pub(super) fn is_deletion(write: &Write) -> bool {
    matches!(
        write,
        Write::DeleteAddress { .. }
            | Write::DeletePool { .. }
            | Write::DeleteLoadBalancer { .. }
            | Write::DeleteMember { .. }
            | Write::DeleteNodePort { .. }
    )
}

/// The status once everything before it is in place, and the finalizer once nothing is left.
fn finish(
    world: &World,
    wanted: &Wanted,
    admitted: Option<&rules::Admitted>,
    key: &Key,
    service: &ServiceView,
    plan: &mut Plan,
) {
    let uid = &service.uid;
    if service.is_wanted() {
        if wanted.kept.contains(uid) || world.state.cluster.deleting {
            return;
        }
        let mut addresses = Vec::new();
        // The names are those of a Service that has all of its families; which ones there are tell the wanted ones.
        let mine = names::all_balancers(uid);
        for (name, balancer) in mine.iter().filter_map(|name| Some((name, wanted.balancers.get(name)?))) {
            let actual = world.state.load_balancers.get(name);
            let Some(actual) = actual.filter(|actual| writes::is_same_balancer(actual, &balancer.request))
            else {
                return;
            };
            if !actual.applied {
                plan.waiting.insert(key.clone(), actual.reason.clone());
            }
            if !actual.applied || !admitted.is_none_or(|admitted| admitted.admit(balancer)) {
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
    let is_there = |name: &String| {
        state.addresses.contains_key(name)
            || state.load_balancers.contains_key(name)
            || state.pools.contains_key(name)
    };
    if !service.finalizer || names::all_of(uid).iter().any(is_there) {
        return;
    }
    if !service.ingress.is_empty() && !service.deleting {
        plan.steps.push(Step::SetStatus { service: key.clone(), uid: uid.clone(), addresses: Vec::new() });
    }
    plan.steps.push(Step::RemoveFinalizer { service: key.clone(), uid: uid.clone() });
}
