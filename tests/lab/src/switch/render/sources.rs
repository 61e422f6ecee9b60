//! Port security: the frames that a port may send, by their source.

use ipnetwork::IpNetwork;

use super::{Sources, elements, link_local};
use crate::switch::table::Port;

/// The rules of a port's chain. `REFUSE` stands for "count and drop".
pub(super) fn rules(port: &Port, sources: &Sources) -> Vec<String> {
    if !port.admin_state_up {
        return vec!["REFUSE".to_owned()];
    }
    let mut rules = vec![
        // Whatever its address: a tenant's port does not play the DHCP server or the router.
        "ether type ip udp sport 67 udp dport 68 REFUSE".to_owned(),
        "ether type ip6 udp sport 547 udp dport 546 REFUSE".to_owned(),
        "icmpv6 type nd-router-advert REFUSE".to_owned(),
    ];
    let own = port.mac_address.to_ascii_lowercase();
    let mut by_mac = sources.clone();
    // Without an address yet a card may still ask for one, and it always has the link-local one.
    by_mac.entry(own).or_default();
    for (mac, ranges) in &mut by_mac {
        ranges.extend(link_local(mac).map(|address| IpNetwork::from(std::net::IpAddr::from(address))));
        *ranges = super::disjoint(std::mem::take(ranges));
    }
    for (mac, ranges) in &by_mac {
        if let Some(set) = elements(ranges, true) {
            rules.push(format!("ether saddr {mac} ip saddr {{ {set} }} accept"));
            rules.push(format!("ether saddr {mac} arp saddr ether {mac} arp saddr ip {{ {set} }} accept"));
        }
        // A probe for an address that it does not have yet, and DHCP.
        rules.push(format!(
            "ether saddr {mac} arp operation request arp saddr ether {mac} arp saddr ip 0.0.0.0 accept"
        ));
        rules.push(format!("ether saddr {mac} ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept"));
        if let Some(set) = elements(ranges, false) {
            // An advertisement may speak only of an address that the port has, whatever its IP source.
            for target in ranges.iter().filter_map(target) {
                rules.push(format!(
                    "ether saddr {mac} ip6 saddr {{ {set} }} icmpv6 type nd-neighbor-advert {target} accept"
                ));
            }
            rules.push(format!(
                "ether saddr {mac} ip6 saddr {{ {set} }} icmpv6 type != nd-neighbor-advert accept"
            ));
            rules.push(format!("ether saddr {mac} ip6 saddr {{ {set} }} meta l4proto != ipv6-icmp accept"));
        }
        // Multicast listeners and duplicate address detection have no source yet.
        rules.push(format!("ether saddr {mac} ip6 saddr :: icmpv6 type {{ 131, 132, 135, 143 }} accept"));
    }
    rules.push("REFUSE".to_owned());
    rules
}

/// Matches the target of a neighbor advertisement: the 16 octets that follow its first eight.
fn target(range: &IpNetwork) -> Option<String> {
    let IpNetwork::V6(range) = range else { return None };
    let (address, mask) = (range.network().to_bits(), range.mask().to_bits());
    Some(match range.prefix() {
        0 => String::new(),
        128 => format!("@th,64,128 0x{address:032x}"),
        _ => format!("@th,64,128 & 0x{mask:032x} == 0x{address:032x}"),
    })
}
