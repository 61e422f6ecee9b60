use std::num::NonZeroU16;

use proptest::{prelude::*, sample};

use super::*;
use crate::{
    model::{Affinity, Check, Member, Protocol, Version},
    table::Table,
};

fn owner(object: &str) -> Owner {
    Owner::new("project", "cluster", object).unwrap()
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { protocol: Protocol::Tcp, port: NonZeroU16::new(port).unwrap() }
}

prop_compose! {
    fn member()(weight in 0u16..3, draining: bool, address in 1u8..4) -> Member {
        Member { address: [192, 168, 77, address].into(), mac: None, weight, draining }
    }
}

prop_compose! {
    fn pool()(
        members in prop::collection::btree_map(sample::select(vec!["a".to_owned(), "b".to_owned()]), member(), 0..3),
        checked: bool,
    ) -> Pool {
        let checks = checked.then_some(Check::Tcp { port: NonZeroU16::MIN }).into_iter().collect();
        Pool { members, checks }
    }
}

/// A possible state: few names, few VIPs and few ports, so that everything meets everything.
fn state() -> impl Strategy<Value = State> {
    let pools = prop::collection::btree_map(sample::select(vec!["p1", "p2", "p3"]), pool(), 1..4);
    let listeners =
        prop::collection::vec((0usize..3, 0usize..2, 1u16..4, any::<prop::sample::Index>()), 0..8);
    (pools, listeners, prop::bool::weighted(0.2), 0u64..9).prop_map(|(pools, listeners, affine, number)| {
        let pools: BTreeMap<_, _> = pools.into_iter().map(|(name, pool)| (owner(name), pool)).collect();
        let names: Vec<_> = pools.keys().cloned().collect();
        let mut load_balancers = BTreeMap::new();
        let mut vips = BTreeMap::new();
        let mut claims = BTreeSet::new();
        for (balancer, vip, port, pool) in listeners {
            let vip = IpAddr::from([203, 0, 113, *vips.entry(balancer).or_insert(vip) as u8]);
            if claims.insert((vip, port)) {
                let empty = LoadBalancer {
                    vip,
                    listeners: BTreeMap::new(),
                    source_ranges: BTreeSet::new(),
                    affinity: if affine { Affinity::ClientIp } else { Affinity::None },
                };
                let lb = load_balancers.entry(owner(&format!("lb{balancer}"))).or_insert(empty);
                lb.listeners.insert(endpoint(port), pool.get(&names).clone());
            }
        }
        State { version: Version { epoch: 0, number }, pools, load_balancers }
    })
}

fn device(state: &State) -> Table {
    let foreign = BTreeMap::from([("theirs".to_owned(), (IpAddr::from([203, 0, 113, 9]), endpoint(1)))]);
    Table { ours: state.clone(), foreign }
}

fn reached(device: &Table, wanted: &State) -> bool {
    device.ours.pools == wanted.pools && device.ours.load_balancers == wanted.load_balancers
}

proptest! {
    #[test]
    fn a_diff_reaches_what_is_wanted(actual in state(), wanted in state()) {
        wanted.check().unwrap();
        let mut device = device(&actual);
        let foreign = device.foreign.clone();
        for change in diff(&wanted, &actual) {
            device.perform(&change).map_err(|refused| TestCaseError::fail(format!("{change}: {refused}")))?;
        }
        prop_assert!(reached(&device, &wanted), "{device:?}");
        prop_assert_eq!(&device.foreign, &foreign);
        prop_assert_eq!(diff(&wanted, &device.ours), vec![]);
    }

    #[test]
    fn an_interrupted_one_is_continued(actual in state(), wanted in state(), steps in 0usize..12) {
        let mut device = device(&actual);
        for change in diff(&wanted, &actual).iter().take(steps) {
            device.perform(change).unwrap();
        }
        for change in diff(&wanted, &device.ours.clone()) {
            device.perform(&change).map_err(|refused| TestCaseError::fail(format!("{change}: {refused}")))?;
        }
        prop_assert!(reached(&device, &wanted));
    }

    #[test]
    fn another_state_may_come_in_between(first in state(), second in state(), third in state(), steps in 0usize..12) {
        let mut device = device(&first);
        for change in diff(&second, &first).iter().take(steps) {
            device.perform(change).unwrap();
        }
        for change in diff(&third, &device.ours.clone()) {
            device.perform(&change).map_err(|refused| TestCaseError::fail(format!("{change}: {refused}")))?;
        }
        prop_assert!(reached(&device, &third));
    }
}

#[test]
fn two_load_balancers_swap_ports() {
    let balancer = |port| LoadBalancer {
        vip: [203, 0, 113, 17].into(),
        listeners: BTreeMap::from([(endpoint(port), owner("nodes"))]),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    let state = |a, b| State {
        version: Version::default(),
        pools: BTreeMap::from([(owner("nodes"), Pool::default())]),
        load_balancers: BTreeMap::from([(owner("a"), balancer(a)), (owner("b"), balancer(b))]),
    };
    let steps: Vec<_> = diff(&state(2, 1), &state(1, 2)).iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "release ports of load balancer project/cluster/a",
            "release ports of load balancer project/cluster/b",
            "put load balancer project/cluster/a on 203.0.113.17",
            "put load balancer project/cluster/b on 203.0.113.17",
        ]
    );
}
