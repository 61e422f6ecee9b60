//! From what a device has to what is wanted, as steps in an order that every device accepts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::model::{Endpoint, LoadBalancer, Owner, Pool, State};

/// One step on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A load balancer goes.
    DeleteLoadBalancer(Owner),
    /// A load balancer gives up ports that another one takes over: what is left of it.
    Release(Owner, LoadBalancer),
    /// A pool is made, or made to be this.
    PutPool(Owner, Pool),
    /// A load balancer is made, or made to be this.
    PutLoadBalancer(Owner, LoadBalancer),
    /// A pool goes.
    DeletePool(Owner),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteLoadBalancer(owner) => write!(f, "delete load balancer {owner}"),
            Self::Release(owner, _) => write!(f, "release ports of load balancer {owner}"),
            Self::PutPool(owner, pool) => write!(f, "put pool {owner} with {} members", pool.members.len()),
            Self::PutLoadBalancer(owner, lb) => write!(f, "put load balancer {owner} on {}", lb.vip),
            Self::DeletePool(owner) => write!(f, "delete pool {owner}"),
        }
    }
}

/// What has to be done so that a device that has `actual` has `wanted`.
///
/// The order serves devices that refuse a listener without its pool, the deletion of a pool in use, and two
/// load balancers on one port: load balancers go, ports that change hands are released, pools come, load
/// balancers come, pools go. An empty answer means that nothing has to be done; versions are not compared.
pub fn diff(wanted: &State, actual: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = actual.load_balancers.keys().filter(|owner| !wanted.load_balancers.contains_key(*owner));
    changes.extend(gone.cloned().map(Change::DeleteLoadBalancer));
    changes.extend(releases(wanted, actual));
    for (owner, pool) in &wanted.pools {
        if actual.pools.get(owner) != Some(pool) {
            changes.push(Change::PutPool(owner.clone(), pool.clone()));
        }
    }
    for (owner, balancer) in &wanted.load_balancers {
        if actual.load_balancers.get(owner) != Some(balancer) {
            changes.push(Change::PutLoadBalancer(owner.clone(), balancer.clone()));
        }
    }
    let gone = actual.pools.keys().filter(|owner| !wanted.pools.contains_key(*owner));
    changes.extend(gone.cloned().map(Change::DeletePool));
    changes
}

/// Ports that stay in use but change hands must be free before the new holder comes, or two load balancers
/// that swap ports would wait for each other.
fn releases<'a>(wanted: &'a State, actual: &'a State) -> impl Iterator<Item = Change> + 'a {
    let claims: BTreeMap<(IpAddr, Endpoint), &Owner> = wanted
        .load_balancers
        .iter()
        .flat_map(|(owner, lb)| lb.listeners.keys().map(move |endpoint| ((lb.vip, *endpoint), owner)))
        .collect();
    actual.load_balancers.iter().filter_map(move |(owner, had)| {
        wanted.load_balancers.get(owner)?;
        let lost: BTreeSet<Endpoint> = had
            .listeners
            .keys()
            .filter(|endpoint| claims.get(&(had.vip, **endpoint)).is_some_and(|holder| *holder != owner))
            .copied()
            .collect();
        if lost.is_empty() {
            return None;
        }
        let mut left = had.clone();
        left.listeners.retain(|endpoint, _| !lost.contains(endpoint));
        Some(Change::Release(owner.clone(), left))
    })
}

#[cfg(test)]
mod tests;
