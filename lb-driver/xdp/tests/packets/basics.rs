//! What becomes of a packet.

use std::collections::BTreeMap;

use lb_driver::model::Protocol;

use crate::{
    bench::{Bench, DROP, PASS, TX, VIP, VIP6, mac, owner, tcp},
    frames::{self, CLIENT, CLIENT6, Frame, OWN, ROUTER},
};

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
    tagged[12..14].copy_from_slice(&[0x88, 0xa8]);
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
        ("extension_header", vec![six_with(43), six_with(51)]),
        ("no_listener", vec![four.tcp(1, 81, frames::SYN, 1), four.tcp(1, 53, frames::SYN, 1), six_with(47)]),
        ("icmp", vec![four.icmp(13, b""), four.icmp(5, b""), six.icmp6(130, b""), six.icmp6(137, b"")]),
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
fn drops_are_counted_where_they_happen() {
    let mut bench = Bench::new(1);
    bench.change(|state| {
        let ranges = ["198.51.100.0/25"].map(|range| range.parse().unwrap());
        state.load_balancers.get_mut(&owner("four")).unwrap().source_ranges = ranges.into();
    });
    let (inside, outside) = (Frame::v4(CLIENT, VIP), Frame::v4("192.0.2.1", VIP));
    for packet in [
        outside.tcp(1, 80, frames::SYN, 1),
        outside.udp(1, 53, b""),
        outside.udp(2, 53, b""),
        inside.tcp(1, 81, frames::SYN, 1),
        Frame::v6(CLIENT6, VIP6).tcp(1, 81, frames::SYN, 1),
    ] {
        assert_eq!(bench.run(&packet).0, DROP);
    }
    let told = |bench: &Bench| {
        let mut told = BTreeMap::new();
        for balancer in bench.engine.status().unwrap().load_balancers {
            let ports =
                balancer.listeners.into_iter().map(|l| (format!("{}/{}", l.protocol, l.port), l.drops));
            for (port, drops) in ports.chain([("elsewhere".to_owned(), balancer.drops)]) {
                for (reason, count) in drops {
                    told.insert(format!("{} {port} {reason}", balancer.vip), count);
                }
            }
        }
        told
    };
    let expected = [
        (format!("{VIP} TCP/80 source_range"), 1),
        (format!("{VIP} UDP/53 source_range"), 2),
        (format!("{VIP} elsewhere no_listener"), 1),
        (format!("{VIP6} elsewhere no_listener"), 1),
    ];
    assert_eq!(told(&bench), BTreeMap::from(expected.clone()));

    // what goes takes its counts along
    let taken = bench.state.load_balancers[&owner("four")].clone();
    bench.change(|state| state.load_balancers.retain(|name, _| *name != owner("four")));
    bench.change(|state| state.load_balancers.extend([(owner("four"), taken)]));
    assert_eq!(told(&bench), BTreeMap::from_iter(expected.into_iter().skip(3)));
}

#[test]
fn a_vlan_tag_stays() {
    let bench = Bench::new(3);
    let (four, six) = (Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6));
    let datagram = four.udp(9, 53, &[7; 64]);
    for packet in [
        four.tcp(1, 80, frames::SYN, 1),
        four.tcp(1, 80, frames::ACK, 2),
        six.udp(1, 53, b"question"),
        four.sctp_init(1, 36412, 7),
        four.icmp(8, b"ake!"),
        six.icmp6(128, b"ake!"),
        four.error(3, &four.back().tcp(80, 1, frames::ACK, 1)),
        frames::arp(1, "192.168.77.1", VIP),
        six.solicitation(VIP6, &[1, 1, 0xfa, 0x16, 0x3e, 0, 0, 1]),
        four.tcp(1, 81, frames::SYN, 1),
        Frame::v4(CLIENT, "192.168.77.2").icmp(8, b""),
    ]
    .into_iter()
    .chain(frames::fragments(&datagram, 1, 32))
    {
        let (action, out) = bench.run(&packet);
        assert_eq!(bench.run(&frames::tagged(&packet)), (action, frames::tagged(&out)));
        // two tags are none of ours
        let twice = frames::tagged(&frames::tagged(&packet));
        assert_eq!(bench.run(&twice), (PASS, twice));
    }
    assert_eq!(bench.run(&frames::tagged(&datagram)[..17]).0, PASS);
}
