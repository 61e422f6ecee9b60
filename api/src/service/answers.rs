//! What callers are shown: the wanted state, with what the balancers say of it.

use std::collections::BTreeMap;

use ake_api_client::{Address, Cluster, ClusterState, LoadBalancer, Member, NodePort, Pool};
use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    decide::wanted::ClusterRecord,
    device::{self, View},
    refusal::{Kind, Refusal},
    store::Loaded,
};

impl Service {
    /// A cluster as callers see it.
    #[must_use]
    pub fn cluster_answer(&self, record: &ClusterRecord) -> Cluster {
        cluster(record, &self.config.device.check_sources)
    }

    /// All of a cluster as callers see it.
    #[must_use]
    pub fn state_answer(&self, loaded: &Loaded, view: &View) -> ClusterState {
        state(loaded, view, &self.config.device.check_sources)
    }
}

/// A cluster as callers see it.
#[must_use]
pub fn cluster(record: &ClusterRecord, check_sources: &[IpNetwork]) -> Cluster {
    Cluster {
        id: record.id,
        name: record.name.clone(),
        project: record.project.clone(),
        network: record.network.clone(),
        pod_range: record.pod_range,
        pod_range_v6: record.pod_range_v6,
        vip_blocks: record.blocks.clone(),
        check_sources: check_sources.to_vec(),
        deleting: record.deleting,
        kubernetes: record.kubernetes,
    }
}

/// All of a cluster as callers see it.
#[must_use]
pub fn state(loaded: &Loaded, view: &View, check_sources: &[IpNetwork]) -> ClusterState {
    let wanted = &loaded.wanted;
    ClusterState {
        cluster: cluster(&loaded.record, check_sources),
        addresses: wanted
            .addresses
            .iter()
            .map(|(name, address)| (name.clone(), wanted.shown(name, *address)))
            .collect(),
        pools: named(wanted.pools.keys(), |name| pool(loaded, view, name)),
        load_balancers: named(wanted.load_balancers.keys(), |name| load_balancer(loaded, view, name)),
        node_ports: named(wanted.node_ports.keys(), |port| Ok(node_port(loaded, port))),
        lease_transitions: loaded.record.lease_transitions,
    }
}

/// One address as callers see it.
pub fn address(loaded: &Loaded, name: &str) -> Result<Address, Refusal> {
    let address = loaded.wanted.addresses.get(name).ok_or_else(|| gone("address", name))?;
    Ok(loaded.wanted.shown(name, *address))
}

/// One pool as callers see it.
pub fn pool(loaded: &Loaded, view: &View, name: &str) -> Result<Pool, Refusal> {
    let pool = loaded.wanted.pools.get(name).ok_or_else(|| gone("pool", name))?;
    Ok(Pool {
        members: named(pool.members.keys(), |member_name| member(loaded, view, name, member_name)),
        checks: pool.checks.clone(),
    })
}

/// One member as callers see it.
pub fn member(loaded: &Loaded, view: &View, pool: &str, name: &str) -> Result<Member, Refusal> {
    let wanted = loaded
        .wanted
        .pools
        .get(pool)
        .and_then(|pool| pool.members.get(name))
        .ok_or_else(|| gone("member", name))?;
    let status = device::member_health(view, loaded, pool, name);
    Ok(Member {
        address: wanted.address,
        mac: wanted.mac.clone(),
        weight: wanted.weight,
        draining: wanted.draining,
        healthy: status.healthy,
        reason: status.reason,
    })
}

/// One load balancer as callers see it.
pub fn load_balancer(loaded: &Loaded, view: &View, name: &str) -> Result<LoadBalancer, Refusal> {
    let wanted = loaded.wanted.load_balancers.get(name).ok_or_else(|| gone("load balancer", name))?;
    let vip = address(loaded, &wanted.address)?.address;
    let (applied, reason) = device::applied(view, loaded, name);
    Ok(LoadBalancer {
        address: wanted.address.clone(),
        vip,
        listeners: wanted.listeners.clone(),
        source_ranges: wanted.source_ranges.clone(),
        affinity: wanted.affinity,
        applied,
        reason,
    })
}

/// One node port as callers see it.
#[must_use]
pub fn node_port(loaded: &Loaded, port: &str) -> NodePort {
    NodePort { pairs: loaded.pairs.get(port).into_iter().flatten().copied().collect() }
}

fn named<'a, T>(
    names: impl Iterator<Item = &'a String>,
    show: impl Fn(&str) -> Result<T, Refusal>,
) -> BTreeMap<String, T> {
    names.filter_map(|name| Some((name.clone(), show(name).ok()?))).collect()
}

fn gone(what: &str, name: &str) -> Refusal {
    Refusal::new(Kind::NotFound, format!("{what} {name}: it is not there any more"))
}
