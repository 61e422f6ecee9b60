//! Which member a flow has, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_driver::{
    model::{Affinity, Member, Pool},
    ring::{self, Share},
};

use crate::{
    bench::{Bench, DROP, VIP, VIP6, member, owner, tcp},
    frames::{self, CLIENT, Frame},
};

#[test]
fn flows_stay_through_changes_of_the_members() {
    let mut bench = Bench::new(3);
    let mut began: BTreeMap<u16, u8> =
        (10_000..10_400).map(|port| (port, bench.goes_to(&tcp(port).0).unwrap())).collect();
    let stay = |bench: &Bench, began: &BTreeMap<u16, u8>, what: &str| {
        for (port, member) in began {
            assert_eq!(bench.goes_to(&tcp(*port).1), Ok(*member), "{what}: port {port}");
        }
    };
    bench.members(|members| members.extend([("m4".to_owned(), member(4))]));
    stay(&bench, &began, "a member came");
    bench.members(|members| members.get_mut("m1").unwrap().draining = true);
    stay(&bench, &began, "m1 drains");
    for port in 20_000..20_400 {
        assert_ne!(bench.goes_to(&tcp(port).0), Ok(1), "m1 drains and takes no new flows");
    }
    let again = began.iter().find(|(_, member)| **member == 1).map(|(port, _)| *port).unwrap();
    assert_eq!(bench.goes_to(&tcp(again).0), Ok(1), "the repetition of a first packet follows its flow");
    let anew = Frame::v4(CLIENT, VIP).tcp(again, 80, frames::SYN, 1);
    assert_ne!(bench.goes_to(&anew), Ok(1), "a new flow on the old ports goes by the ring");
    began.remove(&again);

    let (orphans, others) = began.into_iter().partition::<BTreeMap<_, _>, _>(|(_, member)| *member == 2);
    bench.members(|members| members.retain(|name, _| name != "m2"));
    stay(&bench, &others, "m2 left");
    assert!(orphans.len() > 50);
    for port in orphans.keys() {
        assert!([3, 4].contains(&bench.goes_to(&tcp(*port).1).unwrap()), "m2's flows go by the ring");
    }
}

#[test]
fn a_slot_that_is_given_away_keeps_no_flows() {
    let mut bench = Bench::new(2);
    let began: Vec<u16> = (1000..1200).filter(|port| bench.goes_to(&tcp(*port).0) == Ok(1)).collect();
    // limits.members is 64: the slot comes round again
    for round in 0..70 {
        bench.members(|members| {
            members.remove("m1");
            members.remove(&format!("n{}", round - 1));
            members.insert(format!("n{round}"), Member { draining: true, ..member(9) });
        });
    }
    for port in began {
        assert_eq!(bench.goes_to(&tcp(port).1), Ok(2));
    }
}

#[test]
fn a_new_mac_address_takes_the_flows_along() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.goes_to(&tcp(1).0), Ok(1));
    bench.members(|members| members.get_mut("m1").unwrap().mac = member(8).mac);
    assert_eq!(bench.goes_to(&tcp(1).1), Ok(8));
    bench.members(|members| members.get_mut("m1").unwrap().mac = None);
    assert_eq!(bench.goes_to(&tcp(1).1), Err(DROP));
    assert_eq!(bench.status()["m1"].reason.as_deref(), Some("its MAC address is not known"));
}

#[test]
fn new_flows_fall_as_the_ring_says_and_are_counted() {
    let mut bench = Bench::new(3);
    bench.members(|members| members.get_mut("m3").unwrap().weight = 2);
    let mut fell = BTreeMap::<u8, u64>::new();
    let flows = 20_000;
    for port in 0..flows {
        *fell.entry(bench.goes_to(&tcp(port).0).unwrap()).or_default() += 1;
        bench.goes_to(&tcp(port).1).unwrap();
    }
    let status = bench.status();
    let ring: u32 = status.values().map(|member| member.slots).sum();
    for (index, count) in fell {
        let member = &status[&format!("m{index}")];
        assert_eq!(member.new_flows, count);
        let expected = f64::from(flows) * f64::from(member.slots) / f64::from(ring);
        assert!((count as f64 - expected).abs() < 5.0 * expected.sqrt(), "m{index}: {count} for {expected}");
    }
    assert!(status["m3"].slots.abs_diff(2 * status["m1"].slots) <= 2);
}

#[test]
fn a_list_of_flows_says_where_an_instance_sends_them_that_does_not_know_them() {
    let (mut bench, mut other) = (Bench::new(3), Bench::new(3));
    for port in 1000..1400 {
        bench.goes_to(&tcp(port).0).unwrap();
        bench.goes_to(&Frame::v6("2001:db8:51::9", VIP6).udp(port, 53, b"")).unwrap();
    }
    assert_eq!(bench.engine.flows().unwrap().iter().filter(|flow| flow.ring.is_some()).count(), 0);
    for bench in [&mut bench, &mut other] {
        bench.members(|members| {
            members.insert("m4".to_owned(), member(4));
            members.get_mut("m1").unwrap().draining = true;
        });
    }
    let flows = bench.engine.flows().unwrap();
    assert_eq!(flows.len(), 800);
    let (mut here, mut there) = (0, 0);
    for flow in flows {
        let (port, said) = (flow.client.port(), flow.ring.as_ref().unwrap_or(&flow.member));
        let frame = match flow.vip.is_ipv4() {
            true => tcp(port).1,
            false => Frame::v6("2001:db8:51::9", VIP6).udp(port, 53, b""),
        };
        assert_eq!(bench.goes_to(&frame).unwrap().to_string(), flow.member[1..], "{flow:?}");
        assert_eq!(other.goes_to(&frame).unwrap().to_string(), said[1..], "{flow:?}");
        here += u32::from(flow.ring.is_none());
        there += u32::from(flow.ring.is_some());
    }
    assert!(here > 250 && there > 250, "{here} {there}");
    // a member that is gone has no flows, and what the ring said of them is what holds
    bench.members(|members| {
        members.remove("m1");
    });
    assert!(bench.engine.flows().unwrap().iter().all(|flow| flow.member != "m1"));
}

#[test]
fn two_instances_choose_alike() {
    let (one, other) = (Bench::new(5), Bench::new(5));
    for port in 0..1000 {
        assert_eq!(one.goes_to(&tcp(port).1), other.goes_to(&tcp(port).1));
    }
}

#[test]
fn affinity_holds_a_client() {
    let mut bench = Bench::new(5);
    bench.change(|state| {
        state.load_balancers.values_mut().for_each(|lb| lb.affinity = Affinity::ClientIp);
    });
    let mut clients = BTreeSet::new();
    for client in 1..100 {
        let frame = Frame::v4(&format!("198.51.100.{client}"), VIP);
        let members: BTreeSet<_> =
            (1..50).map(|port| bench.goes_to(&frame.tcp(port, 80, frames::SYN, 1)).unwrap()).collect();
        assert_eq!(members.len(), 1);
        clients.extend(members);
    }
    assert_eq!(clients.len(), 5);
}

#[test]
fn changes_of_others_move_no_flow() {
    let mut bench = Bench::new(3);
    let began: BTreeMap<u16, u8> =
        (10_000..10_400).map(|port| (port, bench.goes_to(&tcp(port).0).unwrap())).collect();
    for round in 0..8u8 {
        bench.change(|state| {
            let nodes = state.pools[&owner("nodes")].clone();
            let members = (0..=round).map(|index| (format!("o{index}"), member(50 + index))).collect();
            state.pools.insert(owner(&format!("other{round}")), Pool { members, ..nodes });
            let mut balancer = state.load_balancers[&owner("four")].clone();
            balancer.vip = [203, 0, 113, 100 + round].into();
            balancer.listeners.values_mut().for_each(|pool| *pool = owner(&format!("other{round}")));
            state.load_balancers.insert(owner(&format!("other{round}")), balancer);
            if round > 2 {
                state.load_balancers.remove(&owner(&format!("other{}", round - 2)));
                state.pools.remove(&owner(&format!("other{}", round - 2)));
            }
        });
        for (port, member) in &began {
            assert_eq!(bench.goes_to(&tcp(*port).1), Ok(*member));
        }
    }
}

#[test]
fn members_without_weight_keep_their_flows_and_dead_ones_lose_them() {
    let mut bench = Bench::new(3);
    let began: BTreeMap<u16, u8> =
        (10_000..10_400).map(|port| (port, bench.goes_to(&tcp(port).0).unwrap())).collect();
    bench.members(|members| members.get_mut("m1").unwrap().weight = 0);
    for (port, member) in &began {
        assert_eq!(bench.goes_to(&tcp(*port).1), Ok(*member));
    }
    assert!((20_000..20_400).all(|port| bench.goes_to(&tcp(port).0) != Ok(1)), "no new ones");
    bench.members(|members| members.get_mut("m1").unwrap().mac = None);
    for (port, member) in &began {
        let now = bench.goes_to(&tcp(*port).1).unwrap();
        assert!(
            if *member == 1 { [2, 3].contains(&now) } else { now == *member },
            "{port}: {member} to {now}"
        );
    }
    let anew = began.iter().find(|(_, member)| **member == 1).map(|(port, _)| *port).unwrap();
    let other = bench.goes_to(&opening(anew)).unwrap();
    // back, it has its connections again, which nobody else had; what began anew elsewhere stays there
    bench.members(|members| members.extend([("m1".to_owned(), member(1))]));
    for (port, member) in &began {
        let expected = if *port == anew { other } else { *member };
        assert_eq!(bench.goes_to(&tcp(*port).1), Ok(expected), "{port}");
    }
    // one that leaves does not come back to them
    bench.members(|members| members.retain(|name, _| name != "m1"));
    let moved =
        |bench: &Bench| began.keys().map(|port| bench.goes_to(&tcp(*port).1).unwrap()).collect::<Vec<_>>();
    let now = moved(&bench);
    bench.members(|members| members.extend([("m1".to_owned(), member(1)), ("m4".to_owned(), member(4))]));
    assert_eq!(moved(&bench), now);
}

#[test]
fn datagrams_stay_where_they_went_when_their_member_was_down() {
    let mut bench = Bench::new(3);
    let udp = |port: u16| Frame::v4(CLIENT, VIP).udp(port, 53, b"");
    let began: Vec<u16> = (10_000..10_400).filter(|port| bench.goes_to(&udp(*port)) == Ok(1)).collect();
    bench.members(|members| members.get_mut("m1").unwrap().mac = None);
    let went: Vec<_> = began.iter().map(|port| bench.goes_to(&udp(*port)).unwrap()).collect();
    assert!(went.len() > 50 && !went.contains(&1));
    bench.members(|members| members.extend([("m1".to_owned(), member(1))]));
    let now: Vec<_> = began.iter().map(|port| bench.goes_to(&udp(*port)).unwrap()).collect();
    assert_eq!(now, went);
}

/// The first packet of another flow on the same ports.
fn opening(port: u16) -> Vec<u8> {
    Frame::v4(CLIENT, VIP).tcp(port, 80, frames::SYN, u32::from(port) + 1)
}

#[test]
fn a_new_flow_on_old_ports_has_nothing_of_the_old_one() {
    let mut bench = Bench::new(3);
    let began: Vec<u16> = (10_000..10_400).filter(|port| bench.goes_to(&tcp(*port).0) == Ok(1)).collect();
    bench.members(|members| members.get_mut("m1").unwrap().draining = true);
    assert!(began.len() > 50);
    for port in began {
        // a processor remembers what the last packets of a flow met
        for _ in 0..3 {
            assert_eq!(bench.goes_to(&tcp(port).1), Ok(1));
        }
        let other = bench.goes_to(&opening(port)).unwrap();
        assert_ne!(other, 1);
        assert_eq!(bench.goes_to(&tcp(port).1), Ok(other), "port {port}");
    }
}

#[test]
fn whom_a_port_lets_in_holds_for_flows_that_are_open() {
    let mut bench = Bench::new(3);
    let member = bench.goes_to(&tcp(1).0).unwrap();
    let ranges = |bench: &mut Bench, range: &str| {
        let ranges = [range.parse().unwrap()].into();
        bench.change(|state| state.load_balancers.get_mut(&owner("four")).unwrap().source_ranges = ranges);
    };
    ranges(&mut bench, "192.0.2.0/24");
    assert_eq!(bench.goes_to(&tcp(1).1), Err(DROP));
    bench.members(|members| members.values_mut().for_each(|member| member.draining = true));
    ranges(&mut bench, "198.51.100.0/24");
    for _ in 0..3 {
        assert_eq!(bench.goes_to(&tcp(1).1), Ok(member), "the flow has its member still");
    }
    assert_eq!(bench.goes_to(&tcp(2).0), Err(DROP), "and there is none for new ones");
    let listeners = bench.state.load_balancers[&owner("four")].listeners.clone();
    bench.change(|state| state.load_balancers.get_mut(&owner("four")).unwrap().listeners.clear());
    assert_eq!(bench.goes_to(&tcp(1).1), Err(DROP), "a port that is closed is so for its flows");
    bench.change(|state| state.load_balancers.get_mut(&owner("four")).unwrap().listeners = listeners);
    assert_eq!(bench.goes_to(&tcp(1).1), Ok(member));
}

fn drain(bench: &mut Bench, draining: bool) {
    bench.members(|members| members.values_mut().for_each(|member| member.draining = draining));
}

#[test]
fn a_flood_of_new_flows_leaves_the_table_alone() {
    let mut bench = Bench::with(3, |limits| limits.new_flows = 0);
    for port in 2000..2500 {
        let (first, next) = tcp(port);
        assert_eq!(bench.goes_to(&first), bench.goes_to(&next), "the ring alone decides");
    }
    assert_eq!(bench.engine.status().unwrap().unrecorded_flows, 1000);
    drain(&mut bench, true);
    for port in 2000..2500 {
        assert_eq!(bench.goes_to(&tcp(port).1), Err(DROP));
    }
}

#[test]
fn after_a_flood_flows_are_recorded_again() {
    let mut bench = Bench::with(3, |limits| limits.new_flows = 5);
    let mut ports = 1000..;
    let unrecorded = |bench: &Bench| bench.engine.status().unwrap().unrecorded_flows;
    // a second may end at any moment, and each processor counts for itself
    let until = |bench: &Bench, ports: &mut std::ops::RangeFrom<u16>, recorded: bool| loop {
        let (port, before) = (ports.next().unwrap(), unrecorded(bench));
        let member = bench.goes_to(&tcp(port).0).unwrap();
        if (unrecorded(bench) == before) == recorded {
            break (port, member);
        }
        if recorded {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let begun = until(&bench, &mut ports, true);
    let flooded = until(&bench, &mut ports, false);
    let after = until(&bench, &mut ports, true);
    drain(&mut bench, true);
    for (port, member) in [begun, after] {
        assert_eq!(bench.goes_to(&tcp(port).1), Ok(member));
    }
    assert_eq!(bench.goes_to(&tcp(flooded.0).1), Err(DROP));
}

/// The place of a flow in a ring of this size.
fn place(
    client: IpAddr,
    vip: IpAddr,
    ports: [u16; 2],
    protocol: u8,
    client_only: bool,
    size: usize,
) -> usize {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut key = [0; 40];
    key[..16].copy_from_slice(&octets(client));
    key[16..32].copy_from_slice(&octets(vip));
    key[32..34].copy_from_slice(&ports[0].to_be_bytes());
    key[34..36].copy_from_slice(&ports[1].to_be_bytes());
    key[36..38].copy_from_slice(&[protocol, if vip.is_ipv4() { 4 } else { 6 }]);
    ake_xdp::hash::place(&key, client_only, size).unwrap()
}

#[test]
fn a_new_flow_falls_where_the_ring_says_on_every_instance() {
    for (affinity, members) in [(Affinity::None, 3), (Affinity::ClientIp, 3), (Affinity::None, 40)] {
        let mut bench = Bench::new(members);
        bench.change(|state| state.load_balancers.values_mut().for_each(|lb| lb.affinity = affinity));
        let names: Vec<String> = bench.state.pools[&owner("nodes")].members.keys().cloned().collect();
        let shares: Vec<_> = names.iter().map(|name| Share { name, weight: 1 }).collect();
        let ring = ring::build(ring::size(shares.len()), &shares);
        let mut fell = BTreeMap::<u8, u32>::new();
        for index in 0..2000u16 {
            let (port, low) = (index.wrapping_mul(7919), index.to_be_bytes());
            let four = format!("10.{}.{}.9", low[1], low[0]);
            let six = format!("2001:db8:51:{index:x}::1");
            for (client, vip) in [(four, VIP), (six, VIP6)] {
                let frame = if vip == VIP { Frame::v4(&client, VIP) } else { Frame::v6(&client, VIP6) };
                let addresses = (client.parse().unwrap(), vip.parse().unwrap());
                let only = affinity == Affinity::ClientIp;
                let at = place(addresses.0, addresses.1, [port, 53], 17, only, ring.len());
                let expected: u8 = names[usize::from(ring[at])][1..].parse().unwrap();
                assert_eq!(bench.goes_to(&frame.udp(port, 53, b"")), Ok(expected));
                *fell.entry(expected).or_default() += 1;
            }
        }
        let fair = 4000 / u32::from(members);
        assert!(fell.values().all(|count| count.abs_diff(fair) < fair / 2), "{fell:?}");
    }
}
