//! What the program in `bpf/` and user space share: `bpf/layout.h` in bytes.
//!
//! Keys and values are byte arrays, so that no type has to promise the kernel a memory layout.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
};

use ipnetwork::IpNetwork;
use lb_driver::model::{Endpoint, MacAddr, Protocol};

use crate::plan;

/// `struct listener_key`.
pub type ListenerKey = [u8; 20];
/// `struct listener`.
pub type Listener = [u8; 20];
/// `struct vip_key`.
pub type VipKey = [u8; 20];
/// `struct source_key` without its prefix length.
pub type SourceKey = [u8; 20];
/// `struct chunk`.
pub type Chunk = [u8; 512];
/// `struct member`.
pub type Member = [u8; 12];
/// `struct flow_key`.
pub type FlowKey = [u8; 40];
/// `struct told` behind its key: how a flow is told of.
pub type Flow = [u8; 16];
/// `struct fragment_key`.
pub type FragmentKey = [u8; 40];
/// `struct fragment`.
pub type Fragment = [u8; 12];
/// `struct rate`: window, flows in it, flows that were not recorded.
pub type Rate = [u64; 3];
/// `struct control`: flags and epoch.
pub type Control = [u32; 2];
/// `struct port_drop_key`.
pub type PortDropKey = [u8; 24];
/// `struct traffic`.
pub type Traffic = [u64; 2];

/// `VIP_ON_LINK`.
pub const VIP_ON_LINK: u32 = 1;
/// `CONTROL_STANDBY`.
pub const CONTROL_STANDBY: u32 = 1;

/// Slots of a ring in one chunk.
pub const CHUNK_SLOTS: usize = 254;

/// Why packets are dropped, in the order of `enum drop`.
pub const DROPS: [&str; 7] =
    ["malformed", "fragment", "extension_header", "no_listener", "source_range", "no_member", "icmp"];

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The key of a VIP's port.
pub fn listener_key(vip: IpAddr, endpoint: Endpoint) -> ListenerKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&octets(vip));
    key[16..18].copy_from_slice(&endpoint.port.get().to_be_bytes());
    key[18] = endpoint.protocol.number();
    key[19] = family(vip);
    key
}

/// What stands for a VIP's ports that have no listener.
pub fn no_listener_key(vip: IpAddr) -> ListenerKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&octets(vip));
    key[19] = family(vip);
    key
}

/// The key of a port's drops for the reason at this place of [`DROPS`].
pub fn port_drop_key(port: ListenerKey, reason: usize) -> PortDropKey {
    let mut key = [0; 24];
    key[..20].copy_from_slice(&port);
    key[20..].copy_from_slice(&u32::try_from(reason).unwrap_or(u32::MAX).to_ne_bytes());
    key
}

/// A VIP's port.
pub fn listener(listener: &plan::Listener) -> Listener {
    let plan::Listener { id, ring, acl, terms, client_ip } = *listener;
    let mut value = [0; 20];
    for (place, word) in value.chunks_exact_mut(4).zip([id, ring, acl, terms, client_ip.into()]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    value
}

/// Where a packet was dropped, and the place of the reason in [`DROPS`]. A VIP's drops that no listener
/// saw have no endpoint.
pub fn port_drop(key: &PortDropKey) -> (IpAddr, Option<Endpoint>, usize) {
    let mut octets = [0; 16];
    octets.copy_from_slice(&key[..16]);
    let address = Ipv6Addr::from(octets);
    let vip = if key[19] == 4 { address.to_canonical() } else { IpAddr::V6(address) };
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == key[18]);
    let port = NonZeroU16::new(u16::from_be_bytes([key[16], key[17]]));
    let reason = u32::from_ne_bytes([key[20], key[21], key[22], key[23]]);
    let endpoint = protocol.zip(port).map(|(protocol, port)| Endpoint { protocol, port });
    (vip, endpoint, usize::try_from(reason).unwrap_or(usize::MAX))
}

/// The key of a VIP.
pub fn vip_key(vip: IpAddr) -> VipKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&octets(vip));
    key[16..].copy_from_slice(&u32::from(family(vip)).to_ne_bytes());
    key
}

/// A source range of an access list: the length of its prefix, and the rest of the key.
pub fn source_key(acl: u32, range: IpNetwork) -> (u32, SourceKey) {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&acl.to_ne_bytes());
    let (skipped, network) = match range.network() {
        IpAddr::V4(v4) => (96, v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => (0, v6),
    };
    key[4..].copy_from_slice(&Ipv6Addr::octets(&network));
    (32 + skipped + u32::from(range.prefix()), key)
}

/// How a flow is told of: slot and generation of its member, and its mark (the tag of the packet that opened it, whether it
/// was seen again, its age). Whom its port lets in the first packet that comes looks up.
pub fn flow(slot: u16, generation: u32, mark: u32) -> Flow {
    let mut value = [0; 16];
    value[..4].copy_from_slice(&u32::from(slot).to_ne_bytes());
    value[4..8].copy_from_slice(&generation.to_ne_bytes());
    value[8..12].copy_from_slice(&mark.to_ne_bytes());
    value
}

/// Slot, generation and mark of a flow.
pub fn flow_owner(value: &Flow) -> (u32, u32, u32) {
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&value[at..at + 4]);
        u32::from_ne_bytes(bytes)
    };
    (word(0), word(4), word(8))
}

/// A ring in chunks; one that is empty is a chunk without slots.
pub fn chunks(slots: &[u16]) -> Vec<Chunk> {
    let size = u32::try_from(slots.len()).unwrap_or(0).to_ne_bytes();
    let chunk = |slots: &[u16]| {
        let mut chunk = [0; 512];
        chunk[..4].copy_from_slice(&size);
        for (place, slot) in chunk[4..].chunks_exact_mut(2).zip(slots) {
            place.copy_from_slice(&slot.to_ne_bytes());
        }
        chunk
    };
    if slots.is_empty() {
        return vec![chunk(&[])];
    }
    slots.chunks(CHUNK_SLOTS).map(chunk).collect()
}

/// A member's slot; without a MAC address it is that of one that is down.
pub fn member(mac: Option<MacAddr>, well: bool, generation: u32) -> Member {
    let mut value = [0; 12];
    let flags: u16 = match (mac, well) {
        (Some(_), true) => 1,
        (Some(_), false) => 1 | 4,
        (None, _) => 2,
    };
    if let Some(mac) = mac {
        value[..6].copy_from_slice(&mac.octets());
    }
    value[6..8].copy_from_slice(&flags.to_ne_bytes());
    value[8..].copy_from_slice(&generation.to_ne_bytes());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_fills_chunks() {
        let slots: Vec<u16> = (0..257).collect();
        let chunks = chunks(&slots);
        assert_eq!(chunks.len(), 2);
        assert_eq!(chunks[1][..4], 257u32.to_ne_bytes());
        assert_eq!(chunks[1][4..6], 254u16.to_ne_bytes());
        assert_eq!(super::chunks(&[])[0], [0; 512]);
    }

    #[test]
    fn a_range_of_ipv4_is_one_of_mapped_addresses() {
        let (prefix, key) = source_key(7, "198.51.100.9/24".parse().unwrap());
        assert_eq!(prefix, 32 + 96 + 24);
        assert_eq!(key[14..], [0xff, 0xff, 198, 51, 100, 0]);
    }
}
