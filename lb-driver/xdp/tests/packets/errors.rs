//! ICMP and ICMPv6 errors about what members sent: they go to the member whose packet it was, or path-MTU discovery
//! through a VIP would not work.

use std::collections::BTreeMap;

use lb_driver::model::Affinity;

use crate::{
    bench::{Bench, DROP, PASS, VIP, VIP6, owner},
    frames::{self, CLIENT, CLIENT6, Frame},
};

/// A router somewhere on the way to the client.
const HOP: &str = "192.0.2.99";
const HOP6: &str = "2001:db8:99::1";

/// Frames from the client, and errors about answers to it.
fn paths() -> [(Frame, Frame, &'static [u8]); 2] {
    [
        (Frame::v4(CLIENT, VIP), Frame::v4(HOP, VIP), &[3, 11, 12]),
        (Frame::v6(CLIENT6, VIP6), Frame::v6(HOP6, VIP6), &[1, 2, 3, 4]),
    ]
}

#[test]
fn an_error_follows_the_flow_that_it_is_about() {
    let mut bench = Bench::new(5);
    let mut fell = BTreeMap::<u8, u32>::new();
    for (client, hop, kinds) in paths() {
        let opened: Vec<_> = (1000..1050)
            .flat_map(|port| {
                let back = client.back();
                [
                    (client.tcp(port, 80, frames::SYN, 1), back.tcp(80, port, frames::ACK, 9)),
                    (client.udp(port, 53, b"question"), back.udp(53, port, b"answer")),
                    (client.sctp_init(port, 36412, 7), back.sctp_init(36412, port, 7)),
                ]
            })
            .map(|(packet, answer)| (bench.goes_to(&packet).unwrap(), answer))
            .collect();
        let check = |bench: &Bench| {
            for (member, answer) in &opened {
                for kind in kinds {
                    assert_eq!(bench.goes_to(&hop.error(*kind, answer)), Ok(*member));
                    // as much of it as must be quoted: the header and eight bytes
                    let header = if answer[12] == 0x08 { 34 } else { 54 };
                    assert_eq!(bench.goes_to(&hop.error(*kind, &answer[..header + 8])), Ok(*member));
                    assert_eq!(bench.run(&hop.error(*kind, &answer[..header + 7])).0, DROP);
                }
            }
        };
        check(&bench);
        // the ring changes, flows stay, and errors with them
        bench.members(|members| members.values_mut().skip(2).for_each(|member| member.draining = true));
        check(&bench);
        bench.members(|members| members.values_mut().for_each(|member| member.draining = false));
        opened.iter().for_each(|(member, _)| *fell.entry(*member).or_default() += 1);
    }
    assert_eq!(fell.len(), 5);
    assert_eq!(bench.drops().into_keys().collect::<Vec<_>>(), ["icmp"]);
}

#[test]
fn without_an_entry_an_error_goes_by_the_ring() {
    for affinity in [Affinity::None, Affinity::ClientIp] {
        let (one, other) = (&mut Bench::new(5), &mut Bench::new(5));
        for bench in [&mut *one, &mut *other] {
            bench.change(|state| {
                state.version.number += 1;
                state.load_balancers.values_mut().for_each(|lb| lb.affinity = affinity);
            });
        }
        for (client, hop, kinds) in paths() {
            for port in 1..200 {
                let member = one.goes_to(&client.udp(port, 53, b"question"));
                let error = hop.error(kinds[0], &client.back().udp(53, port, b"answer"));
                assert_eq!(other.goes_to(&error), member);
            }
        }
        let begun: u64 = other.status().values().map(|member| member.new_flows).sum();
        assert_eq!(begun, 0, "an error begins no flow");
    }
}

#[test]
fn what_is_no_error_about_a_flow_of_the_vip_is_dropped() {
    let mut bench = Bench::new(1);
    let (client, hop) = (Frame::v4(CLIENT, VIP), Frame::v4(HOP, VIP));
    let answer = client.back().udp(53, 1, &[7; 64]);
    let later = frames::fragments(&answer, 1, 32).remove(1);
    for error in [
        // about what another address sent, a port that nobody listens on, a protocol without ports, another error
        hop.error(3, &Frame::v4("203.0.113.18", CLIENT).udp(53, 1, b"")),
        hop.error(3, &client.back().udp(54, 1, b"")),
        hop.error(3, &client.back().packet(47, &[0; 8])),
        hop.error(3, &client.back().icmp(0, b"")),
        hop.error(3, &later),
        // a source quench, a redirect
        hop.error(4, &answer),
        hop.error(5, &answer),
        Frame::v6(HOP6, VIP6).error(2, &Frame::v6("2001:db8:113::18", CLIENT6).udp(53, 1, b"")),
        Frame::v6(HOP6, VIP6).error(137, &Frame::v6(VIP6, CLIENT6).udp(53, 1, b"")),
    ] {
        let before = bench.drops().get("icmp").copied().unwrap_or(0);
        assert_eq!(bench.run(&error).0, DROP);
        assert_eq!(bench.drops()["icmp"], before + 1, "{error:?}");
    }
    let whole = hop.error(3, &answer);
    for length in 34..whole.len().min(34 + 8 + 28) {
        assert_eq!(bench.run(&whole[..length]).0, DROP, "{length}");
    }
    // the client must be one that is let in, wherever the error comes from
    bench.change(|state| {
        let ranges = ["198.51.100.0/25"].map(|range| range.parse().unwrap());
        state.load_balancers.get_mut(&owner("four")).unwrap().source_ranges = ranges.into();
    });
    assert_eq!(bench.goes_to(&whole), Ok(1));
    let stranger = Frame::v4(VIP, "192.0.2.7").udp(53, 1, b"");
    assert_eq!(bench.run(&hop.error(3, &stranger)).0, DROP);
    assert_eq!(bench.drops()["source_range"], 1);
    bench.members(BTreeMap::clear);
    assert_eq!(bench.run(&whole).0, DROP);
    assert_eq!(bench.drops()["no_member"], 1);
    // an error about what the balancer itself sent is the kernel's
    let own =
        Frame::v4(HOP, "192.168.77.2").error(3, &Frame::v4("192.168.77.2", "192.168.77.21").udp(1, 2, b""));
    assert_eq!(bench.run(&own), (PASS, own.clone()));
}
