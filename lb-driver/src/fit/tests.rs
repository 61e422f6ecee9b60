use std::num::NonZeroU16;

use proptest::{prelude::*, sample};

use super::*;
use crate::{
    diff::diff,
    driver::{CheckKinds, MemberStatus, PoolStatus},
    model::Version,
    table::Table,
};

fn owner(object: &str) -> Owner {
    Owner::new("project", "cluster", object).unwrap()
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        Just(Check::Tcp { port: port(1) }),
        Just(Check::Http { port: port(2), path: "/".to_owned() }),
        Just(Check::Vip { vip: [203, 0, 113, 17].into(), port: port(3) }),
    ]
}

prop_compose! {
    fn member()(weight in 0u16..3, draining in prop::bool::weighted(0.2), address in 1u8..9) -> Member {
        let address = match address {
            8 => "fd00:77::8".parse().unwrap(),
            last => IpAddr::from([192, 168, 77, last]),
        };
        Member { address, mac: Some("fa:16:3e:00:00:01".parse().unwrap()), weight, draining }
    }
}

prop_compose! {
    fn pool()(
        members in prop::collection::btree_map(sample::select(vec!["a", "b", "c"]), member(), 0..4),
        checks in prop::collection::btree_set(check(), 0..3),
    ) -> Pool {
        Pool { members: members.into_iter().map(|(name, member)| (name.to_owned(), member)).collect(), checks }
    }
}

prop_compose! {
    fn balancer(vip: IpAddr, pools: Vec<Owner>)(
        listeners in prop::collection::btree_map(
            (sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]), 1u16..4),
            sample::select(pools),
            1..4,
        ),
        ranged in prop::bool::weighted(0.2),
        affine in prop::bool::weighted(0.2),
    ) -> LoadBalancer {
        let listeners = listeners.into_iter().map(|((protocol, number), pool)| {
            (Endpoint { protocol, port: port(number) }, pool)
        });
        let range = if vip.is_ipv6() { "2001:db8::/32" } else { "198.51.100.0/24" };
        LoadBalancer {
            vip,
            listeners: listeners.collect(),
            source_ranges: ranged.then(|| range.parse().unwrap()).into_iter().collect(),
            affinity: if affine { Affinity::ClientIp } else { Affinity::None },
        }
    }
}

/// A possible state: every load balancer has a VIP of its own.
fn state() -> impl Strategy<Value = State> {
    prop::collection::btree_map(sample::select(vec!["p1", "p2", "p3"]), pool(), 1..4).prop_flat_map(|pools| {
        let pools: BTreeMap<_, _> = pools.into_iter().map(|(name, pool)| (owner(name), pool)).collect();
        let names: Vec<_> = pools.keys().cloned().collect();
        let vips = ["203.0.113.17", "203.0.113.18", "203.0.113.19", "2001:db8:113::17"];
        let balancers = vips.map(|vip| prop::option::of(balancer(vip.parse().unwrap(), names.clone())));
        balancers.prop_map(move |balancers| {
            let named = balancers.into_iter().enumerate();
            let some = named.filter_map(|(index, lb)| Some((owner(&format!("lb{index}")), lb?)));
            State { version: Version::default(), pools: pools.clone(), load_balancers: some.collect() }
        })
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let most = || prop::option::weighted(0.3, 1usize..6);
    (most(), most(), most(), most(), most(), prop::option::weighted(0.2, 0usize..3)).prop_map(
        |(load_balancers, listeners, source_ranges, pools, members, checks)| Limits {
            load_balancers,
            listeners,
            source_ranges,
            pools,
            members,
            checks,
        },
    )
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let likely = || prop::bool::weighted(0.7);
    let kinds = (likely(), likely(), likely()).prop_map(|(tcp, http, vip)| CheckKinds { tcp, http, vip });
    ([likely(), likely(), likely(), likely(), likely(), likely(), likely(), likely()], kinds, limits())
        .prop_map(
            |(
                [ipv6, sctp, shared_pools, drain, weights, macs, source_ranges, client_ip_affinity],
                checks,
                limits,
            )| {
                Capabilities {
                    ipv6,
                    sctp,
                    shared_pools,
                    drain,
                    weights,
                    macs,
                    source_ranges,
                    client_ip_affinity,
                    checks,
                    limits,
                    versioned: true,
                }
            },
        )
}

/// Who takes new flows, who keeps them, and the checks.
type Effect<'a> = (BTreeMap<&'a str, (IpAddr, u16)>, BTreeSet<&'a str>, &'a BTreeSet<Check>);

/// What a pool does: who takes new flows, at which share of the least; who keeps flows; how they are checked.
fn effect(pool: &Pool) -> Effect<'_> {
    let takes = |member: &Member| !member.draining && member.weight > 0;
    let least = pool.members.values().filter(|m| takes(m)).map(|m| m.weight).min().unwrap_or(1);
    let new = pool.members.iter().filter(|(_, m)| takes(m));
    let new = new.map(|(name, m)| {
        // shares compare only as a whole; equal ones are 1
        let even = pool.members.values().filter(|m| takes(m)).all(|m| m.weight == least);
        (name.as_str(), (m.address, if even { 1 } else { m.weight }))
    });
    (new.collect(), pool.members.keys().map(String::as_str).collect(), &pool.checks)
}

proptest! {
    #[test]
    fn what_fits_does_what_was_wanted_and_the_rest_is_refused(
        wanted in state(), capabilities in capabilities(), held in state(),
    ) {
        wanted.check().unwrap();
        let held = fit(&held, &capabilities, &State::default()).state;
        let fitted = fit(&wanted, &capabilities, &held);
        prop_assert_eq!(fitted.state.check(), Ok(()));
        for (owner, balancer) in &wanted.load_balancers {
            let reasons = fitted.refused.get(owner);
            prop_assert!(reasons.is_none_or(|reasons| !reasons.is_empty()));
            prop_assert_eq!(reasons.is_none(), fitted.state.load_balancers.contains_key(owner));
            let Some(is) = fitted.state.load_balancers.get(owner) else { continue };
            prop_assert_eq!(Some(is.clone()), shape(owner, balancer, &capabilities));
            prop_assert_eq!((is.vip, &is.source_ranges, is.affinity), (balancer.vip, &balancer.source_ranges, balancer.affinity));
            prop_assert!(is.listeners.keys().eq(balancer.listeners.keys()));
            for (endpoint, pool) in &balancer.listeners {
                let (has, asked) = (&fitted.state.pools[&is.listeners[endpoint]], &wanted.pools[pool]);
                let ((new, mut all, checks), mut wanted_all) = (effect(has), effect(asked).1);
                let cut = fitted.cut.get(pool).cloned().unwrap_or_default();
                prop_assert!(capabilities.drain || cut.len() + all.len() == wanted_all.len());
                prop_assert!(cut.iter().all(|name| asked.members[name].draining || asked.members[name].weight == 0));
                wanted_all.retain(|name| !cut.contains(*name));
                all.retain(|name| !cut.contains(*name));
                prop_assert_eq!((new, all, checks), (effect(asked).0, wanted_all, effect(asked).2));
            }
        }
        // what fits fits again, as it is
        let again = fit(&fitted.state, &capabilities, &held);
        prop_assert_eq!(&again.state, &fitted.state);
        prop_assert!(again.refused.is_empty());
        if capabilities == Capabilities::ALL {
            prop_assert_eq!(&fitted.state, &wanted);
        }
        if !capabilities.shared_pools {
            let used: Vec<_> = fitted.state.load_balancers.values().flat_map(|lb| lb.listeners.values()).collect();
            prop_assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len());
            prop_assert_eq!(used.len(), fitted.state.pools.len());
        }
    }

    #[test]
    fn a_device_that_can_everything_gets_everything(wanted in state()) {
        let fitted = fit(&wanted, &Capabilities::ALL, &State::default());
        prop_assert_eq!(fitted, Fitted { state: wanted, ..Fitted::default() });
    }

    #[test]
    fn newcomers_push_nobody_out(wanted in state(), capabilities in capabilities(), first in 0usize..5) {
        let mut before = wanted.clone();
        before.load_balancers = wanted.load_balancers.clone().into_iter().skip(first).collect();
        let held = fit(&before, &capabilities, &State::default()).state;
        let fitted = fit(&wanted, &capabilities, &held);
        for owner in held.load_balancers.keys() {
            prop_assert!(fitted.state.load_balancers.contains_key(owner), "{owner}: {:?}", fitted.refused);
        }
    }

    #[test]
    fn a_device_without_shared_pools_goes_from_state_to_state(
        states in prop::collection::vec(state(), 1..5), capabilities in capabilities(), steps in 0usize..12,
    ) {
        let capabilities = Capabilities { shared_pools: false, ..capabilities };
        let mut device = Table::default();
        for wanted in &states {
            for broken_off in [true, false] {
                let fitted = fit(wanted, &capabilities, &device.ours).state;
                let changes = diff(&fitted, &device.ours);
                for change in changes.iter().take(if broken_off { steps } else { usize::MAX }) {
                    device.perform(change).map_err(|no| TestCaseError::fail(format!("{change}: {no}")))?;
                }
            }
            let fitted = fit(wanted, &capabilities, &device.ours).state;
            prop_assert_eq!(diff(&fitted, &device.ours), vec![]);
        }
    }
}

fn one(endpoints: &[(Protocol, u16)]) -> State {
    let listeners = endpoints
        .iter()
        .map(|(protocol, number)| (Endpoint { protocol: *protocol, port: port(*number) }, owner("nodes")));
    let balancer = LoadBalancer {
        vip: [203, 0, 113, 17].into(),
        listeners: listeners.collect(),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    let member = Member { address: [192, 168, 77, 21].into(), mac: None, weight: 1, draining: false };
    let pool = Pool { members: BTreeMap::from([("m".to_owned(), member)]), checks: BTreeSet::new() };
    State {
        version: Version::default(),
        pools: BTreeMap::from([(owner("nodes"), pool)]),
        load_balancers: BTreeMap::from([(owner("svc"), balancer)]),
    }
}

#[test]
fn every_reason_is_told() {
    let mut wanted = one(&[(Protocol::Sctp, 80), (Protocol::Tcp, 80)]);
    let balancer = wanted.load_balancers.get_mut(&owner("svc")).unwrap();
    balancer.source_ranges.insert("198.51.100.0/24".parse().unwrap());
    balancer.affinity = Affinity::ClientIp;
    let pool = wanted.pools.get_mut(&owner("nodes")).unwrap();
    pool.members.insert(
        "n".to_owned(),
        Member { address: "fd00:77::22".parse().unwrap(), mac: None, weight: 3, draining: false },
    );
    pool.checks.insert(Check::Http { port: port(10_256), path: "/healthz".to_owned() });
    let capabilities = Capabilities {
        ipv6: false,
        sctp: false,
        weights: false,
        source_ranges: false,
        client_ip_affinity: false,
        checks: CheckKinds { tcp: true, http: false, vip: false },
        limits: Limits { checks: Some(0), listeners: Some(1), ..Limits::default() },
        ..Capabilities::ALL
    };
    let fitted = fit(&wanted, &capabilities, &State::default());
    let told: Vec<_> = fitted.refused[&owner("svc")].iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "address fd00:77::22: the balancer does not do IPv6",
            "listener SCTP/80: the balancer does not do SCTP",
            "source ranges: the balancer cannot keep clients out",
            "affinity ClientIP: the balancer cannot spread by clients' addresses",
            "pool project/cluster/nodes: members of different weights: the balancer gives each the same share",
            "pool project/cluster/nodes: check by HTTP on port 10256: the balancer cannot",
            "pool project/cluster/nodes: checks: the balancer takes at most 0",
            "the balancer is full: it takes at most 1 listeners",
        ]
    );
    assert!(fitted.state.load_balancers.is_empty() && fitted.state.pools.is_empty());
}

#[test]
fn an_expanded_pool_is_told_of_as_one() {
    let capabilities = Capabilities { shared_pools: false, ..Capabilities::ALL };
    let fitted = fit(&one(&[(Protocol::Tcp, 80), (Protocol::Udp, 53)]), &capabilities, &State::default());
    let names: Vec<_> = fitted.state.pools.keys().map(Owner::object).collect();
    assert_eq!(names, ["svc_TCP_80", "svc_UDP_53"]);
    let said = |healthy, slots| {
        let member = MemberStatus { healthy, slots, new_flows: 1, reason: None };
        PoolStatus { ring_size: 10, members: BTreeMap::from([("m".to_owned(), member)]) }
    };
    let status = |one, other| Status {
        pools: fitted.state.pools.keys().cloned().zip([said(one, 3), said(other, 4)]).collect(),
        ..Status::default()
    };
    for (one, other, all) in
        [(Some(true), Some(true), Some(true)), (Some(true), None, None), (None, Some(false), Some(false))]
    {
        let member = fitted.member(&status(one, other), &owner("nodes"), "m").unwrap();
        assert_eq!((member.healthy, member.slots, member.new_flows), (all, 7, 2));
    }
    let (svc, wanted) = (owner("svc"), one(&[(Protocol::Tcp, 80), (Protocol::Udp, 53)]));
    assert_eq!(fitted.as_wanted(&fitted.state.load_balancers[&svc]), wanted.load_balancers[&svc]);
}
