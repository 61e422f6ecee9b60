//! A cluster in memory: what ake-api, Neutron and Kubernetes would make of each step, and what they would refuse.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::*;
use openstack_client::security_groups::Rule;

use super::super::{
    names::owner,
    plan::plan,
    step::Step,
    view::{IngressView, PortView, SENTINEL, ServiceView},
    wanted::{ServerPort, World},
};
use crate::{
    cluster::Key,
    nodes::view::{NodeAddress, NodeView},
};

pub(super) fn key(name: &str) -> Key {
    Key::new("default", name)
}

pub(super) fn service(uid: &str) -> ServiceView {
    ServiceView {
        uid: uid.into(),
        wants: true,
        families: vec![Family::V4],
        ports: vec![PortView { protocol: Some(Protocol::Tcp), protocol_text: "TCP".into(), port: 80 }],
        health_check_node_port: Some(30_000),
        ..ServiceView::default()
    }
}

/// A Service with annotations.
pub(super) fn annotated(uid: &str, annotations: &[(&str, &str)]) -> ServiceView {
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    ServiceView { annotations: annotations.collect(), ..service(uid) }
}

pub(super) fn node(index: u8) -> NodeView {
    NodeView {
        uid: format!("n{index}"),
        provider_id: Some(format!("openstack:///server-{index}")),
        addresses: vec![NodeAddress {
            kind: "InternalIP".into(),
            address: format!("192.168.77.{}", 20 + index),
        }],
        pod_ranges: vec![format!("10.240.{index}.0/24").parse().unwrap()],
        ready: true,
        ..NodeView::default()
    }
}

/// The Kubernetes that plans, and the cluster's.
pub(super) const KUBERNETES: KubernetesId = KubernetesId::from_u128(7);

/// A cluster of two nodes with nothing but what Heat has made.
pub(super) fn world() -> World {
    let masters = Pool { members: BTreeMap::new(), checks: vec![Check::Tcp { port: 6443 }] };
    let api = LoadBalancer {
        address: "api".into(),
        vip: "203.0.113.17".parse().unwrap(),
        listeners: vec![Listener { protocol: Protocol::Tcp, port: 6443, pool: "masters".into() }],
        source_ranges: Vec::new(),
        affinity: Affinity::None,
        applied: true,
        reason: None,
    };
    let mut world = World {
        services: BTreeMap::from([(Key::new(SENTINEL.0, SENTINEL.1), ServiceView::default())]),
        nodes: BTreeMap::new(),
        endpoints: BTreeMap::from([((Key::new(SENTINEL.0, SENTINEL.1), Family::V4), BTreeMap::new())]),
        ports: BTreeMap::new(),
        routes: true,
        free_ports: None,
        state: ClusterState {
            cluster: Cluster {
                id: uuid::Uuid::nil(),
                name: "demo".into(),
                project: "p".into(),
                network: "n".into(),
                pod_range: "10.240.0.0/16".parse().unwrap(),
                pod_range_v6: None,
                vip_blocks: vec!["203.0.113.16/28".parse().unwrap()],
                check_sources: vec!["192.168.77.2/32".parse().unwrap()],
                deleting: false,
                kubernetes: Some(KUBERNETES),
            },
            addresses: BTreeMap::from([("api".into(), Address::plain("203.0.113.17".parse().unwrap()))]),
            pools: BTreeMap::from([("masters".into(), masters)]),
            load_balancers: BTreeMap::from([("api".into(), api)]),
            node_ports: BTreeMap::new(),
            lease_transitions: 0,
        },
        kubernetes: KUBERNETES,
        rules: Some(Vec::new()),
        held: BTreeSet::new(),
        ripe: BTreeSet::new(),
        drained: BTreeSet::new(),
    };
    for index in 0..2 {
        put_node(&mut world, index, node(index));
    }
    world
}

pub(super) fn put_node(world: &mut World, index: u8, node: NodeView) {
    let port =
        ServerPort { id: format!("port-{index}"), addresses: node.internal_address().into_iter().collect() };
    world.ports.insert(format!("server-{index}"), vec![port]);
    world.nodes.insert(format!("w{index}"), node);
}

/// Does to the model what the real ones would do, and holds every step to what they would refuse.
pub(super) fn take(world: &mut World, step: &Step) {
    let by_uid = |world: &mut World, uid: &str| -> Option<Key> {
        world.services.iter().find(|(_, service)| service.uid == uid).map(|(key, _)| key.clone())
    };
    match step {
        Step::AddFinalizer { uid, .. } => {
            let key = by_uid(world, uid).unwrap();
            world.services.get_mut(&key).unwrap().finalizer = true;
        }
        Step::RemoveFinalizer { uid, .. } => {
            let key = by_uid(world, uid).unwrap();
            assert!(!world.state.addresses.keys().any(|name| owner(name) == Some(uid)), "let go too early");
            let service = world.services.get_mut(&key).unwrap();
            service.finalizer = false;
            if service.deleting || !service.wants {
                world.services.remove(&key);
            }
        }
        Step::SetStatus { service, addresses, .. } => {
            let published = addresses.iter().map(|ip| IngressView { ip: Some(*ip), plain_vip: true });
            world.services.get_mut(service).unwrap().ingress = published.collect();
        }
        Step::AddRule { spec, .. } => {
            let rules = world.rules.as_mut().unwrap();
            let same = |rule: &Rule| {
                let (a, b) = (&rule.spec, spec);
                (&a.protocol, a.port_range_min, a.remote_ip_prefix)
                    == (&b.protocol, b.port_range_min, b.remote_ip_prefix)
            };
            assert!(!rules.iter().any(same), "Neutron has that rule: {spec:?}");
            let id = format!(
                "rule-{}",
                rules.len() + 1000 * rules.iter().map(|rule| rule.id.len()).sum::<usize>()
            );
            rules.push(Rule { id, security_group_id: "g".into(), spec: spec.clone() });
        }
        Step::RemoveRule(rule) => world.rules.as_mut().unwrap().retain(|known| known.spec != rule.spec),
        Step::Write { write, .. } => take_write(&mut world.state, write),
    }
}

pub(super) fn take_write(state: &mut ClusterState, write: &Write) {
    match write.clone() {
        Write::PutAddress { name, request } => {
            assert!(!state.cluster.deleting);
            if let Some(has) = state.addresses.get_mut(&name) {
                has.retained = request.retain.unwrap_or(has.retained);
                return;
            }
            let taken: BTreeSet<_> = state.addresses.values().map(|address| address.address).collect();
            let v4 = (18..30).map(|n| format!("203.0.113.{n}").parse().unwrap());
            let v6 = (1..30).map(|n| format!("2001:db8:113::{n:x}").parse().unwrap());
            let of_family = v4.chain(v6).filter(|a: &IpAddr| a.is_ipv6() == (request.family == Family::V6));
            let free = of_family.into_iter().find(|a| !taken.contains(a));
            let address = request.address.or(free).expect("the block is used up");
            assert!(!taken.contains(&address), "{address} is taken");
            let retained = request.retain.unwrap_or(false);
            state.addresses.insert(name, Address { address, retained, about: request.about });
        }
        Write::DeleteAddress { name } => {
            assert!(
                state.load_balancers.values().all(|balancer| balancer.address != name),
                "{name} is in use"
            );
            assert!(state.addresses.remove(&name).is_some(), "{name}");
        }
        Write::PutPool { name, request } => {
            let members = request.members.map(|members| {
                let member = |request: MemberRequest| Member {
                    address: request.address,
                    mac: String::new(),
                    weight: request.weight,
                    draining: request.draining,
                    healthy: None,
                    reason: None,
                };
                members.into_iter().map(|(name, request)| (name, member(request))).collect()
            });
            let pool = state.pools.entry(name).or_default();
            pool.checks = request.checks;
            if let Some(members) = members {
                pool.members = members;
            }
        }
        Write::DeletePool { name } => {
            let used = |b: &LoadBalancer| b.listeners.iter().any(|listener| listener.pool == name);
            assert!(!state.load_balancers.values().any(used), "pool {name} is in use");
            assert!(state.pools.remove(&name).is_some());
        }
        Write::PutLoadBalancer { name, request } => {
            for listener in &request.listeners {
                assert!(state.pools.contains_key(&listener.pool), "{name} needs pool {}", listener.pool);
            }
            let vip = state.addresses[&request.address].address;
            for (other, has) in
                state.load_balancers.iter().filter(|(other, has)| **other != name && has.vip == vip)
            {
                let ports = |listeners: &[Listener]| -> BTreeSet<_> {
                    listeners.iter().map(|l| (l.protocol, l.port)).collect()
                };
                assert!(
                    ports(&has.listeners).is_disjoint(&ports(&request.listeners)),
                    "{name} and {other} want the same"
                );
            }
            assert!(request.source_ranges.iter().all(|range| range.is_ipv6() == vip.is_ipv6()), "{name}");
            let mut listeners = request.listeners;
            listeners.reverse();
            let balancer = LoadBalancer {
                address: request.address,
                vip,
                listeners,
                source_ranges: request.source_ranges,
                affinity: request.affinity,
                applied: true,
                reason: None,
            };
            state.load_balancers.insert(name, balancer);
        }
        Write::DeleteLoadBalancer { name } => assert!(state.load_balancers.remove(&name).is_some()),
        Write::PutNodePort { port, request } => {
            let blocks = state.cluster.vip_blocks.iter().filter(|_| request.vip_blocks);
            let pairs = request.pod_ranges.iter().chain(blocks).copied().collect();
            state.node_ports.insert(port, NodePort { pairs });
        }
        Write::PutMember { .. } | Write::DeleteMember { .. } | Write::DeleteNodePort { .. } => {
            panic!("not ours to write: {write:?}")
        }
    }
}

/// Plans and applies until nothing is left to do; all steps that it took.
pub(super) fn converge(world: &mut World) -> Vec<Step> {
    let mut taken = Vec::new();
    for _ in 0..6 {
        let plan = plan(world);
        assert_eq!(plan.stopped, None);
        if plan.steps.is_empty() {
            return taken;
        }
        for step in plan.steps {
            assert!(!step.to_string().is_empty());
            take(world, &step);
            taken.push(step);
        }
    }
    panic!("no end: {:?}", plan(world).steps)
}

/// With VIPs and checks of both families.
pub(super) fn dual_world() -> World {
    let mut world = world();
    world.state.cluster.vip_blocks.push("2001:db8:113::/124".parse().unwrap());
    world.state.cluster.check_sources.push("fd00:77::2/128".parse().unwrap());
    world
}
