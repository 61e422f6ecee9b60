//! Plans against a model of ake-api, Neutron and Kubernetes: tables, and the property that planning and
//! applying comes to an end.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::*;
use openstack_client::security_groups::Rule;
use proptest::prelude::*;

use super::{
    plan::{Owner, Plan, Step, plan},
    view::{Endpoints, IngressView, PortView, SENTINEL, ServiceView},
    wanted::{ServerPort, World, owner},
};
use crate::{
    cluster::Key,
    nodes::view::{EXCLUDED, NodeAddress, NodeView},
};

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn service(uid: &str) -> ServiceView {
    ServiceView {
        uid: uid.into(),
        wants: true,
        families: vec![Family::V4],
        ports: vec![PortView { protocol: Some(Protocol::Tcp), protocol_text: "TCP".into(), port: 80 }],
        health_check_node_port: Some(30_000),
        ..ServiceView::default()
    }
}

fn node(index: u8) -> NodeView {
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

/// A cluster of two nodes with nothing but what Heat has made.
fn world() -> World {
    let masters = Pool { members: BTreeMap::new(), check: Some(Check::Tcp { port: 6443 }) };
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
        endpoints: BTreeMap::from([(Key::new(SENTINEL.0, SENTINEL.1), BTreeMap::new())]),
        ports: BTreeMap::new(),
        state: ClusterState {
            cluster: Cluster {
                id: uuid::Uuid::nil(),
                name: "demo".into(),
                project: "p".into(),
                network: "n".into(),
                pod_range: "10.240.0.0/16".parse().unwrap(),
                vip_blocks: vec!["203.0.113.16/28".parse().unwrap()],
                check_sources: vec!["192.168.77.2/32".parse().unwrap()],
                deleting: false,
            },
            addresses: BTreeMap::from([("api".into(), Address { address: "203.0.113.17".parse().unwrap() })]),
            pools: BTreeMap::from([("masters".into(), masters)]),
            load_balancers: BTreeMap::from([("api".into(), api)]),
            node_ports: BTreeMap::new(),
            lease_transitions: 0,
        },
        rules: Some(Vec::new()),
        held: BTreeSet::new(),
        ripe: BTreeSet::new(),
    };
    for index in 0..2 {
        put_node(&mut world, index, node(index));
    }
    world
}

fn put_node(world: &mut World, index: u8, node: NodeView) {
    let port =
        ServerPort { id: format!("port-{index}"), addresses: node.internal_address().into_iter().collect() };
    world.ports.insert(format!("server-{index}"), vec![port]);
    world.nodes.insert(format!("w{index}"), node);
}

/// Does to the model what the real ones would do, and holds every step to what they would refuse.
fn take(world: &mut World, step: &Step) {
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

fn take_write(state: &mut ClusterState, write: &Write) {
    match write.clone() {
        Write::PutAddress { name, request } => {
            assert!(!state.cluster.deleting);
            let taken: BTreeSet<_> = state.addresses.values().map(|address| address.address).collect();
            let free =
                (18..30).map(|n| format!("203.0.113.{n}").parse().unwrap()).find(|a| !taken.contains(a));
            let address = request.address.or(free).expect("the block is used up");
            assert!(!taken.contains(&address), "{address} is taken");
            state.addresses.insert(name, Address { address });
        }
        Write::DeleteAddress { name } => {
            assert!(
                state.load_balancers.values().all(|balancer| balancer.address != name),
                "{name} is in use"
            );
            assert!(state.addresses.remove(&name).is_some());
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
            pool.check = request.check;
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
fn converge(world: &mut World) -> Vec<Step> {
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

fn shown(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_gets_everything_before_its_status() {
    let mut world = world();
    converge(&mut world);
    world.services.insert(key("web"), service("u1"));
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "add the finalizer to Service default/web",
            "open the security group for tcp 80 from 0.0.0.0/0",
            "open the security group for tcp 10256 from 192.168.77.2/32",
            "reserve address svc-u1",
            "set pool nodes to w0, w1, check HTTP 10256/healthz",
            "set load balancer svc-u1: TCP 80 -> nodes",
            "publish 203.0.113.18 in the status of Service default/web",
        ]
    );
}

#[test]
fn a_deleted_service_leaves_nothing_and_then_goes() {
    let mut world = world();
    converge(&mut world);
    let before = (world.state.clone(), world.rules.clone());
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().deleting = true;
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "remove load balancer svc-u1",
            "release address svc-u1",
            "remove pool nodes",
            "close the security group for tcp 80 from 0.0.0.0/0",
            "close the security group for tcp 10256 from 192.168.77.2/32",
            "take the finalizer off Service default/web",
        ]
    );
    assert_eq!((world.state, world.rules), before);
}

#[test]
fn a_node_that_joins_costs_one_write_however_many_services_there_are() {
    let mut world = world();
    for index in 0..5 {
        world.services.insert(key(&format!("web-{index}")), service(&format!("u{index}")));
    }
    converge(&mut world);
    put_node(&mut world, 2, node(2));
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "set pool nodes to w0, w1, w2, check HTTP 10256/healthz",
            "let port port-2 send from 10.240.2.0/24 and the VIP blocks",
        ]
    );
}

#[test]
fn local_services_go_to_nodes_with_endpoints_only() {
    let mut world = world();
    let mut local = service("u1");
    local.local = true;
    world.services.insert(key("web"), local);
    let ready = |ready, ending| Endpoints { ready, ending };
    world
        .endpoints
        .insert(key("web"), BTreeMap::from([("w1".into(), ready(3, 0)), ("w0".into(), ready(0, 1))]));
    let steps = shown(&converge(&mut world));
    let pool = "set pool local-u1 to w0 (draining), w1 (weight 3), check HTTP 30000/healthz".to_owned();
    assert!(steps.contains(&pool), "{steps:?}");
    assert!(!world.state.pools.contains_key("nodes"));
}

#[test]
fn a_node_about_to_go_is_drained() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.nodes.get_mut("w0").unwrap().to_be_deleted = true;
    assert_eq!(
        shown(&converge(&mut world)),
        ["set pool nodes to w0 (draining), w1, check HTTP 10256/healthz"]
    );
}

#[test]
fn another_address_is_given_when_it_is_asked_for() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().load_balancer_ip = Some("203.0.113.25".into());
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "remove load balancer svc-u1",
            "release address svc-u1",
            "reserve address svc-u1 = 203.0.113.25",
            "set load balancer svc-u1: TCP 80 -> nodes",
            "publish 203.0.113.25 in the status of Service default/web",
        ]
    );
}

#[test]
fn what_is_refused_stays_as_it_was() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    let annotation = ("loadbalancer.openstack.org/proxy-protocol".to_owned(), "v2".to_owned());
    world.services.get_mut(&key("web")).unwrap().annotations.extend([annotation]);
    assert_eq!(converge(&mut world), []);
    let findings: Vec<_> =
        plan(&world).findings.iter().map(|(key, finding)| format!("{key}: {finding}")).collect();
    assert_eq!(
        findings,
        [
            "default/web: metadata.annotations[loadbalancer.openstack.org/proxy-protocol] = \"v2\": expected false, or none: \
          direct server return cannot insert a PROXY header"
        ]
    );
}

#[test]
fn an_address_or_family_that_cannot_be_had_is_refused_and_leaves_nothing() {
    for change in [
        |service: &mut ServiceView| service.load_balancer_ip = Some("203.0.113.200".into()),
        |service: &mut ServiceView| service.families = vec![Family::V6],
    ] {
        let mut world = world();
        converge(&mut world);
        let before = world.state.clone();
        let mut refused = service("u1");
        change(&mut refused);
        world.services.insert(key("web"), refused);
        converge(&mut world);
        assert_eq!(world.state, before);
        let findings = plan(&world).findings;
        assert!(
            findings[0].1.refused && findings[0].1.to_string().contains("203.0.113.16/28"),
            "{findings:?}"
        );
    }
}

#[test]
fn the_status_waits_for_the_device() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().ingress.clear();
    let balancer = world.state.load_balancers.get_mut("svc-u1").unwrap();
    balancer.applied = false;
    balancer.reason = Some("no answer".into());
    let Plan { steps, waiting, .. } = plan(&world);
    assert_eq!(steps, []);
    assert_eq!(waiting, BTreeMap::from([(key("web"), Some("no answer".to_owned()))]));
}

#[test]
fn an_empty_view_stops_everything() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    let mut blind = world.clone();
    blind.services.clear();
    let Plan { steps, stopped, .. } = plan(&blind);
    assert!(steps.is_empty() && stopped.is_some());
    let mut blind = world.clone();
    blind.nodes.clear();
    assert_eq!(plan(&blind).steps, []);
}

#[test]
fn what_has_no_service_stays_until_that_is_sure() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.remove(&key("web"));
    let Plan { steps, orphans, .. } = plan(&world);
    assert_eq!((steps, &orphans), (Vec::new(), &BTreeSet::from(["svc-u1".to_owned()])));
    world.ripe = orphans;
    let steps = shown(&converge(&mut world));
    assert_eq!(steps[..3], ["remove load balancer svc-u1", "release address svc-u1", "remove pool nodes"]);
}

#[test]
fn a_cluster_on_its_way_out_takes_nothing_new_and_lets_services_go() {
    let mut world = world();
    world.services.insert(key("a"), service("u1"));
    converge(&mut world);
    world.state.cluster.deleting = true;
    world.services.insert(key("b"), service("u2"));
    assert_eq!(converge(&mut world), []);
    world.services.get_mut(&key("a")).unwrap().deleting = true;
    converge(&mut world);
    assert!(!world.services.contains_key(&key("a")));
}

#[test]
fn one_refused_node_does_not_hold_up_services() {
    let mut world = world();
    world.held.insert(crate::nodes::pairs::held("w0"));
    let steps = plan(&world).steps;
    assert!(steps.iter().all(|step| step.owner() == Owner::Node("w1".into())), "{steps:?}");
}

prop_compose! {
    fn any_service()(
        wants in prop::bool::weighted(0.9),
        deleting in prop::bool::weighted(0.15),
        local in any::<bool>(),
        client_affinity in any::<bool>(),
        v6 in prop::bool::weighted(0.2),
        ports in prop::collection::btree_set((0..3_u8, 1..5_u16), 1..4),
        ranges in prop::sample::subsequence(vec!["10.0.0.0/8", "192.0.2.0/24", "nonsense"], 0..2),
        selector in prop::option::weighted(0.2, Just("disk=fast")),
        broken in prop::bool::weighted(0.1),
    ) -> ServiceView {
        let protocols = [(Protocol::Tcp, "TCP"), (Protocol::Udp, "UDP"), (Protocol::Sctp, "SCTP")];
        let port = |(protocol, port): (u8, u16)| {
            let (protocol, text) = protocols[usize::from(protocol)];
            PortView { protocol: Some(protocol), protocol_text: text.into(), port }
        };
        let mut annotations = BTreeMap::new();
        if let Some(selector) = selector {
            annotations.insert(super::annotations::NODE_SELECTOR.to_owned(), selector.to_owned());
        }
        if broken {
            annotations.insert("loadbalancer.openstack.org/x-forwarded-for".to_owned(), "true".to_owned());
        }
        ServiceView {
            wants,
            deleting,
            local,
            client_affinity,
            families: if v6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] },
            ports: ports.into_iter().map(port).collect(),
            source_ranges: ranges.into_iter().map(ToOwned::to_owned).collect(),
            annotations,
            health_check_node_port: local.then_some(30_001),
            ..ServiceView::default()
        }
    }
}

type Scene = (Vec<Option<ServiceView>>, Vec<Option<(bool, bool, bool)>>, Vec<u16>);

/// Services by slot, nodes by slot (leaving, excluded, fast), and endpoints per node.
fn any_scene() -> impl Strategy<Value = Scene> {
    (
        prop::collection::vec(prop::option::weighted(0.7, any_service()), 4),
        prop::collection::vec(prop::option::weighted(0.8, any::<(bool, bool, bool)>()), 4),
        prop::collection::vec(0..3_u16, 4),
    )
}

/// Makes the world what the scene says; Services keep finalizer and status, as the API server keeps them.
fn stage(world: &mut World, (services, nodes, endpoints): Scene) {
    world.nodes.clear();
    for (index, node_wanted) in (0_u8..).zip(nodes) {
        let Some((leaving, excluded, fast)) = node_wanted else { continue };
        let mut view = node(index);
        view.to_be_deleted = leaving;
        if excluded {
            view.labels.insert(EXCLUDED.into(), "true".into());
        }
        if fast {
            view.labels.insert("disk".into(), "fast".into());
        }
        put_node(world, index, view);
    }
    for (slot, wanted) in services.into_iter().enumerate() {
        let key = key(&format!("s{slot}"));
        let old = world.services.get(&key).cloned();
        match (old, wanted) {
            (Some(mut old), None) => {
                old.deleting = true;
                world.services.insert(key.clone(), old);
            }
            (old, Some(mut new)) => {
                let old = old.unwrap_or_default();
                new.uid = format!("u{slot}");
                new.finalizer = old.finalizer;
                new.ingress = old.ingress;
                new.deleting |= old.deleting;
                if new.wants && !new.deleting || new.finalizer {
                    world.services.insert(key.clone(), new);
                } else {
                    world.services.remove(&key);
                }
            }
            (None, None) => {}
        }
        let counts = endpoints.iter().enumerate().filter(|(_, count)| **count > 0);
        let counts = counts.map(|(node, count)| (format!("w{node}"), Endpoints { ready: *count, ending: 0 }));
        world.endpoints.insert(key, counts.collect());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn from_anything_to_anything_there_is_an_end(first in any_scene(), second in any_scene()) {
        let mut world = world();
        let heats = world.state.clone();
        for scene in [first, second] {
            stage(&mut world, scene);
            converge(&mut world);
            // A restart reads the same again: no step at all.
            prop_assert_eq!(plan(&world).steps, vec![]);

            let state = &world.state;
            prop_assert_eq!(&state.load_balancers["api"], &heats.load_balancers["api"]);
            prop_assert_eq!(&state.pools["masters"], &heats.pools["masters"]);
            for service in world.services.values().filter(|service| service.wants) {
                let vip = state.load_balancers.get(&format!("svc-{}", service.uid)).map(|b| b.vip);
                if let Some(ingress) = service.ingress.first() {
                    prop_assert_eq!(ingress.ip, vip);
                }
            }
            // Whatever is there has its Service, which will be asked before it goes.
            for uid in state.addresses.keys().filter_map(|name| owner(name)) {
                prop_assert!(world.services.values().any(|service| service.uid == uid && service.finalizer));
            }
            if state.load_balancers.len() == 1 {
                prop_assert_eq!(world.rules.as_deref(), Some([].as_slice()));
                prop_assert_eq!(state.pools.len(), 1);
            }
        }
    }
}
