mod fuzz;

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::{
    AddressRequest, ClusterId, Family, LoadBalancerRequest, MemberRequest, PoolRequest, Write,
};
use proptest::prelude::*;

use super::*;
use crate::decide::{
    facts::{Facts, PortFact},
    wanted::Wanted,
    writes::apply,
};

fn cluster() -> ClusterRecord {
    ClusterRecord {
        blocks: vec!["203.0.113.16/30".parse().unwrap(), "2001:db8:113::10/126".parse().unwrap()],
        ..ClusterRecord::new(ClusterId::from_u128(1), ["demo", "p", "n"], "10.240.0.0/16".parse().unwrap())
    }
}

fn facts() -> Facts {
    let port = |n: u8| PortFact {
        id: format!("port-{n}"),
        mac: format!("fa:16:3e:00:00:{n:02x}"),
        network: "n".into(),
        project: "p".into(),
        device_owner: "compute:nova".into(),
        device_id: "server".into(),
        addresses: vec![format!("192.168.77.{n}").parse().unwrap()],
    };
    Facts { ports: (20..23).map(port).collect(), ..Facts::default() }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("c".to_owned())]
}

fn member() -> impl Strategy<Value = MemberRequest> {
    (18u8..24, 0u16..3, any::<bool>()).prop_map(|(n, weight, draining)| MemberRequest {
        address: format!("192.168.77.{n}").parse().unwrap(),
        weight,
        draining,
        port: None,
    })
}

fn balancer() -> impl Strategy<Value = LoadBalancerRequest> {
    let listener =
        (0u16..4, name()).prop_map(|(port, pool)| Listener { protocol: Protocol::Tcp, port, pool });
    let range = prop_oneof![Just("10.0.0.0/8"), Just("10.0.0.1/8"), Just("2001:db8::/32")];
    (name(), proptest::collection::vec(listener, 0..3), proptest::collection::vec(range, 0..2)).prop_map(
        |(address, listeners, ranges)| LoadBalancerRequest {
            address,
            listeners,
            source_ranges: ranges.into_iter().map(|r| r.parse().unwrap()).collect(),
            affinity: Affinity::None,
        },
    )
}

fn write() -> impl Strategy<Value = Write> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let wish = proptest::option::of((14u8..22).prop_map(|n| format!("203.0.113.{n}").parse().unwrap()));
    let check = prop_oneof![
        (0u16..3).prop_map(|port| Check::Tcp { port }),
        (name(), 0u16..3).prop_map(|(address, port)| Check::Vip { address, port }),
    ];
    let checks = proptest::collection::vec(check, 0..3);
    let members = proptest::option::of(proptest::collection::btree_map(name(), member(), 0..3));
    prop_oneof![
        (name(), family, wish).prop_map(|(name, family, address)| Write::PutAddress {
            name,
            request: AddressRequest { address, family, ..AddressRequest::default() }
        }),
        name().prop_map(|name| Write::DeleteAddress { name }),
        (name(), members, checks).prop_map(|(name, members, checks)| Write::PutPool {
            name,
            request: PoolRequest { members, checks }
        }),
        name().prop_map(|name| Write::DeletePool { name }),
        (name(), name(), member()).prop_map(|(pool, name, request)| Write::PutMember { pool, name, request }),
        (name(), name()).prop_map(|(pool, name)| Write::DeleteMember { pool, name }),
        (name(), balancer()).prop_map(|(name, request)| Write::PutLoadBalancer { name, request }),
        name().prop_map(|name| Write::DeleteLoadBalancer { name }),
    ]
}

proptest! {
    /// Whatever callers write, what is taken is something that every balancer takes.
    #[test]
    fn what_is_taken_can_be_told_to_a_balancer(writes in proptest::collection::vec(write(), 0..40)) {
        let (record, facts) = (cluster(), facts());
        let mut wanted = Wanted::default();
        for write in writes {
            if let Ok(next) = apply(&record, &wanted, &facts, std::slice::from_ref(&write)) {
                let again = apply(&record, &next, &facts, &[write]);
                prop_assert_eq!(again.as_ref(), Ok(&next), "a repeated write changes nothing");
                wanted = next;
            }
        }
        let addresses: BTreeSet<_> = wanted.addresses.values().collect();
        prop_assert_eq!(addresses.len(), wanted.addresses.len());
        prop_assert!(addresses.iter().all(|a| record.blocks.iter().any(|block| block.contains(**a))));
        prop_assert_eq!(&Wanted::from_objects(wanted.to_objects().unwrap()).unwrap(), &wanted);
        let loaded = Loaded { record, wanted, pairs: BTreeMap::new() };
        let state = state(Version { epoch: 1, number: 1 }, std::slice::from_ref(&loaded)).unwrap();
        prop_assert_eq!(state.check(), Ok(()));
        prop_assert_eq!(state.load_balancers.len(), loaded.wanted.load_balancers.len());
    }
}
