//! The address pairs of nodes' ports: their pods' ranges and the cluster's VIP blocks.

use std::collections::BTreeSet;

use ake_api_client::{NodePortRequest, Write};
use ipnetwork::IpNetwork;

use crate::services::{step::Owner, wanted::World};

/// How we are called where several ask for one port's pairs.
const ASKER: &str = "controller";

/// Writes for ports whose pairs are not what their nodes need.
#[must_use]
pub fn writes(world: &World) -> Vec<(Owner, Write)> {
    let cluster = &world.state.cluster;
    let inside = |range: &IpNetwork| {
        let mut all = [Some(cluster.pod_range), cluster.pod_range_v6].into_iter().flatten();
        all.any(|all| all.prefix() <= range.prefix() && all.contains(range.network()))
    };
    let mut writes = Vec::new();
    for (name, node) in &world.nodes {
        if world.held.contains(&Owner::Node(name.clone())) {
            continue;
        }
        let Some(port) = world.port_of(node) else { continue };
        let pods: BTreeSet<IpNetwork> =
            node.pod_ranges.iter().filter(|range| world.routes && inside(range)).copied().collect();
        let actual: BTreeSet<IpNetwork> = world
            .state
            .node_ports
            .get(&port.id)
            .into_iter()
            .flat_map(|port| port.pairs.iter().copied())
            .collect();
        // A range may be left out where a wider one covers it.
        let has = |range: &IpNetwork| {
            actual.iter().any(|pair| pair.prefix() <= range.prefix() && pair.contains(range.network()))
        };
        let lacks = !pods.iter().chain(&cluster.vip_blocks).all(has);
        // Others may ask for other pairs of the same port, but nobody else for ranges of pods.
        let exceeds = actual.iter().any(|range| inside(range) && !pods.contains(range));
        if lacks || exceeds {
            let request = NodePortRequest {
                asker: ASKER.to_owned(),
                pod_ranges: pods.into_iter().collect(),
                addresses: Vec::new(),
                vip_blocks: true,
            };
            writes.push((Owner::Node(name.clone()), Write::PutNodePort { port: port.id.clone(), request }));
        }
    }
    writes
}
