//! What a lost database held, as far as the balancers and Neutron still know it.

mod traces;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{Affinity, Check, ClusterId, Listener, LoadBalancerRequest, NodePortRequest, Protocol};
use ipnetwork::IpNetwork;
use lb_driver::model::{self, Owner, State};

pub use traces::{BlockPort, Description, NodePortRemains};

use super::{
    blocks::VipRange,
    facts::Retained,
    ranges::Span,
    wanted::{ClusterRecord, Wanted, WantedMember, WantedPool},
};
use crate::store::{BlockRecord, Loaded, Origin};

/// Where pod ranges of a family come from on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPool {
    /// Id of the network.
    pub network: String,
    /// The pool.
    pub pool: IpNetwork,
    /// Prefix length of a cluster's range.
    pub prefix: u8,
}

/// All that is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// What the balancers hold.
    pub state: State,
    /// The reservations.
    pub blocks: Vec<BlockPort>,
    /// Addresses that outlived their clusters.
    pub retained: Vec<Retained>,
    /// Ports by project.
    pub ports: BTreeMap<String, Vec<NodePortRemains>>,
    /// The configured networks.
    pub pools: Vec<PodPool>,
    /// Ranges of VIPs that no Neutron network holds.
    pub plain: Vec<VipRange>,
    /// Pod ranges that the operator knows.
    pub pods: BTreeMap<ClusterId, IpNetwork>,
}

/// A cluster, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The cluster and what it wants.
    pub loaded: Loaded,
    /// Its blocks.
    pub blocks: Vec<BlockRecord>,
    /// What had to be guessed, or is lost.
    pub doubts: Vec<String>,
}

/// Puts one cluster together. The error says what must be known and is not.
pub fn find(remains: &Remains, id: ClusterId) -> Result<Found, String> {
    let own = |owner: &Owner| owner.cluster() == id.to_string();
    let reservations: Vec<&BlockPort> = remains.blocks.iter().filter(|block| block.cluster == id).collect();
    let described = |part: fn(&Description) -> Option<String>| {
        reservations.iter().find_map(|block| part(&block.description))
    };
    let owners = remains.state.pools.keys().chain(remains.state.load_balancers.keys());
    let project = owners
        .filter(|owner| own(owner))
        .map(|owner| owner.project().to_owned())
        .next()
        .or_else(|| described(|d| d.project.clone()))
        .ok_or("its project: no balancer has anything of it, and no port's description says")?;
    let mut doubts = Vec::new();
    let mut blocks = blocks(id, &reservations);
    let ports: &[NodePortRemains] = remains.ports.get(&project).map_or(&[], Vec::as_slice);
    let mut wanted = Wanted::default();
    addresses(&mut wanted, &remains.state, own, &mut doubts);
    for address in wanted.addresses.values() {
        if !blocks.iter().any(|block| block.block.contains(*address)) {
            blocks.push(unreserved(id, *address, remains, &mut doubts));
        }
    }
    pools(&mut wanted, &remains.state, own, ports);
    balancers(&mut wanted, &remains.state, own);
    let ranges: Vec<IpNetwork> = blocks.iter().map(|block| block.block).collect();
    let network = described(|d| d.nodes.clone())
        .or_else(|| network_of(&wanted, ports))
        .or_else(|| {
            let networks: BTreeSet<&String> = remains.pools.iter().map(|pool| &pool.network).collect();
            networks.first().filter(|_| networks.len() == 1).map(|only| (*only).clone())
        })
        .ok_or("the network of its nodes: no member has a port")?;
    let pods = |v4: bool| {
        let mut described = reservations.iter().flat_map(|block| &block.description.pods);
        described
            .find(|range| range.is_ipv4() == v4)
            .copied()
            .or_else(|| pods_of(remains, (&network, v4), &ranges, &wanted, ports))
    };
    let given = remains.pods.get(&id).copied();
    let (pod_range, pod_range_v6) = (given.or_else(|| pods(true)), pods(false));
    let pod_range = pod_range.ok_or_else(|| {
        format!("its pod range: no description and no node's port tells; give it as --pod-range {id}=RANGE")
    })?;
    let name = described(|d| d.name.clone()).unwrap_or_else(|| {
        doubts.push("its name: no port's description says it".to_owned());
        format!("cluster-{id}")
    });
    let pods: Vec<IpNetwork> = [Some(pod_range), pod_range_v6].into_iter().flatten().collect();
    let pairs = node_ports(&mut wanted, ports, &pods, &ranges, &mut doubts);
    let record = ClusterRecord {
        pod_range_v6,
        blocks: ranges,
        ..ClusterRecord::new(id, [&name, &project, &network], pod_range)
    };
    Ok(Found { loaded: Loaded { record, wanted, pairs }, blocks, doubts })
}

/// All clusters of which anything is left.
#[must_use]
pub fn clusters(remains: &Remains) -> BTreeSet<ClusterId> {
    let owners = remains.state.pools.keys().chain(remains.state.load_balancers.keys());
    let named = owners.filter_map(|owner| owner.cluster().parse().ok());
    named.chain(remains.blocks.iter().map(|block| block.cluster)).collect()
}

fn blocks(id: ClusterId, reservations: &[&BlockPort]) -> Vec<BlockRecord> {
    let mut blocks: Vec<BlockRecord> = reservations
        .iter()
        .filter_map(|port| {
            Some(BlockRecord {
                block: covering(&port.addresses)?,
                cluster: id,
                network: port.network.clone(),
                subnet: port.subnet.clone(),
                port: Some(port.port.clone()),
                settled: true,
                origin: Origin::Neutron,
            })
        })
        .collect();
    blocks.sort_by_key(|block| (block.block.is_ipv6(), block.block));
    blocks
}

/// What holds an address that no port of the cluster's reserves: one of the project's retained addresses, a plain range,
/// or a port that was adopted.
fn unreserved(id: ClusterId, address: IpAddr, remains: &Remains, doubts: &mut Vec<String>) -> BlockRecord {
    if let Some(retained) = remains.retained.iter().find(|one| one.address == address) {
        return BlockRecord {
            block: address.into(),
            cluster: id,
            network: retained.network.clone(),
            subnet: retained.subnet.clone(),
            port: retained.port.clone(),
            settled: true,
            origin: Origin::Retained,
        };
    }
    let range = remains.plain.iter().find(|range| {
        Span::between(range.first, range.last).is_some_and(|span| span.contains(Span::of(address.into())))
    });
    let aligned = range.and_then(|range| IpNetwork::new(address, range.prefix).ok());
    let aligned = aligned.and_then(|block| IpNetwork::new(block.network(), block.prefix()).ok());
    if aligned.is_none() {
        doubts.push(format!("which port has address {address}; it counts as adopted"));
    }
    BlockRecord {
        block: aligned.unwrap_or_else(|| address.into()),
        cluster: id,
        network: String::new(),
        subnet: String::new(),
        port: None,
        settled: true,
        origin: if aligned.is_some() { Origin::Range } else { Origin::Adopted },
    }
}

/// The aligned block that these addresses fill, if they fill one.
fn covering(addresses: &BTreeSet<IpAddr>) -> Option<IpNetwork> {
    let first = *addresses.first()?;
    let bits = if first.is_ipv4() { 32_u8 } else { 128 };
    let length = u8::try_from(addresses.len().checked_ilog2()?).ok()?;
    let block = IpNetwork::new(first, bits.checked_sub(length)?).ok()?;
    let fills = addresses.len().is_power_of_two() && block.network() == first;
    (fills && Span::of(block).addresses().all(|address| addresses.contains(&address))).then_some(block)
}

/// An address has the name of the load balancer on it, or of the first of those that share it.
fn addresses(wanted: &mut Wanted, state: &State, own: impl Fn(&Owner) -> bool, doubts: &mut Vec<String>) {
    let mut users: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for (owner, balancer) in state.load_balancers.iter().filter(|(owner, _)| own(owner)) {
        users.entry(balancer.vip).or_default().push(owner.object());
    }
    for (address, names) in users {
        if let [name, others @ ..] = names.as_slice() {
            wanted.addresses.insert((*name).to_owned(), address);
            if !others.is_empty() {
                doubts.push(format!(
                    "the name of address {address}, which {} share: it is {name} now",
                    names.join(", ")
                ));
            }
        }
    }
    doubts.push("addresses that no load balancer used, and their names".to_owned());
}

fn pools(wanted: &mut Wanted, state: &State, own: impl Fn(&Owner) -> bool, ports: &[NodePortRemains]) {
    for (owner, pool) in state.pools.iter().filter(|(owner, _)| own(owner)) {
        let member = |member: &model::Member| {
            let port = ports.iter().find(|port| port.addresses.contains(&member.address));
            WantedMember {
                address: member.address,
                mac: member.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                port: port.map(|port| port.port.clone()).unwrap_or_default(),
                weight: member.weight,
                draining: member.draining,
            }
        };
        let members = pool.members.iter().map(|(name, body)| (name.clone(), member(body))).collect();
        let checks = pool.checks.iter().filter_map(|check| {
            Some(match check {
                model::Check::Tcp { port } => Check::Tcp { port: port.get() },
                model::Check::Http { port, path } => Check::Http { port: port.get(), path: path.clone() },
                model::Check::Vip { vip, port } => {
                    let named = wanted.addresses.iter().find(|(_, address)| *address == vip);
                    Check::Vip { address: named?.0.clone(), port: port.get() }
                }
            })
        });
        let checks = checks.collect();
        wanted.pools.insert(owner.object().to_owned(), WantedPool { checks, members });
    }
}

fn balancers(wanted: &mut Wanted, state: &State, own: impl Fn(&Owner) -> bool) {
    for (owner, balancer) in state.load_balancers.iter().filter(|(owner, _)| own(owner)) {
        let Some((address, _)) = wanted.addresses.iter().find(|(_, vip)| **vip == balancer.vip) else {
            continue;
        };
        let listener = |(endpoint, pool): (&model::Endpoint, &Owner)| Listener {
            protocol: match endpoint.protocol {
                model::Protocol::Tcp => Protocol::Tcp,
                model::Protocol::Udp => Protocol::Udp,
                model::Protocol::Sctp => Protocol::Sctp,
            },
            port: endpoint.port.get(),
            pool: pool.object().to_owned(),
        };
        let mut listeners: Vec<Listener> = balancer.listeners.iter().map(listener).collect();
        listeners.sort();
        let request = LoadBalancerRequest {
            address: address.clone(),
            listeners,
            source_ranges: balancer.source_ranges.iter().copied().collect(),
            affinity: match balancer.affinity {
                model::Affinity::None => Affinity::None,
                model::Affinity::ClientIp => Affinity::ClientIp,
            },
        };
        wanted.load_balancers.insert(owner.object().to_owned(), request);
    }
}

fn members_ports<'a>(wanted: &Wanted, ports: &'a [NodePortRemains]) -> Vec<&'a NodePortRemains> {
    let members: BTreeSet<IpAddr> =
        wanted.pools.values().flat_map(|pool| pool.members.values().map(|member| member.address)).collect();
    ports.iter().filter(|port| port.addresses.iter().any(|address| members.contains(address))).collect()
}

fn network_of(wanted: &Wanted, ports: &[NodePortRemains]) -> Option<String> {
    members_ports(wanted, ports).first().map(|port| port.network.clone())
}

/// The pod range, from what the cluster's nodes may send: those whose ports have its blocks, or that are members.
fn pods_of(
    remains: &Remains,
    (network, v4): (&str, bool),
    blocks: &[IpNetwork],
    wanted: &Wanted,
    ports: &[NodePortRemains],
) -> Option<IpNetwork> {
    let pool = remains.pools.iter().find(|pool| pool.network == network && pool.pool.is_ipv4() == v4)?;
    let has_block = |port: &&NodePortRemains| port.pairs.iter().any(|pair| blocks.contains(&pair.range));
    let nodes = ports.iter().filter(has_block).chain(members_ports(wanted, ports));
    let pairs = nodes.flat_map(|port| port.pairs.iter().map(|pair| pair.range));
    let ranges: BTreeSet<IpNetwork> = pairs
        .filter(|range| range.prefix() >= pool.prefix && Span::of(pool.pool).contains(Span::of(*range)))
        .filter_map(|range| {
            let wide = IpNetwork::new(range.network(), pool.prefix).ok()?;
            IpNetwork::new(wide.network(), pool.prefix).ok()
        })
        .collect();
    // two of them would be a guess
    (ranges.len() == 1).then(|| ranges.first().copied()).flatten()
}

/// Whose wish a pair was, by what it is: a single address is Heat's for a master, the rest the controller's.
fn node_ports(
    wanted: &mut Wanted,
    ports: &[NodePortRemains],
    pods: &[IpNetwork],
    blocks: &[IpNetwork],
    doubts: &mut Vec<String>,
) -> BTreeMap<String, BTreeSet<IpNetwork>> {
    let mut written = BTreeMap::new();
    for port in ports {
        let ours: BTreeSet<IpNetwork> = port
            .pairs
            .iter()
            .filter(|pair| pair.mac.eq_ignore_ascii_case(&port.mac))
            .map(|pair| pair.range)
            .filter(|range| {
                let is_in = |wide: &IpNetwork| Span::of(*wide).contains(Span::of(*range));
                pods.iter().any(is_in) || blocks.iter().any(is_in)
            })
            .collect();
        let mut ask = |asker: &str, add: &dyn Fn(&mut NodePortRequest)| {
            let askers = wanted.node_ports.entry(port.port.clone()).or_default();
            add(askers.entry(asker.to_owned()).or_insert_with(|| NodePortRequest {
                asker: asker.to_owned(),
                pod_ranges: vec![],
                addresses: vec![],
                vip_blocks: false,
            }));
        };
        for range in &ours {
            let named = wanted.addresses.iter().find(|(_, vip)| IpNetwork::from(**vip) == *range);
            let named = named.map(|(name, _)| name.clone());
            if blocks.contains(range) {
                ask("controller", &|ask| ask.vip_blocks = true);
            } else if pods.iter().any(|pods| Span::of(*pods).contains(Span::of(*range))) {
                ask("controller", &|ask| ask.pod_ranges.push(*range));
            } else if let Some(name) = named {
                ask("heat", &|ask| ask.addresses.push(name.clone()));
            } else {
                doubts.push(format!(
                    "which address pair {range} of port {} is for; it is taken away",
                    port.port
                ));
            }
        }
        if !ours.is_empty() {
            written.insert(port.port.clone(), ours);
        }
    }
    written
}

#[cfg(test)]
mod tests;
