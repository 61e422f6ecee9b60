//! Nodes that leave, and nodes that are chosen.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::Family;

use super::{
    super::{annotations, plan::plan, view::Endpoints, wanted::World},
    model::{annotated, converge, key, node, put_node, service, world},
    shown,
};
use crate::nodes::view::{EXCLUDED, NodeView};

/// Whoever is about to go has had the time for it.
fn time_goes_by(world: &mut World) {
    world.drained = plan(world).leaving.into_keys().collect();
}

#[test]
fn a_node_that_leaves_is_drained_and_then_goes_however_it_leaves() {
    let ways: [fn(&mut NodeView); 4] = [
        |node| node.to_be_deleted = true,
        |node| node.out_of_service = true,
        |node| node.deleting = true,
        |node| drop(node.labels.insert(EXCLUDED.into(), "true".into())),
    ];
    for leave in ways {
        let mut world = world();
        for index in 0..5 {
            world.services.insert(key(&format!("web-{index}")), service(&format!("u{index}")));
        }
        converge(&mut world);
        leave(world.nodes.get_mut("w0").unwrap());
        let draining = ["set pool nodes to w0 (draining), w1, check HTTP 10256/livez"];
        assert_eq!(shown(&converge(&mut world)), draining);
        // A restart knows of nothing but what is there.
        assert_eq!(shown(&converge(&mut world)), [""; 0]);
        time_goes_by(&mut world);
        assert_eq!(shown(&converge(&mut world)), ["set pool nodes to w1, check HTTP 10256/livez"]);
        world.drained.clear();
        // One that is out does not come in again to be drained.
        assert_eq!(shown(&converge(&mut world)), [""; 0]);
        assert!(plan(&world).leaving.is_empty());
    }
}

#[test]
fn a_node_that_comes_back_in_time_stays() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.nodes.get_mut("w0").unwrap().to_be_deleted = true;
    converge(&mut world);
    world.nodes.get_mut("w0").unwrap().to_be_deleted = false;
    assert_eq!(shown(&converge(&mut world)), ["set pool nodes to w0, w1, check HTTP 10256/livez"]);
}

#[test]
fn of_services_that_share_a_pool_the_longest_time_counts() {
    let mut world = world();
    for (uid, seconds) in [("u1", "5"), ("u2", "120"), ("u3", "60")] {
        world.services.insert(key(uid), annotated(uid, &[(annotations::DRAIN, seconds)]));
    }
    converge(&mut world);
    world.nodes.get_mut("w0").unwrap().to_be_deleted = true;
    let leaving = plan(&world).leaving;
    assert_eq!(leaving, BTreeMap::from([(("nodes".to_owned(), "w0".to_owned()), 120)]));
}

#[test]
fn a_node_whose_port_is_gone_goes_at_once() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.nodes.get_mut("w0").unwrap().deleting = true;
    world.ports.remove("server-0");
    assert_eq!(shown(&converge(&mut world)), ["set pool nodes to w1, check HTTP 10256/livez"]);
}

#[test]
fn labels_that_a_selector_asks_for_are_followed() {
    let mut world = world();
    let selector = (annotations::NODE_SELECTOR, "disk=fast");
    world.services.insert(key("web"), annotated("u1", &[selector]));
    converge(&mut world);
    assert_eq!(plan(&world).without_nodes, [key("web")]);
    let pool = world.state.load_balancers["svc-u1"].listeners[0].pool.clone();
    let fast = |world: &mut World, value: &str| {
        world.nodes.get_mut("w1").unwrap().labels.insert("disk".into(), value.into());
    };
    fast(&mut world, "fast");
    let taken = shown(&converge(&mut world));
    assert_eq!(taken, [format!("set pool {pool} to w1, check HTTP 10256/livez")]);
    assert!(plan(&world).without_nodes.is_empty());
    fast(&mut world, "slow");
    let taken = shown(&converge(&mut world));
    assert_eq!(taken, [format!("set pool {pool} to w1 (draining), check HTTP 10256/livez")]);
    time_goes_by(&mut world);
    let taken = shown(&converge(&mut world));
    assert_eq!(taken, [format!("set pool {pool} to nothing, check HTTP 10256/livez")]);

    world.services.get_mut(&key("web")).unwrap().annotations.clear();
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "set pool nodes to w0, w1, check HTTP 10256/livez".to_owned(),
            "set load balancer svc-u1: TCP 80 -> nodes".to_owned(),
            format!("remove pool {pool}"),
        ]
    );
}

#[test]
fn nodes_of_a_local_service_leave_by_drain_too() {
    let mut world = world();
    let mut local = service("u1");
    local.local = true;
    world.services.insert(key("web"), local);
    let ready = Endpoints { ready: 1, ending: 0 };
    let endpoints = BTreeMap::from([("w0".to_owned(), ready), ("w1".to_owned(), ready)]);
    world.endpoints.insert((key("web"), Family::V4), endpoints);
    converge(&mut world);
    world.nodes.get_mut("w1").unwrap().to_be_deleted = true;
    let drained =
        ["set pool local-u1 to w0, w1 (draining), check HTTP 30000/healthz, check TCP 80 of svc-u1"];
    assert_eq!(shown(&converge(&mut world)), drained);
    time_goes_by(&mut world);
    let gone = ["set pool local-u1 to w0, check HTTP 30000/healthz, check TCP 80 of svc-u1"];
    assert_eq!(shown(&converge(&mut world)), gone);
}

#[test]
fn what_is_not_checked_has_a_pool_of_its_own() {
    let mut world = world();
    world.services.insert(key("a"), service("u1"));
    world.services.insert(key("b"), annotated("u2", &[(annotations::HEALTH_CHECK, "none")]));
    put_node(&mut world, 2, node(2));
    converge(&mut world);
    let pools: BTreeSet<_> = world.state.pools.values().map(|pool| pool.checks.is_empty()).collect();
    assert_eq!((world.state.pools.len(), pools.len()), (3, 2));
    let rules = world.rules.unwrap();
    assert_eq!(rules.len(), 2, "{rules:?}");
}

#[test]
fn without_routes_ports_let_through_vips_and_nothing_that_pods_send() {
    for (before, expected) in [
        (true, vec!["let port port-0 send from the VIP blocks", "let port port-1 send from the VIP blocks"]),
        (false, vec![]),
    ] {
        let mut world = world();
        world.routes = before;
        let taken = shown(&converge(&mut world));
        assert_eq!(taken.iter().any(|step| step.contains("10.240.")), before, "{taken:?}");
        world.routes = false;
        assert_eq!(shown(&converge(&mut world)), expected, "{before}");
        assert!(world.nodes.values().all(|node| !node.pod_ranges.is_empty()), "what was seen stays as it is");
    }
}
