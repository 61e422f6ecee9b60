//! Frames, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const OWN: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
pub(crate) const ROUTER: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
pub(crate) const CLIENT: &str = "198.51.100.2";
pub(crate) const CLIENT6: &str = "2001:db8:51::2";
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// Where frames go from and to.
pub(crate) struct Frame {
    source: IpAddr,
    destination: IpAddr,
}

impl Frame {
    pub(crate) fn v4(source: &str, destination: &str) -> Self {
        let parse = |text: &str| IpAddr::V4(text.parse::<Ipv4Addr>().unwrap());
        Self { source: parse(source), destination: parse(destination) }
    }

    pub(crate) fn v6(source: &str, destination: &str) -> Self {
        let parse = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
        Self { source: parse(source), destination: parse(destination) }
    }

    pub(crate) fn tcp(&self, source: u16, destination: u16, flags: u8, sequence: u32) -> Vec<u8> {
        let mut header = ports(source, destination);
        header.extend(sequence.to_be_bytes());
        header.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        self.packet(6, &header)
    }

    pub(crate) fn udp(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = ports(source, destination);
        header.extend((8 + payload.len() as u16).to_be_bytes());
        header.extend([0, 0]);
        header.extend(payload);
        self.packet(17, &header)
    }

    pub(crate) fn sctp_init(&self, source: u16, destination: u16, tag: u32) -> Vec<u8> {
        let mut header = ports(source, destination);
        header.extend([0; 8]);
        header.extend([1, 0, 0, 20]);
        header.extend(tag.to_be_bytes());
        header.extend([0; 12]);
        self.packet(132, &header)
    }

    pub(crate) fn icmp(&self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        message.extend(payload);
        let check = !sum(&message);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        self.packet(1, &message)
    }

    pub(crate) fn icmp6(&self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (self.source, self.destination) else {
            panic!("ICMPv6 over IPv6")
        };
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        message.extend(payload);
        let mut summed = [&source.octets()[..], &destination.octets()[..]].concat();
        summed.extend((message.len() as u32).to_be_bytes());
        summed.extend([0, 0, 0, 58]);
        summed.extend(&message);
        let check = !sum(&summed);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        self.packet(58, &message)
    }

    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&OWN[..], &ROUTER[..]].concat();
        let length = payload.len() as u16;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend([0, 1, 0x40, 0, 61, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let check = !sum(&header);
                header[10..12].copy_from_slice(&check.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("one family"),
        }
        frame.extend(payload);
        frame
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// The ones' complement sum of 16-bit words: 0xffff over what carries a right checksum.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
