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

    /// What the receiver of this frame's packets answers.
    pub(crate) fn back(&self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    /// An ICMP or ICMPv6 error about a frame: what both quote of it is all of its packet.
    pub(crate) fn error(&self, kind: u8, about: &[u8]) -> Vec<u8> {
        if self.source.is_ipv4() { self.icmp(kind, &about[14..]) } else { self.icmp6(kind, &about[14..]) }
    }

    /// A neighbour's solicitation for an address, sent to that address itself or to its group.
    pub(crate) fn solicitation(&self, target: &str, options: &[u8]) -> Vec<u8> {
        let target = target.parse::<Ipv6Addr>().unwrap().octets();
        let mut message = self.icmp6(135, &[&target, options].concat());
        message[21] = 255;
        message[54 + 4..54 + 8].fill(0);
        message[54 + 2..54 + 4].fill(0);
        let check = !self.sum6(&message[54..]);
        message[54 + 2..54 + 4].copy_from_slice(&check.to_be_bytes());
        message
    }

    /// Over an ICMPv6 message and its pseudo-header; 0xffff where the checksum is right.
    pub(crate) fn sum6(&self, message: &[u8]) -> u16 {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (self.source, self.destination) else {
            panic!("ICMPv6 over IPv6")
        };
        let mut summed = [&source.octets()[..], &destination.octets()[..]].concat();
        summed.extend((message.len() as u32).to_be_bytes());
        summed.extend([0, 0, 0, 58]);
        summed.extend(message);
        sum(&summed)
    }

    pub(crate) fn icmp(&self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        message.extend(payload);
        let check = !sum(&message);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        self.packet(1, &message)
    }

    pub(crate) fn icmp6(&self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        message.extend(payload);
        let check = !self.sum6(&message);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        self.packet(58, &message)
    }

    pub(crate) fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
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

/// The frame in a VLAN.
pub(crate) fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00, 0x60, 0x2a], &frame[12..]].concat()
}

/// An ARP message to everybody: operation, sender, target.
pub(crate) fn arp(operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let head = [&[0xff; 6][..], &ROUTER, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]].concat();
    [&head[..], &ROUTER, &octets(sender), &[0; 6], &octets(target)].concat()
}

/// The fragments of a frame's datagram, each with so many bytes of it, a multiple of 8.
pub(crate) fn fragments(frame: &[u8], id: u8, size: usize) -> Vec<Vec<u8>> {
    assert_eq!(size % 8, 0);
    let four = frame[12] == 0x08;
    let (head, payload) = frame.split_at(if four { 34 } else { 54 });
    let pieces: Vec<&[u8]> = payload.chunks(size).collect();
    let piece = |(index, piece): (usize, &&[u8])| {
        let more = index + 1 < pieces.len();
        let mut head = head.to_vec();
        if four {
            let offset = (index * size / 8) as u16 | if more { 0x2000 } else { 0 };
            head[18..20].copy_from_slice(&[0, id]);
            head[20..22].copy_from_slice(&offset.to_be_bytes());
            head[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            head[24..26].fill(0);
            let check = !sum(&head[14..34]);
            head[24..26].copy_from_slice(&check.to_be_bytes());
        } else {
            let offset = (index * size) as u16 | u16::from(more);
            let next = std::mem::replace(&mut head[20], 44);
            head[18..20].copy_from_slice(&(8 + piece.len() as u16).to_be_bytes());
            head.extend([next, 0]);
            head.extend(offset.to_be_bytes());
            head.extend([0, 0, 0, id]);
        }
        head.extend_from_slice(piece);
        head
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// An IPv6 frame with an extension header of so many units of 8 bytes before what follows.
pub(crate) fn extended(frame: &[u8], kind: u8, units: u8) -> Vec<u8> {
    let mut head = frame[..54].to_vec();
    let next = std::mem::replace(&mut head[20], kind);
    let length = (frame.len() - 54 + 8 * usize::from(units)) as u16;
    head[18..20].copy_from_slice(&length.to_be_bytes());
    head.extend([next, units - 1]);
    head.resize(54 + 8 * usize::from(units), 0);
    head.extend(&frame[54..]);
    head
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
