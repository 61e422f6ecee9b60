//! Views that are wrong: lost, old, empty. Nothing goes because of them.

use std::collections::BTreeSet;

use ake_api_client::ClusterState;

use super::{
    super::{plan::plan, step::Step, wanted::World},
    model::{annotated, converge, key, service, world},
};
use crate::services::annotations::{RANGE, SHARE};

fn with_services(count: usize) -> World {
    let mut world = world();
    for index in 0..count {
        world.services.insert(key(&format!("s{index}")), service(&format!("u{index}")));
    }
    converge(&mut world);
    world
}

fn removals(steps: &[Step]) -> Vec<String> {
    let steps = steps.iter().map(|step| (step.kind().name(), step.to_string()));
    steps
        .filter(|(kind, _)| kind.starts_with("delete") || kind.starts_with("remove"))
        .map(|step| step.1)
        .collect()
}

#[test]
fn a_state_that_ake_api_has_lost_is_made_anew_with_the_same_addresses() {
    let mut world = with_services(4);
    let annotated_services =
        [annotated("u8", &[(SHARE, "k")]), annotated("u9", &[(RANGE, "203.0.113.24/30")])];
    for (index, mut view) in (8..).zip(annotated_services) {
        view.ports[0].port = 443;
        world.services.insert(key(&format!("s{index}")), view);
    }
    // Addresses are not in the order of the Services any more.
    world.services.get_mut(&key("s1")).unwrap().deleting = true;
    converge(&mut world);
    world.services.insert(key("a"), service("u7"));
    converge(&mut world);

    let before = world.state.clone();
    let ClusterState { addresses, pools, load_balancers, .. } = &mut world.state;
    addresses.retain(|name, _| name == "api");
    pools.retain(|name, _| name == "masters");
    load_balancers.retain(|name, _| name == "api");
    let steps = converge(&mut world);
    assert_eq!(removals(&steps), [""; 0]);
    assert!(!steps.iter().any(|step| matches!(step, Step::SetStatus { .. })), "clients know the addresses");
    assert_eq!(world.state.addresses, before.addresses);
    assert_eq!(world.state.load_balancers, before.load_balancers);
}

#[test]
fn an_old_etcd_neither_takes_what_is_younger_nor_brings_back_other_addresses() {
    let mut world = with_services(3);
    let old = world.services.clone();
    world.services.insert(key("young"), service("u9"));
    world.services.get_mut(&key("s0")).unwrap().load_balancer_ip = Some("203.0.113.28".into());
    converge(&mut world);
    world.services.get_mut(&key("s2")).unwrap().deleting = true;
    converge(&mut world);

    // As it was before all that: one Service is missing, one that is gone is back, one wishes for nothing again.
    world.services = old;
    let plan = plan(&world);
    assert_eq!(removals(&plan.steps), [""; 0]);
    assert_eq!(plan.orphans, BTreeSet::from(["svc-u9".to_owned()]));
    converge(&mut world);
    assert!(world.state.load_balancers.contains_key("svc-u9"));
    let published = |name: &str| world.services[&key(name)].ingress[0].ip.unwrap().to_string();
    assert_eq!(published("s0"), "203.0.113.28", "the status follows what is there");
}

#[test]
fn a_service_made_anew_by_the_same_name_has_nothing_of_the_one_before() {
    let mut world = with_services(1);
    // The finalizer was taken off by hand, so its end was not seen.
    world.services.insert(key("s0"), service("anew"));
    let plan = plan(&world);
    assert_eq!(plan.orphans, BTreeSet::from(["svc-u0".to_owned()]));
    let steps = converge(&mut world);
    assert_eq!(removals(&steps), [""; 0]);
    let vip = |name: &str| world.state.load_balancers[name].vip;
    assert_ne!(vip("svc-u0"), vip("svc-anew"));
    assert_eq!(world.services[&key("s0")].ingress[0].ip, Some(vip("svc-anew")));
    world.ripe = plan.orphans;
    converge(&mut world);
    assert!(!world.state.load_balancers.contains_key("svc-u0"));
}

#[test]
fn an_empty_list_of_nodes_or_endpoints_empties_no_pool() {
    let mut world = with_services(1);
    let mut local = service("u9");
    local.local = true;
    local.ports[0].port = 81;
    world.services.insert(key("local"), local);
    converge(&mut world);
    let pools = world.state.pools.clone();
    world.nodes.clear();
    world.endpoints.clear();
    world.ports.clear();
    assert_eq!(converge(&mut world), []);
    assert_eq!(world.state.pools, pools);
}
