//! What is said, in bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_driver::model::MacAddr;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Of `ff02::1`, every host of the link.
const EVERYBODY: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// What is known of the address before counts no more (RFC 4861, section 4.4).
const OVERRIDE: u8 = 0x20;

/// Tells every host of the link that an address is at `own`.
pub(super) fn announcement(vip: IpAddr, own: MacAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => arp(vip, own.octets()),
        IpAddr::V6(vip) => advertisement(vip, own.octets()),
    }
}

/// The group that solicitations for an address are sent to (RFC 4291, section 2.7.1).
pub(super) fn group(vip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = vip.octets();
    let last = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), last)
}

/// The address that an ICMPv6 message solicits.
pub(super) fn solicited(message: &[u8]) -> Option<Ipv6Addr> {
    if message.get(..2)? != [SOLICITATION, 0] {
        return None;
    }
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    Some(target.into())
}

/// An announcement by RFC 5227, section 3: a request for one's own address.
fn arp(vip: Ipv4Addr, own: [u8; 6]) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &own, &[0x08, 0x06]].concat();
    // Ethernet, IPv4, lengths of both, request
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend(vip.octets());
    frame.extend([0; 6]);
    frame.extend(vip.octets());
    frame
}

/// An unsolicited advertisement by RFC 4861, section 7.2.6.
fn advertisement(vip: Ipv6Addr, own: [u8; 6]) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(vip.octets());
    // its link-layer address, in units of 8 bytes
    message.extend([2, 1]);
    message.extend(own);
    let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
    let pseudo = [&vip.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    let check = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = [&EVERYBODY[..], &own, &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(vip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> MacAddr {
        "fa:16:3e:00:00:02".parse().unwrap()
    }

    #[test]
    fn an_announcement_asks_for_ones_own_address() {
        let frame = announcement("203.0.113.17".parse().unwrap(), own());
        let own = own().octets();
        assert_eq!(frame.len(), 42);
        assert_eq!((&frame[..6], &frame[6..12], &frame[12..14]), (&[0xff; 6][..], &own[..], &[8, 6][..]));
        assert_eq!(frame[20..22], [0, 1]);
        assert_eq!((&frame[22..28], &frame[28..32]), (&own[..], &[203, 0, 113, 17][..]));
        assert_eq!(frame[38..42], frame[28..32]);
    }

    #[test]
    fn an_advertisement_is_whole() {
        let vip: Ipv6Addr = "2001:db8:113::17".parse().unwrap();
        let frame = announcement(vip.into(), own());
        assert_eq!(frame.len(), 86);
        assert_eq!((frame[20], frame[21]), (58, 255));
        assert_eq!(frame[22..38], vip.octets());
        let message = &frame[54..];
        assert_eq!((message[0], message[4]), (136, 0x20));
        assert_eq!(message[24..], [&[2, 1][..], &own().octets()].concat());
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], message].concat();
        assert_eq!(checksum(&pseudo), 0, "with its checksum the sum is whole");
    }

    #[test]
    fn who_is_solicited_is_read() {
        let vip: Ipv6Addr = "2001:db8:113::17".parse().unwrap();
        assert_eq!(group(vip), "ff02::1:ff00:17".parse::<Ipv6Addr>().unwrap());
        let message = [&[135, 0, 1, 2, 0, 0, 0, 0][..], &vip.octets()].concat();
        assert_eq!(solicited(&message), Some(vip));
        assert_eq!(solicited(&message[..23]), None);
        assert_eq!(solicited(&[&[136][..], &message[1..]].concat()), None);
        assert_eq!(solicited(&[]), None);
    }
}
