//! From Neutron's table to one transaction of nftables. Pure.
//!
//! Table `bridge ake`: chain `check` (prerouting) holds every frame against the port it came from; chain `forward` asks
//! the security groups of the sender and of the receiver. Connection tracking knows no bridge, so that table `inet
//! ake`, which sees the same packet in between, notes the connection's state in the packet's mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv6Addr;

use ipnetwork::IpNetwork;

use super::Drop;
use super::table::{Port, Table};
use crate::network::INFRASTRUCTURE;

mod groups;
mod sources;

/// The name of our table in every family.
pub const TABLE: &str = "ake";

/// What no rule can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an address or a range.
    #[error("port {port}: {field} {value:?}: expected an address or a range of addresses")]
    Address {
        /// The port.
        port: String,
        /// Where the value stood.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// Not a MAC address.
    #[error("port {port}: mac_address {value:?}: expected six octets in hexadecimal")]
    Mac {
        /// The port.
        port: String,
        /// The value.
        value: String,
    },
    /// A field of a security group's rule has a value that is not known here.
    #[error("security group rule {rule}: {field} {value:?}: expected {expected}")]
    Rule {
        /// The rule.
        rule: String,
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// What a port may send from: addresses and ranges by MAC address.
pub(crate) type Sources = BTreeMap<String, Vec<IpNetwork>>;

/// The transaction that replaces the rules for the bridge ports `before` by those of `table`.
pub fn render(before: &BTreeSet<String>, table: &Table) -> Result<String, Error> {
    let mut text = String::from(FRAME);
    let wanted: BTreeMap<String, &Port> = table.ports.iter().map(|port| (port.tap(), port)).collect();
    for gone in before.iter().filter(|tap| !wanted.contains_key(*tap)) {
        for kind in [Drop::Spoof, Drop::Egress, Drop::Ingress] {
            let name = kind.counter(gone);
            line(&mut text, format_args!("add chain bridge {TABLE} {name}"));
            line(&mut text, format_args!("delete chain bridge {TABLE} {name}"));
            line(&mut text, format_args!("add counter bridge {TABLE} {name}"));
            line(&mut text, format_args!("delete counter bridge {TABLE} {name}"));
        }
    }
    for port in INFRASTRUCTURE {
        for map in ["sources", "ingress"] {
            line(&mut text, format_args!("add element bridge {TABLE} {map} {{ \"{port}\" : accept }}"));
        }
    }
    let members = groups::members(table)?;
    for (tap, port) in &wanted {
        if port.admin_state_up && !port.port_security_enabled {
            for map in ["sources", "ingress"] {
                line(&mut text, format_args!("add element bridge {TABLE} {map} {{ \"{tap}\" : accept }}"));
            }
            continue;
        }
        let sources = sources_of(port)?;
        for (map, kind, rules) in [
            ("sources", Drop::Spoof, sources::rules(port, &sources)),
            ("egress", Drop::Egress, groups::rules(table, port, groups::Side::Egress, &members)?),
            ("ingress", Drop::Ingress, groups::rules(table, port, groups::Side::Ingress, &members)?),
        ] {
            let name = kind.counter(tap);
            line(&mut text, format_args!("add counter bridge {TABLE} {name}"));
            line(&mut text, format_args!("add chain bridge {TABLE} {name}"));
            for rule in rules {
                let rule = rule.replace("REFUSE", &format!("counter name \"{name}\" drop"));
                line(&mut text, format_args!("add rule bridge {TABLE} {name} {rule}"));
            }
            line(&mut text, format_args!("add element bridge {TABLE} {map} {{ \"{tap}\" : jump {name} }}"));
        }
    }
    text.push_str(BASE_RULES);
    Ok(text)
}

/// Makes what is not there yet and empties what is; counters keep their values.
const FRAME: &str = "\
add table inet ake
add chain inet ake track { type filter hook prerouting priority mangle; policy accept; }
flush chain inet ake track
add rule inet ake track ct state established,related meta mark set 1
add rule inet ake track ct state new meta mark set 2
add rule inet ake track ct state invalid meta mark set 3
add table bridge ake
add map bridge ake sources { type ifname : verdict; }
add map bridge ake egress { type ifname : verdict; }
add map bridge ake ingress { type ifname : verdict; }
add counter bridge ake stranger
add chain bridge ake check { type filter hook prerouting priority -300; policy drop; }
add chain bridge ake forward { type filter hook forward priority 0; policy drop; }
flush map bridge ake sources
flush map bridge ake egress
flush map bridge ake ingress
flush table bridge ake
";

/// A frame of a bridge port that Neutron does not know is dropped, and so is one for it.
const BASE_RULES: &str = "\
add rule bridge ake check iifname vmap @sources
add rule bridge ake check counter name \"stranger\" drop
add rule bridge ake forward ether type arp accept
add rule bridge ake forward iifname vmap @egress
add rule bridge ake forward oifname vmap @ingress
";

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{words}");
}

/// The addresses and ranges a port may send from: its own and its allowed address pairs.
pub(crate) fn sources_of(port: &Port) -> Result<Sources, Error> {
    let own = mac(port, &port.mac_address)?;
    let mut sources = Sources::new();
    for ip in &port.fixed_ips {
        sources.entry(own.clone()).or_default().push(range(port, "fixed_ips", &ip.ip_address)?);
    }
    for pair in &port.allowed_address_pairs {
        let mac = pair.mac_address.as_ref().map_or(Ok(own.clone()), |given| mac(port, given))?;
        sources.entry(mac).or_default().push(range(port, "allowed_address_pairs", &pair.ip_address)?);
    }
    Ok(sources.into_iter().map(|(mac, ranges)| (mac, disjoint(ranges))).collect())
}

fn range(port: &Port, field: &'static str, value: &str) -> Result<IpNetwork, Error> {
    parse_range(value).ok_or_else(|| Error::Address { port: port.id.clone(), field, value: value.to_owned() })
}

/// A range without the bits behind its prefix.
pub(crate) fn parse_range(value: &str) -> Option<IpNetwork> {
    let parsed: IpNetwork = value.parse().ok()?;
    IpNetwork::new(parsed.network(), parsed.prefix()).ok()
}

fn mac(port: &Port, value: &str) -> Result<String, Error> {
    let octets: Vec<&str> = value.split(':').collect();
    let right = octets.len() == 6
        && octets.iter().all(|octet| octet.len() == 2 && octet.chars().all(|c| c.is_ascii_hexdigit()));
    if right {
        Ok(value.to_ascii_lowercase())
    } else {
        Err(Error::Mac { port: port.id.clone(), value: value.to_owned() })
    }
}

/// The same addresses in ranges of which none holds another: a set of intervals takes no overlap.
pub(crate) fn disjoint(mut ranges: Vec<IpNetwork>) -> Vec<IpNetwork> {
    ranges.sort_by_key(|range| (range.prefix(), range.ip()));
    let mut kept: Vec<IpNetwork> = Vec::new();
    for range in ranges {
        let held = |wider: &IpNetwork| wider.is_ipv4() == range.is_ipv4() && wider.contains(range.ip());
        if !kept.iter().any(held) {
            kept.push(range);
        }
    }
    kept.sort_by_key(|range| (range.ip(), range.prefix()));
    kept
}

/// Those of one family, as the elements of a set.
pub(crate) fn elements(ranges: &[IpNetwork], v4: bool) -> Option<String> {
    let list: Vec<String> =
        ranges.iter().filter(|range| range.is_ipv4() == v4).map(|range| range.to_string()).collect();
    (!list.is_empty()).then(|| list.join(", "))
}

/// The link-local address that a card of this MAC address gives itself.
pub(crate) fn link_local(mac: &str) -> Option<Ipv6Addr> {
    let octets: Vec<u8> =
        mac.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>().ok()?;
    let [a, b, c, d, e, f] = <[u8; 6]>::try_from(octets).ok()?;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Some(Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f)))
}

#[cfg(test)]
mod tests;
