//! From what clusters want to one state of a balancer, and back from its status to a cluster's view.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use ake_api_client::{Affinity, Check, Listener, Protocol};
use lb_driver::model::{self, Owner, State, Version};

use crate::{
    decide::wanted::{ClusterRecord, WantedMember},
    store::Loaded,
};

/// What cannot be told to a balancer, with the object it stands in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster {cluster}: {object}: {reason}")]
pub struct Untranslatable {
    cluster: ake_api_client::ClusterId,
    object: String,
    reason: String,
}

/// The one state that all balancers shall have.
pub fn state(version: Version, clusters: &[Loaded]) -> Result<State, Untranslatable> {
    let mut state = State { version, ..State::default() };
    for cluster in clusters {
        for name in cluster.wanted.pools.keys() {
            let (owner, pool) = pool(cluster, name)?;
            state.pools.insert(owner, pool);
        }
        for name in cluster.wanted.load_balancers.keys() {
            // without its address there is nothing to listen on
            if let Some((owner, balancer)) = load_balancer(cluster, name)? {
                state.load_balancers.insert(owner, balancer);
            }
        }
    }
    Ok(state)
}

/// The name of a cluster's object on the balancers.
pub fn owner(cluster: &ClusterRecord, object: &str) -> Result<Owner, Untranslatable> {
    Owner::new(&cluster.project, cluster.id.to_string(), object).map_err(|e| wrong(cluster, object, e))
}

fn pool(cluster: &Loaded, name: &str) -> Result<(Owner, model::Pool), Untranslatable> {
    let record = &cluster.record;
    let wanted = cluster.wanted.pools.get(name).cloned().unwrap_or_default();
    let mut members = BTreeMap::new();
    for (member, body) in &wanted.members {
        let WantedMember { address, mac, weight, draining, .. } = body;
        let known = Some(mac).filter(|mac| !mac.is_empty());
        let mac = known.map(|mac| mac.parse().map_err(|e| wrong(record, member, e))).transpose()?;
        members.insert(
            member.clone(),
            model::Member { address: *address, mac, weight: *weight, draining: *draining },
        );
    }
    let mut checks = BTreeSet::new();
    for check in wanted.checks {
        checks.insert(match check {
            Check::Tcp { port } => model::Check::Tcp { port: number(record, name, port)? },
            Check::Http { port, path } => model::Check::Http { port: number(record, name, port)?, path },
            Check::Vip { address, port } => {
                let vip = cluster.wanted.addresses.get(&address).copied().ok_or_else(|| {
                    wrong(record, name, format!("check of address {address:?}: there is none of this name"))
                })?;
                model::Check::Vip { vip, port: number(record, name, port)? }
            }
        });
    }
    Ok((owner(record, name)?, model::Pool { members, checks }))
}

/// A load balancer as the balancers shall have it.
pub fn load_balancer(
    cluster: &Loaded,
    name: &str,
) -> Result<Option<(Owner, model::LoadBalancer)>, Untranslatable> {
    let record = &cluster.record;
    let Some(wanted) = cluster.wanted.load_balancers.get(name) else { return Ok(None) };
    let Some(vip) = cluster.wanted.addresses.get(&wanted.address).copied() else { return Ok(None) };
    let mut listeners = BTreeMap::new();
    for Listener { protocol, port, pool } in &wanted.listeners {
        let protocol = match protocol {
            Protocol::Tcp => model::Protocol::Tcp,
            Protocol::Udp => model::Protocol::Udp,
            Protocol::Sctp => model::Protocol::Sctp,
        };
        let port = number(record, name, *port)?;
        listeners.insert(model::Endpoint { protocol, port }, owner(record, pool)?);
    }
    let affinity = match wanted.affinity {
        Affinity::None => model::Affinity::None,
        Affinity::ClientIp => model::Affinity::ClientIp,
    };
    let source_ranges = wanted.source_ranges.iter().copied().collect();
    Ok(Some((owner(record, name)?, model::LoadBalancer { vip, listeners, source_ranges, affinity })))
}

fn number(cluster: &ClusterRecord, object: &str, port: u16) -> Result<NonZeroU16, Untranslatable> {
    NonZeroU16::new(port).ok_or_else(|| wrong(cluster, object, "port 0: expected 1 to 65535"))
}

fn wrong(cluster: &ClusterRecord, object: &str, reason: impl ToString) -> Untranslatable {
    Untranslatable { cluster: cluster.id, object: object.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
