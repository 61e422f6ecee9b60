//! A state of ten thousand load balancers on a thousand members: what a change of it costs in writes. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
    time::Instant,
};

use ake_xdp::{config, engine::Engine, health::Checker, maps::DataPlane, plan::Book, store::Store};
use lb_driver::{
    model::{Affinity, Endpoint, LoadBalancer, MacAddr, Member, Owner, Pool, Protocol, State, Version},
    vendor::xdp::translate,
};
use tokio::sync::mpsc;

const LOAD_BALANCERS: u16 = 10_000;
const MEMBERS: u16 = 1000;

fn address(net: [u8; 2], number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [net[0], net[1], high, low].into()
}

fn state() -> State {
    let owner = |object: String| Owner::new("project", "cluster", object).unwrap();
    let nodes = owner("nodes".to_owned());
    let member = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mac = Some(MacAddr::new([2, 0, 0, 0, high, low]).unwrap());
        let member = Member { address: address([10, 1], number + 1), mac, weight: 1, draining: false };
        (format!("node-{number}"), member)
    };
    let balancer = |number: u16| {
        let port = NonZeroU16::new(443).unwrap();
        let balancer = LoadBalancer {
            vip: address([10, 2], number + 1),
            listeners: BTreeMap::from([(Endpoint { protocol: Protocol::Tcp, port }, nodes.clone())]),
            source_ranges: BTreeSet::new(),
            affinity: Affinity::None,
        };
        (owner(format!("service-{number}")), balancer)
    };
    let pool = Pool { members: (0..MEMBERS).map(member).collect(), checks: BTreeSet::new() };
    State {
        version: Version { epoch: 1, number: 1 },
        pools: BTreeMap::from([(nodes.clone(), pool)]),
        load_balancers: (0..LOAD_BALANCERS).map(balancer).collect(),
    }
}

#[tokio::test]
async fn a_change_costs_writes_for_what_changed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let limits = config::Limits::default();
    let plane = DataPlane::load(MacAddr::new([2, 0, 0, 0, 0, 1]).unwrap(), &limits).unwrap();
    let checker = Checker::new(config::Check::default(), mpsc::unbounded_channel().0).unwrap();
    let store = Store::new(folder.path().join("state.json"));
    let engine = Engine::start(plane, checker, store, Book::new(limits, Vec::new())).unwrap();
    let mut state = state();
    let put = |state: &State, what: &str| {
        let (before, begun) = (engine.activity().0, Instant::now());
        engine.put(&translate::document(state)).unwrap();
        let writes = engine.activity().0 - before;
        println!("{what}: {writes} writes in {:?}", begun.elapsed());
        writes
    };
    assert!(put(&state, "all") >= 4 * u64::from(LOAD_BALANCERS));

    state.version.number += 1;
    let nodes = state.pools.values_mut().next().unwrap();
    let leaver = nodes.members.remove("node-500").unwrap();
    assert_eq!(put(&state, "a node leaves"), 2, "its slot and the ring");

    state.version.number += 1;
    state.pools.values_mut().next().unwrap().members.insert("node-500".to_owned(), leaver);
    assert_eq!(put(&state, "a node joins"), 4, "its counter, its slot twice, and the ring");

    state.version.number += 1;
    let member = state.pools.values_mut().next().unwrap().members.get_mut("node-7").unwrap();
    member.mac = Some(MacAddr::new([2, 0, 0, 1, 0, 7]).unwrap());
    assert_eq!(put(&state, "a member has another MAC address"), 1);

    state.version.number += 1;
    state.load_balancers.pop_first();
    assert!(put(&state, "a Service goes") <= 4);

    state.version.number += 1;
    assert_eq!(put(&state, "nothing"), 0);
}
