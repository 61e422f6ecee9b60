//! Datagrams in pieces, and what stands between an IPv6 header and the transport's.

use crate::{
    bench::{Bench, DROP, PASS, VIP, VIP6},
    frames::{self, CLIENT, CLIENT6, Frame},
};

#[test]
fn all_fragments_of_a_datagram_go_to_one_member() {
    let bench = Bench::new(5);
    let mut members = std::collections::BTreeSet::new();
    for (id, port) in (0..100).zip(1000..) {
        for frame in [Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6)] {
            let datagram = frame.udp(port, 53, &[7; 3000]);
            let pieces = frames::fragments(&datagram, id, 1024);
            assert_eq!(pieces.len(), 3);
            let went: Vec<_> = pieces.iter().map(|piece| bench.goes_to(piece).unwrap()).collect();
            assert_eq!(went, [went[0]; 3]);
            assert_eq!(bench.goes_to(&frame.udp(port, 53, b"")), Ok(went[0]), "and so does the flow");
            members.insert(went[0]);
        }
    }
    assert_eq!(members.len(), 5);
    let status = bench.engine.status().unwrap();
    for balancer in status.load_balancers {
        let udp = balancer.listeners.into_iter().find(|listener| listener.port.get() == 53).unwrap();
        assert_eq!(udp.packets, 400, "every fragment is counted");
    }
}

#[test]
fn a_fragment_that_comes_before_the_first_is_dropped() {
    let mut bench = Bench::new(2);
    for frame in [Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6)] {
        let pieces = frames::fragments(&frame.udp(1, 53, &[7; 64]), 1, 24);
        let other = frames::fragments(&frame.udp(1, 53, &[7; 64]), 2, 24);
        let before = bench.drops().get("fragment").copied().unwrap_or(0);
        assert_eq!(bench.run(&pieces[1]).0, DROP);
        bench.goes_to(&pieces[0]).unwrap();
        bench.goes_to(&pieces[1]).unwrap();
        assert_eq!(bench.run(&other[1]).0, DROP, "of another datagram");
        assert_eq!(bench.drops()["fragment"], before + 2);
        // the member is gone: its datagram is, too
        bench.members(|members| members.values_mut().for_each(|member| member.mac = None));
        assert_eq!(bench.run(&pieces[2]).0, DROP);
        bench.members(|members| {
            for (index, member) in (1..).zip(members.values_mut()) {
                member.mac = crate::bench::member(index).mac;
            }
        });
        bench.goes_to(&pieces[2]).unwrap();
    }
    // a ping in pieces, and a first piece that ends before the ports do
    let four = Frame::v4(CLIENT, VIP);
    assert_eq!(bench.run(&frames::fragments(&four.icmp(8, &[7; 64]), 3, 24)[0]).0, DROP);
    assert_eq!(bench.run(&frames::fragments(&four.tcp(1, 80, frames::SYN, 1), 4, 8)[0]).0, DROP);
    assert_eq!(bench.drops()["malformed"], 1);
    // fragments for others are the kernel's
    for frame in [Frame::v4(CLIENT, "192.168.77.2"), Frame::v6(CLIENT6, "fd00:77::2")] {
        for piece in frames::fragments(&frame.udp(1, 53, &[7; 64]), 5, 24) {
            assert_eq!(bench.run(&piece), (PASS, piece.clone()));
        }
    }
    // one that is whole says so: RFC 6946
    let six = Frame::v6(CLIENT6, VIP6);
    let atomic = frames::fragments(&six.udp(1, 53, &[7; 8]), 6, 64).remove(0);
    assert_eq!(bench.goes_to(&atomic), bench.goes_to(&six.udp(1, 53, b"")));
}

#[test]
fn options_of_ipv6_are_stepped_over() {
    let bench = Bench::new(3);
    let six = Frame::v6(CLIENT6, VIP6);
    let plain = six.tcp(1, 80, frames::SYN, 1);
    let member = bench.goes_to(&plain).unwrap();
    for kind in [0, 60] {
        for units in [1, 2, 32] {
            assert_eq!(bench.goes_to(&frames::extended(&plain, kind, units)), Ok(member), "{kind} {units}");
        }
    }
    let mut many = plain.clone();
    for _ in 0..4 {
        many = frames::extended(&many, 60, 2);
        assert_eq!(bench.goes_to(&many), Ok(member));
    }
    for refused in
        [frames::extended(&many, 0, 1), frames::extended(&plain, 43, 1), frames::extended(&plain, 51, 2)]
    {
        let before = bench.drops().get("extension_header").copied().unwrap_or(0);
        assert_eq!(bench.run(&refused).0, DROP);
        assert_eq!(bench.drops()["extension_header"], before + 1);
    }
    // options before and after a fragment's header
    let datagram = frames::extended(&six.udp(7, 53, &[7; 64]), 60, 1);
    let pieces = frames::fragments(&datagram, 1, 40);
    let went: Vec<_> = pieces.iter().map(|piece| bench.goes_to(&frames::extended(piece, 0, 1))).collect();
    assert_eq!(went, vec![bench.goes_to(&six.udp(7, 53, b"")); 2]);
    // nothing is read past the end
    let long = frames::extended(&plain, 0, 4);
    for length in 54..long.len() {
        assert_eq!(bench.run(&long[..length]).0, DROP, "{length}");
    }
}
