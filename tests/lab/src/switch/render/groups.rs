//! Security groups: which connections a port may open and accept.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use super::{Error, disjoint, elements, parse_range, sources_of};
use crate::switch::table::{Port, Rule, Table};

/// Which way a packet goes, seen from the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// To the port.
    Ingress,
    /// From the port.
    Egress,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The address of whoever is not the port.
    fn remote(self) -> &'static str {
        match self {
            Self::Ingress => "saddr",
            Self::Egress => "daddr",
        }
    }

    /// What ends the asking: the receiver's word is the last one.
    fn allow(self) -> &'static str {
        match self {
            Self::Ingress => "accept",
            Self::Egress => "return",
        }
    }

    /// What needs no rule: finding routers and neighbors, multicast listeners, DHCP. As in Neutron.
    fn always(self) -> [&'static str; 3] {
        match self {
            Self::Ingress => [
                "icmpv6 type { 130, 134, 135, 136 }",
                "ether type ip udp sport 67 udp dport 68",
                "ether type ip6 udp sport 547 udp dport 546",
            ],
            Self::Egress => [
                "icmpv6 type { 131, 132, 133, 135, 136, 143 }",
                "ether type ip udp sport 68 udp dport 67",
                "ether type ip6 udp sport 546 udp dport 547",
            ],
        }
    }
}

/// The addresses behind each group: those of its ports, with their allowed address pairs.
pub(super) type Members = BTreeMap<String, Vec<IpNetwork>>;

pub(super) fn members(table: &Table) -> Result<Members, Error> {
    let mut members = Members::new();
    for port in &table.ports {
        let addresses: Vec<IpNetwork> = sources_of(port)?.into_values().flatten().collect();
        for group in &port.security_groups {
            members.entry(group.clone()).or_default().extend(&addresses);
        }
    }
    Ok(members.into_iter().map(|(group, ranges)| (group, disjoint(ranges))).collect())
}

/// The rules of a port's chain on one side. `REFUSE` stands for "count and drop".
pub(super) fn rules(table: &Table, port: &Port, side: Side, members: &Members) -> Result<Vec<String>, Error> {
    if !port.admin_state_up {
        return Ok(vec!["REFUSE".to_owned()]);
    }
    let allow = side.allow();
    let mut rules = vec![format!("meta mark 1 {allow}")];
    rules.extend(side.always().map(|what| format!("{what} {allow}")));
    if side == Side::Ingress {
        // Reports of listeners go to every port and are for none of them: not worth a count.
        rules.push("icmpv6 type { 131, 132, 133, 143 } drop".to_owned());
    }
    rules.push("meta mark 3 REFUSE".to_owned());
    let own = port.security_groups.iter().filter_map(|group| table.groups.get(group)).flatten();
    let mut seen = BTreeSet::new();
    for rule in own.filter(|rule| rule.direction == side.name()) {
        if let Some(what) = matches(rule, side, members)?
            && seen.insert(what.clone())
        {
            rules.push(format!("{what} {allow}"));
        }
    }
    rules.push("REFUSE".to_owned());
    Ok(rules)
}

/// What a rule lets through; `None` is nothing, because nobody is in the group that it names.
fn matches(rule: &Rule, side: Side, members: &Members) -> Result<Option<String>, Error> {
    let wrong = |field, value: &str, expected| Error::Rule {
        rule: rule.id.clone(),
        field,
        value: value.to_owned(),
        expected,
    };
    let (v4, family) = match rule.ethertype.as_str() {
        "IPv4" => (true, "ip"),
        "IPv6" => (false, "ip6"),
        other => return Err(wrong("ethertype", other, "IPv4 or IPv6")),
    };
    if let Some(group) = &rule.remote_address_group_id {
        return Err(wrong("remote_address_group_id", group, "none: this switch knows no address groups"));
    }
    let mut words = vec![format!("ether type {family}")];
    let remote = match (&rule.remote_ip_prefix, &rule.remote_group_id) {
        (Some(prefix), _) => {
            let range = parse_range(prefix)
                .filter(|range| range.is_ipv4() == v4)
                .ok_or_else(|| wrong("remote_ip_prefix", prefix, "a range of the rule's ethertype"))?;
            (range.prefix() > 0).then(|| range.to_string())
        }
        (None, Some(group)) => match members.get(group).and_then(|ranges| elements(ranges, v4)) {
            Some(set) => Some(format!("{{ {set} }}")),
            None => return Ok(None),
        },
        (None, None) => None,
    };
    words.extend(remote.map(|remote| format!("{family} {} {remote}", side.remote())));
    if let Some(protocol) = rule.protocol.as_deref().filter(|p| !matches!(*p, "any" | "0" | "")) {
        let number = protocol_number(protocol, v4)
            .ok_or_else(|| wrong("protocol", protocol, "a protocol's name or number"))?;
        words.push(format!("meta l4proto {number}"));
        match number {
            1 | 58 => {
                let name = if number == 1 { "icmp" } else { "icmpv6" };
                words.extend(rule.port_range_min.map(|kind| format!("{name} type {kind}")));
                words.extend(rule.port_range_max.map(|code| format!("{name} code {code}")));
            }
            _ => {
                if let (Some(low), Some(high)) = (rule.port_range_min, rule.port_range_max) {
                    words.push(if low == high {
                        format!("th dport {low}")
                    } else {
                        format!("th dport {low}-{high}")
                    });
                }
            }
        }
    }
    Ok(Some(words.join(" ")))
}

/// Neutron's names of protocols; ICMP is that of the address family.
fn protocol_number(name: &str, v4: bool) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "icmp" | "1" if v4 => 1,
        "icmp" | "icmpv6" | "ipv6-icmp" | "58" => 58,
        "igmp" => 2,
        "ipip" | "ipencap" => 4,
        "tcp" => 6,
        "egp" => 8,
        "udp" => 17,
        "dccp" => 33,
        "rsvp" => 46,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "ospf" => 89,
        "vrrp" => 112,
        "pgm" => 113,
        "sctp" => 132,
        "udplite" => 136,
        other => return other.parse().ok(),
    })
}
