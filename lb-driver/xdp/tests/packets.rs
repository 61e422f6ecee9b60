//! What the data plane does to packets, frame by frame: `BPF_PROG_TEST_RUN` on the program as it is shipped.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod frames;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use ake_xdp::{
    config::{Check, Limits},
    engine::{Engine, PutError},
    health::Checker,
    maps::DataPlane,
    store::Store,
};
use frames::{CLIENT, CLIENT6, Frame, OWN, ROUTER};
use lb_driver::{
    model::{Affinity, Endpoint, LoadBalancer, Member, Owner, Pool, Protocol, State, Version},
    vendor::xdp::{translate, wire},
};

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

const VIP: &str = "203.0.113.17";
const VIP6: &str = "2001:db8:113::17";

struct Bench {
    engine: Engine,
    state: State,
    _folder: tempfile::TempDir,
}

fn owner(object: &str) -> Owner {
    Owner::new("project", "cluster", object).unwrap()
}

fn endpoint(protocol: Protocol, port: u16) -> Endpoint {
    Endpoint { protocol, port: NonZeroU16::new(port).unwrap() }
}

fn mac(index: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, index]
}

fn member(index: u8) -> Member {
    Member {
        address: IpAddr::from([192, 168, 77, index]),
        mac: Some(lb_driver::model::MacAddr::new(mac(index)).unwrap()),
        weight: 1,
        draining: false,
    }
}

impl Bench {
    /// A balancer with a pool of so many members behind TCP 80, UDP 53 and SCTP 36412 of both VIPs.
    fn new(members: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { flows: 65_536, listeners: 64, pools: 16, members: 64, source_ranges: 64 };
        let plane = DataPlane::load(lb_driver::model::MacAddr::new(OWN).unwrap(), &limits)
            .expect("loading the data plane needs root and a kernel with XDP");
        let (reports, _) = tokio::sync::mpsc::unbounded_channel();
        let checker = Checker::new(Check::default(), reports).unwrap();
        let engine =
            Engine::start(plane, checker, Store::new(folder.path().join("state.json")), limits).unwrap();
        let members = (1..=members).map(|index| (format!("m{index}"), member(index))).collect();
        let balancer = |vip: &str| LoadBalancer {
            vip: vip.parse().unwrap(),
            listeners: [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 36412)]
                .map(|(protocol, port)| (endpoint(protocol, port), owner("nodes")))
                .into(),
            source_ranges: BTreeSet::new(),
            affinity: Affinity::None,
        };
        let state = State {
            version: Version::default(),
            pools: BTreeMap::from([(owner("nodes"), Pool { members, check: None })]),
            load_balancers: BTreeMap::from([(owner("four"), balancer(VIP)), (owner("six"), balancer(VIP6))]),
        };
        let mut bench = Self { engine, state, _folder: folder };
        bench.change(|_| {});
        bench
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut self.state);
        self.state.version.number += 1;
        assert!(self.engine.put(&translate::document(&self.state)).unwrap().changed);
    }

    fn members(&mut self, change: impl FnOnce(&mut BTreeMap<String, Member>)) {
        self.change(|state| change(&mut state.pools.get_mut(&owner("nodes")).unwrap().members));
    }

    fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        self.engine.run(frame).unwrap()
    }

    /// The member that a frame goes to; the rest of it must be as it was.
    fn goes_to(&self, frame: &[u8]) -> Result<u8, u32> {
        let (action, out) = self.run(frame);
        if action != TX {
            return Err(action);
        }
        assert_eq!(out[6..12], OWN);
        assert_eq!(out[12..], frame[12..]);
        assert_eq!(out[..5], mac(0)[..5]);
        Ok(out[5])
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = self.engine.status().unwrap().drops;
        drops.retain(|_, count| *count > 0);
        drops
    }

    fn status(&self) -> BTreeMap<String, wire::MemberStatus> {
        let status = self.engine.status().unwrap();
        let [pool] = &status.pools[..] else { panic!("one pool") };
        pool.members.iter().map(|member| (member.name.clone(), member.clone())).collect()
    }
}

/// The first packet of a flow from this client port, and one from its middle.
fn tcp(port: u16) -> (Vec<u8>, Vec<u8>) {
    let frame = Frame::v4(CLIENT, VIP);
    (frame.tcp(port, 80, frames::SYN, port.into()), frame.tcp(port, 80, frames::ACK, 9))
}

#[test]
fn only_the_ethernet_header_changes() {
    let bench = Bench::new(3);
    for frame in [Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6)] {
        for packet in [
            frame.tcp(40000, 80, frames::SYN, 1),
            frame.tcp(40000, 80, frames::ACK, 2),
            frame.udp(40000, 53, b"question"),
            frame.sctp_init(40000, 36412, 7),
        ] {
            assert!((1..=3).contains(&bench.goes_to(&packet).unwrap()));
        }
    }
    assert_eq!(bench.drops(), BTreeMap::new());
    let status = bench.engine.status().unwrap();
    let four = &status.load_balancers[0];
    let tcp = four.listeners.iter().find(|listener| listener.protocol == Protocol::Tcp).unwrap();
    assert_eq!((tcp.packets, tcp.bytes), (2, 2 * 54));
    assert_eq!(bench.status().values().map(|member| member.new_flows).sum::<u64>(), 6);
}

#[test]
fn what_is_not_ours_passes() {
    let bench = Bench::new(1);
    let frame = Frame::v4(CLIENT, VIP);
    let mut flooded = frame.udp(1, 53, b"");
    flooded[..6].copy_from_slice(&mac(9));
    let mut arp = frame.udp(1, 53, b"");
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut tagged = frame.udp(1, 53, b"");
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    let others = [
        Frame::v4(CLIENT, "192.168.77.2").tcp(1, 9512, frames::SYN, 1),
        Frame::v6(CLIENT6, "fd00:77::2").icmp6(128, b""),
        // an address that is the IPv4 VIP in disguise
        Frame::v6(CLIENT6, "::ffff:203.0.113.17").tcp(1, 80, frames::SYN, 1),
    ];
    for packet in [flooded, arp, tagged].into_iter().chain(others) {
        assert_eq!(bench.run(&packet), (PASS, packet));
    }
    assert_eq!(bench.drops(), BTreeMap::new());
}

#[test]
fn an_echo_request_to_a_vip_is_answered() {
    let bench = Bench::new(1);
    let request = Frame::v4(CLIENT, VIP).icmp(8, b"ake!");
    let (action, reply) = bench.run(&request);
    assert_eq!(action, TX);
    assert_eq!((&reply[..6], &reply[6..12]), (&ROUTER[..], &OWN[..]));
    assert_eq!(reply[22], 64, "TTL");
    assert_eq!((&reply[26..30], &reply[30..34]), (&request[30..34], &request[26..30]));
    assert_eq!(reply[34], 0, "echo reply");
    assert_eq!(reply[38..], request[38..]);
    assert_eq!(frames::sum(&reply[14..34]), 0xffff);
    assert_eq!(frames::sum(&reply[34..]), 0xffff);

    let request = Frame::v6(CLIENT6, VIP6).icmp6(128, b"ake!");
    let (action, reply) = bench.run(&request);
    assert_eq!(action, TX);
    assert_eq!(reply, {
        let mut expected = Frame::v6(VIP6, CLIENT6).icmp6(129, b"ake!");
        expected[..6].copy_from_slice(&ROUTER);
        expected[6..12].copy_from_slice(&OWN);
        expected
    });

    // a checksum whose sum carries
    for word in 0..=u16::MAX {
        if word % 251 == 0 {
            let (_, reply) = bench.run(&Frame::v4(CLIENT, VIP).icmp(8, &word.to_be_bytes()));
            assert_eq!(frames::sum(&reply[34..]), 0xffff, "{word}");
        }
    }
}

#[test]
fn what_cannot_be_balanced_is_dropped_and_counted() {
    let mut bench = Bench::new(1);
    let (four, six) = (Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6));
    let fragment = |flags: u16| {
        let mut packet = four.udp(1, 53, b"long");
        packet[20..22].copy_from_slice(&flags.to_be_bytes());
        packet
    };
    let six_with = |next: u8| {
        let mut packet = six.udp(1, 53, b"long");
        packet[20] = next;
        packet
    };
    for (reason, packets) in [
        ("fragment", vec![fragment(0x2000), fragment(0x0010), six_with(44)]),
        ("extension_header", vec![six_with(0), six_with(43), six_with(60)]),
        ("no_listener", vec![four.tcp(1, 81, frames::SYN, 1), four.tcp(1, 53, frames::SYN, 1), six_with(47)]),
        ("icmp", vec![four.icmp(3, b""), six.icmp6(1, b"")]),
        (
            "malformed",
            vec![four.tcp(1, 80, frames::SYN, 1)[..53].to_vec(), six.icmp6(128, b"")[..58].to_vec()],
        ),
    ] {
        let before = bench.drops().get(reason).copied().unwrap_or(0);
        for packet in &packets {
            assert_eq!(bench.run(packet).0, DROP, "{reason}: {packet:?}");
        }
        assert_eq!(bench.drops()[reason] - before, packets.len() as u64);
    }
    // "do not fragment" is no fragment
    assert_eq!(bench.goes_to(&fragment(0x4000)), Ok(1));
    bench.members(BTreeMap::clear);
    assert_eq!(bench.run(&tcp(1).0).0, DROP);
    assert_eq!(bench.drops()["no_member"], 1);
}

#[test]
fn no_packet_is_read_past_its_end() {
    let bench = Bench::new(1);
    let (four, six) = (Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6));
    for packet in [
        four.tcp(1, 80, frames::SYN, 1),
        six.tcp(1, 80, frames::SYN, 1),
        four.udp(1, 53, b""),
        four.icmp(8, b""),
        six.icmp6(128, b""),
    ] {
        for length in 14..packet.len() {
            assert_ne!(bench.run(&packet[..length]).0, TX, "{length} of {packet:?}");
        }
    }
    let init = four.sctp_init(1, 36412, 1);
    for length in 14..init.len() {
        let action = bench.run(&init[..length]).0;
        assert_eq!(action == TX, length >= 34 + 12, "{length}: the common header is enough");
    }
    let mut options = four.tcp(1, 80, frames::SYN, 1);
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 1]);
    assert_eq!(bench.goes_to(&options), Ok(1));
    for words in [0, 4, 15] {
        options[14] = 0x40 | words;
        assert_eq!(bench.run(&options).0, DROP);
    }
}

#[test]
fn source_ranges_let_in_what_they_name() {
    let mut bench = Bench::new(1);
    bench.change(|state| {
        let ranges = ["198.51.100.0/25", "192.0.2.7/32"].map(|range| range.parse().unwrap());
        state.load_balancers.get_mut(&owner("four")).unwrap().source_ranges = ranges.into();
        let ranges = ["2001:db8:51::/64"].map(|range| range.parse().unwrap());
        state.load_balancers.get_mut(&owner("six")).unwrap().source_ranges = ranges.into();
    });
    let from = |address: &str| match address.contains(':') {
        true => Frame::v6(address, VIP6).udp(1, 53, b""),
        false => Frame::v4(address, VIP).udp(1, 53, b""),
    };
    for inside in ["198.51.100.0", "198.51.100.127", "192.0.2.7", "2001:db8:51::9"] {
        assert_eq!(bench.goes_to(&from(inside)), Ok(1), "{inside}");
    }
    for outside in ["198.51.100.128", "192.0.2.8", "8.8.8.8", "2001:db8:52::9"] {
        assert_eq!(bench.goes_to(&from(outside)), Err(DROP), "{outside}");
    }
    assert_eq!(bench.drops(), BTreeMap::from([("source_range".to_owned(), 4)]));
    bench.change(|state| state.load_balancers.values_mut().for_each(|lb| lb.source_ranges.clear()));
    assert_eq!(bench.goes_to(&from("8.8.8.8")), Ok(1));
}

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
fn versions_go_up() {
    let mut bench = Bench::new(1);
    let (writes, states) = bench.engine.activity();
    let same = bench.engine.put(&translate::document(&bench.state)).unwrap();
    assert!(!same.changed);
    assert_eq!(bench.engine.activity(), (writes, states), "a repetition writes nothing");

    let mut other = bench.state.clone();
    other.pools.values_mut().for_each(|pool| pool.members.clear());
    let error = bench.engine.put(&translate::document(&other)).unwrap_err();
    assert!(matches!(error, PutError::Differs(_)), "{error}");
    other.version.number -= 1;
    let error = bench.engine.put(&translate::document(&other)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "version 0.0 is older than 0.1, which is held; a writer that begins anew takes a higher epoch"
    );
    assert_eq!(bench.goes_to(&tcp(1).0), Ok(1));
    bench.change(|state| state.version = Version { epoch: 1, number: 0 });
}

#[test]
fn what_does_not_fit_is_refused_and_the_state_stays() {
    let bench = Bench::new(1);
    let mut big = bench.state.clone();
    big.version.number += 1;
    let members = (0..65).map(|index| (format!("m{index}"), member(1))).collect();
    big.pools.insert(owner("big"), Pool { members, check: None });
    let error = bench.engine.put(&translate::document(&big)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "limits.members is 64: the state has more members; raise it in the configuration and restart"
    );
    assert_eq!(bench.engine.version(), Some(bench.state.version));
    assert_eq!(bench.goes_to(&tcp(1).0), Ok(1));
}
