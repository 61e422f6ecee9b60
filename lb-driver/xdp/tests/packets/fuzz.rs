//! Whatever a frame holds, it is dropped, left alone, answered, or sent on with nothing but its Ethernet addresses
//! changed.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    bench::{Bench, DROP, PASS, TX, VIP, VIP6, mac},
    frames::{self, CLIENT, CLIENT6, Frame, OWN, arp, extended, fragments, tagged},
};

const MEMBERS: u8 = 3;

fn good() -> Vec<Vec<u8>> {
    let (four, six) = (Frame::v4(CLIENT, VIP), Frame::v6(CLIENT6, VIP6));
    let mut good = Vec::new();
    for frame in [&four, &six] {
        good.push(frame.tcp(40_000, 80, frames::SYN, 1));
        good.push(frame.tcp(40_000, 80, frames::ACK, 2));
        good.push(frame.udp(40_000, 53, b"question"));
        good.push(frame.sctp_init(40_000, 36_412, 7));
        good.extend(fragments(&frame.udp(40_001, 53, &[7; 64]), 9, 32));
    }
    good.push(four.icmp(8, b"ake!"));
    good.push(six.icmp6(128, b"ake!"));
    good.push(four.error(3, &four.back().tcp(80, 40_000, frames::ACK, 3)));
    good.push(six.error(2, &six.back().tcp(80, 40_000, frames::ACK, 3)));
    good.push(six.solicitation(VIP6, &[1, 1, 2, 0, 0, 0, 0, 1]));
    good.push(arp(1, CLIENT, VIP));
    good.push(extended(&six.tcp(40_002, 80, frames::SYN, 1), 60, 2));
    let tags: Vec<_> = good.iter().map(|frame| tagged(frame)).collect();
    good.extend(tags);
    good
}

/// The destination address of a frame's packet, if it has one where such frames have it.
fn destination(frame: &[u8]) -> Option<Vec<u8>> {
    let at = if frame.get(12..14)? == [0x81, 0x00] { 16 } else { 12 };
    match frame.get(at..at + 2)? {
        [0x08, 0x00] => Some(frame.get(at + 18..at + 22)?.to_vec()),
        [0x86, 0xdd] => Some(frame.get(at + 26..at + 42)?.to_vec()),
        _ => None,
    }
}

#[test]
fn fuzz_frames() {
    let bench = Bench::new(MEMBERS);
    let vips = [
        VIP.parse::<Ipv4Addr>().unwrap().octets().to_vec(),
        VIP6.parse::<Ipv6Addr>().unwrap().octets().to_vec(),
    ];
    let words: [&[u8]; 6] = [&vips[0], &vips[1], &OWN, &[0x81, 0x00], &[0x86, 0xdd], &[0, 44]];
    let members: Vec<_> = (1..=MEMBERS).map(mac).collect();
    ake_fuzz::fuzz(&good(), &words, |frame| {
        // the kernel runs no less than an Ethernet header, and no more than a page
        if !(14..=1514).contains(&frame.len()) {
            return Ok(());
        }
        let (action, out) = bench.run(frame);
        match action {
            DROP => Ok(()),
            PASS if out == frame => Ok(()),
            PASS => Err(format!("changed, and passed on: {out:02x?}")),
            TX if out[6..12] != OWN => Err(format!("sent in another's name: {out:02x?}")),
            TX if members.iter().any(|member| out[..6] == member[..]) && out[12..] == frame[12..] => {
                let to = destination(frame);
                if to.is_some_and(|to| vips.contains(&to)) {
                    Ok(())
                } else {
                    Err("sent to a member".to_owned())
                }
            }
            TX if out[..6] == frame[6..12] => Ok(()),
            _ => Err(format!("action {action}: {out:02x?}")),
        }
    });
}
