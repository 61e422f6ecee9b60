//! Writes for load balancers, in the order in which ake-api takes them: what is in the way goes first, then comes
//! what is referred to, then what refers to it, then what nothing refers to any more goes.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::{
    Address, Check, ClusterState, Family, LoadBalancer, LoadBalancerRequest, MemberRequest, Pool,
    PoolRequest, Protocol, Write,
};

use super::{
    names::{self, Holder},
    step::Owner,
    wanted::Wanted,
};

/// From what ake-api has to what is wanted.
pub(super) fn writes(state: &ClusterState, wanted: &Wanted) -> Vec<(Owner, Write)> {
    let going = Going::new(state, wanted);
    let owner = |name: &str| names::owner(name).map_or(Owner::All, |uid| Owner::Service(uid.to_owned()));
    let mut writes = Vec::new();
    let mut push = |owner: Owner, write: Write| writes.push((owner, write));

    for name in &going.balancers {
        push(owner(name), Write::DeleteLoadBalancer { name: (*name).clone() });
    }
    for name in &going.addresses {
        push(going.releaser(name), Write::DeleteAddress { name: (*name).clone() });
    }
    // A certain one before any one, which might be the same.
    let (certain, any): (Vec<_>, Vec<_>) =
        wanted.addresses.iter().partition(|(_, (_, request))| request.address.is_some());
    for (name, (uid, request)) in certain.into_iter().chain(any) {
        let actual = state.addresses.get(name).filter(|_| !going.addresses.contains(name));
        let is_said = |actual: &Address| request.retain.is_none_or(|retain| retain == actual.retained);
        if !actual.is_some_and(is_said) {
            let write = Write::PutAddress { name: name.clone(), request: request.clone() };
            push(Owner::Service(uid.clone()), write);
        }
    }
    for (name, request) in &wanted.pools {
        let actual = state.pools.get(name);
        if names::is_pool_of_services(name) && actual.is_none_or(|actual| !is_same_pool(actual, request)) {
            push(owner(name), Write::PutPool { name: name.clone(), request: request.clone() });
        }
    }
    for (name, balancer) in &wanted.balancers {
        let actual = state.load_balancers.get(name).filter(|_| !going.balancers.contains(name));
        if actual.is_none_or(|actual| !is_same_balancer(actual, &balancer.request)) {
            push(
                owner(name),
                Write::PutLoadBalancer { name: name.clone(), request: balancer.request.clone() },
            );
        }
    }
    for name in state.pools.keys() {
        if names::is_pool_of_services(name) && !wanted.pools.contains_key(name) {
            push(owner(name), Write::DeletePool { name: name.clone() });
        }
    }
    writes
}

/// What goes before anything comes; some of it comes again.
struct Going<'a> {
    state: &'a ClusterState,
    balancers: BTreeSet<&'a String>,
    addresses: BTreeSet<&'a String>,
}

impl<'a> Going<'a> {
    fn new(state: &'a ClusterState, wanted: &Wanted) -> Self {
        let addresses: BTreeSet<&String> = state
            .addresses
            .iter()
            .filter(|(name, actual)| match (wanted.addresses.get(*name), names::holder(name)) {
                // What is there is not what is asked for.
                (Some((_, request)), _) => match request.address {
                    Some(address) => actual.address != address,
                    None => actual.address.is_ipv6() != (request.family == Family::V6),
                },
                (None, Some(Holder::Service(_) | Holder::Shared)) => true,
                (None, Some(Holder::Kept)) => wanted.given_back.contains(*name),
                (None, None) => false,
            })
            .map(|(name, _)| name)
            .collect();
        // Ports of shared VIPs that pass from one to another.
        let mut claims: BTreeMap<(&str, Protocol, u16), &String> = BTreeMap::new();
        for (name, balancer) in &wanted.balancers {
            for listener in &balancer.request.listeners {
                claims.insert((&balancer.request.address, listener.protocol, listener.port), name);
            }
        }
        let is_claimed = |name: &String, actual: &LoadBalancer| {
            actual.listeners.iter().any(|listener| {
                let claim = claims.get(&(actual.address.as_str(), listener.protocol, listener.port));
                claim.is_some_and(|claimant| *claimant != name)
            })
        };
        let balancers: BTreeSet<&String> = state
            .load_balancers
            .iter()
            .filter(|(name, actual)| {
                let is_wanted = wanted.balancers.contains_key(*name);
                let in_the_way = addresses.contains(&actual.address) || is_claimed(name, actual);
                names::owner(name).is_some() && (!is_wanted || in_the_way)
            })
            .map(|(name, _)| name)
            .collect();
        Self { state, balancers, addresses }
    }

    /// Who waits for an address to go: the Service that had it alone, or the first of those that shared it.
    fn releaser(&self, address: &str) -> Owner {
        let user = self.state.load_balancers.iter().find(|(_, balancer)| balancer.address == address);
        let uid = names::owner(address).or_else(|| names::owner(user?.0));
        uid.map_or(Owner::All, |uid| Owner::Service(uid.to_owned()))
    }
}

fn is_same_pool(actual: &Pool, request: &PoolRequest) -> bool {
    let members_fit = request.members.as_ref().is_none_or(|wanted| {
        let fits = |(name, wanted): (&String, &MemberRequest)| {
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

/// Whether a load balancer is what is asked for; the order of what it has in lists says nothing.
pub(super) fn is_same_balancer(actual: &LoadBalancer, request: &LoadBalancerRequest) -> bool {
    fn set<T: Ord>(items: &[T]) -> BTreeSet<&T> {
        items.iter().collect()
    }
    actual.address == request.address
        && actual.affinity == request.affinity
        && set(&actual.listeners) == set(&request.listeners)
        && set(&actual.source_ranges) == set(&request.source_ranges)
}
