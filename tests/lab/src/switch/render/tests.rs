use proptest::prelude::*;

use super::*;
use crate::switch::table::{FixedIp, Pair, Rule};

fn port(id: &str, address: &str) -> Port {
    Port {
        id: id.to_owned(),
        mac_address: "FA:16:3e:00:00:01".to_owned(),
        fixed_ips: vec![FixedIp { ip_address: address.to_owned() }],
        allowed_address_pairs: vec![],
        port_security_enabled: true,
        security_groups: vec![],
        project_id: "p".to_owned(),
        device_id: "server".to_owned(),
        device_owner: "compute:nova".to_owned(),
        admin_state_up: true,
    }
}

fn pair(range: &str, mac: Option<&str>) -> Pair {
    Pair { ip_address: range.to_owned(), mac_address: mac.map(str::to_owned) }
}

fn rule(direction: &str, ethertype: &str) -> Rule {
    Rule {
        id: "r".to_owned(),
        direction: direction.to_owned(),
        ethertype: ethertype.to_owned(),
        ..Rule::default()
    }
}

fn text(table: &Table) -> String {
    render(&BTreeSet::new(), table).unwrap()
}

/// The rules of one chain, without the words that all of them begin with.
fn chain(text: &str, name: &str) -> Vec<String> {
    let start = format!("add rule bridge ake {name} ");
    text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

#[test]
fn a_pair_without_mac_is_the_ports_own() {
    let mut port = port("one", "192.168.77.10");
    port.allowed_address_pairs = vec![
        pair("10.240.1.5/24", None),
        pair("203.0.113.16/28", Some("fa:16:3e:00:00:09")),
        pair("fd01::/64", None),
    ];
    let sources = sources_of(&port).unwrap();
    let words = |mac: &str| sources[mac].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(words("fa:16:3e:00:00:01"), ["10.240.1.0/24", "192.168.77.10/32", "fd01::/64"]);
    assert_eq!(words("fa:16:3e:00:00:09"), ["203.0.113.16/28"]);
}

#[test]
fn a_frame_passes_by_mac_and_address_and_the_rest_is_dropped() {
    let table = Table { generation: 1, ports: vec![port("one", "192.168.77.10")], ..Table::default() };
    let rules = chain(&text(&table), "spoof-tapone");
    let own = "fa:16:3e:00:00:01";
    assert!(
        rules.contains(&format!("ether saddr {own} ip saddr {{ 192.168.77.10/32 }} accept")),
        "{rules:#?}"
    );
    assert!(
        rules.contains(&format!(
            "ether saddr {own} arp saddr ether {own} arp saddr ip {{ 192.168.77.10/32 }} accept"
        )),
        "{rules:#?}"
    );
    assert_eq!(rules.last().unwrap(), "counter name \"spoof-tapone\" drop");
    assert!(rules.iter().all(|rule| rule.starts_with("ether saddr") || rule.ends_with("drop")), "{rules:#?}");
}

#[test]
fn an_advertisement_is_held_against_its_target() {
    let mut one = port("one", "fd00:77::10");
    one.allowed_address_pairs = vec![pair("2001:db8:113::10/124", None)];
    let rules = chain(&text(&Table { ports: vec![one], ..Table::default() }), "spoof-tapone");
    let adverts: Vec<_> = rules.iter().filter(|r| r.contains("type nd-neighbor-advert")).collect();
    assert_eq!(adverts.len(), 3, "{adverts:#?}");
    assert!(
        adverts[0].contains(
            "@th,64,128 & 0xfffffffffffffffffffffffffffffff0 == 0x20010db8011300000000000000000010"
        )
    );
    assert!(adverts[1].contains("@th,64,128 0xfd000077000000000000000000000010"), "{adverts:#?}");
    assert!(adverts[2].contains("@th,64,128 0xfe80000000000000f8163efffe000001"), "{adverts:#?}");
}

#[test]
fn without_port_security_all_passes_and_switched_off_nothing_does() {
    let mut open = port("open", "192.168.77.10");
    open.port_security_enabled = false;
    let mut off = port("off", "192.168.77.11");
    off.admin_state_up = false;
    let text = text(&Table { ports: vec![open, off], ..Table::default() });
    assert!(text.contains("add element bridge ake sources { \"tapopen\" : accept }"));
    assert!(text.contains("add element bridge ake ingress { \"tapopen\" : accept }"));
    assert!(chain(&text, "spoof-tapopen").is_empty());
    for name in ["spoof-tapoff", "egress-tapoff", "ingress-tapoff"] {
        assert_eq!(chain(&text, name), [format!("counter name \"{name}\" drop")]);
    }
}

#[test]
fn rules_of_groups() {
    let member =
        |id: &str, address: &str| Port { security_groups: vec!["g".to_owned()], ..port(id, address) };
    let mut other = member("two", "192.168.77.11");
    other.allowed_address_pairs = vec![pair("10.240.1.0/24", None)];
    let remote = |rule: Rule| Rule { remote_group_id: Some("g".to_owned()), ..rule };
    let ports = |rule: Rule, protocol: &str, low, high| Rule {
        protocol: Some(protocol.to_owned()),
        port_range_min: low,
        port_range_max: high,
        ..rule
    };
    let prefix = |rule: Rule, prefix: &str| Rule { remote_ip_prefix: Some(prefix.to_owned()), ..rule };
    let (r4, r6) = (|| rule("ingress", "IPv4"), || rule("ingress", "IPv6"));
    let table_of = |rule: Rule| Table {
        ports: vec![member("one", "192.168.77.10"), other.clone()],
        groups: BTreeMap::from([("g".to_owned(), vec![rule])]),
        ..Table::default()
    };
    for (rule, expected) in [
        (r4(), Some("ether type ip accept")),
        (rule("egress", "IPv6"), Some("ether type ip6 return")),
        (ports(r4(), "tcp", Some(80), Some(80)), Some("ether type ip meta l4proto 6 th dport 80 accept")),
        (ports(r4(), "17", Some(1), Some(9)), Some("ether type ip meta l4proto 17 th dport 1-9 accept")),
        (ports(r4(), "icmp", Some(8), None), Some("ether type ip meta l4proto 1 icmp type 8 accept")),
        (
            ports(r6(), "icmp", Some(128), Some(0)),
            Some("ether type ip6 meta l4proto 58 icmpv6 type 128 icmpv6 code 0 accept"),
        ),
        (ports(r4(), "vrrp", None, None), Some("ether type ip meta l4proto 112 accept")),
        (prefix(r4(), "0.0.0.0/0"), Some("ether type ip accept")),
        (prefix(r4(), "198.51.100.7/24"), Some("ether type ip ip saddr 198.51.100.0/24 accept")),
        (prefix(rule("egress", "IPv4"), "192.0.2.2/32"), Some("ether type ip ip daddr 192.0.2.2/32 return")),
        (
            remote(r4()),
            Some("ether type ip ip saddr { 10.240.1.0/24, 192.168.77.10/32, 192.168.77.11/32 } accept"),
        ),
        (remote(r6()), None),
    ] {
        let side = rule.direction.clone();
        let rules = chain(&text(&table_of(rule.clone())), &format!("{side}-tapone"));
        // The own ones stand between the invalid, which no rule lets through, and the end.
        let start = rules.iter().position(|rule| rule.starts_with("meta mark 3 ")).unwrap() + 1;
        let own: Vec<&str> = rules[start..rules.len() - 1].iter().map(String::as_str).collect();
        assert_eq!(own, expected.into_iter().collect::<Vec<_>>(), "{rule:?}");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let with = |rule: Rule| Table {
        ports: vec![Port { security_groups: vec!["g".to_owned()], ..port("one", "192.168.77.10") }],
        groups: BTreeMap::from([("g".to_owned(), vec![rule])]),
        ..Table::default()
    };
    let rule = rule("ingress", "IPv4");
    for (table, words) in [
        (
            with(Rule { ethertype: "IPX".to_owned(), ..rule.clone() }),
            "rule r: ethertype \"IPX\": expected IPv4 or IPv6",
        ),
        (with(Rule { protocol: Some("warp".to_owned()), ..rule.clone() }), "protocol \"warp\""),
        (
            with(Rule { remote_ip_prefix: Some("fd00::/8".to_owned()), ..rule.clone() }),
            "remote_ip_prefix \"fd00::/8\"",
        ),
        (with(Rule { remote_address_group_id: Some("a".to_owned()), ..rule }), "remote_address_group_id"),
        (Table { ports: vec![port("one", "here")], ..Table::default() }, "port one: fixed_ips \"here\""),
        (
            Table {
                ports: vec![Port { mac_address: "x".to_owned(), ..port("one", "::1") }],
                ..Table::default()
            },
            "port one: mac_address \"x\"",
        ),
    ] {
        let error = render(&BTreeSet::new(), &table).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_is_gone_is_deleted_and_what_stays_is_not() {
    let before = BTreeSet::from(["tapone".to_owned(), "tapgone".to_owned()]);
    let table = Table { ports: vec![port("one", "192.168.77.10")], ..Table::default() };
    let text = render(&before, &table).unwrap();
    assert!(text.contains("delete chain bridge ake spoof-tapgone\n"));
    assert!(text.contains("delete counter bridge ake ingress-tapgone\n"));
    assert!(!text.contains("delete chain bridge ake spoof-tapone"));
}

proptest! {
    #[test]
    fn disjoint_ranges_hold_the_same_addresses(ranges in prop::collection::vec((any::<u32>(), 0u8..=32), 0..12), probe in any::<u32>()) {
        let ranges: Vec<IpNetwork> = ranges
            .into_iter()
            // Few distinct high bits, so that ranges meet.
            .map(|(bits, prefix)| parse_range(&format!("{}/{prefix}", std::net::Ipv4Addr::from(bits & 0xc000_000f))).unwrap())
            .collect();
        let probe = std::net::IpAddr::from(std::net::Ipv4Addr::from(probe & 0xc000_000f));
        let kept = disjoint(ranges.clone());
        prop_assert_eq!(ranges.iter().any(|r| r.contains(probe)), kept.iter().any(|r| r.contains(probe)));
        for (i, a) in kept.iter().enumerate() {
            prop_assert!(kept.iter().skip(i + 1).all(|b| !a.contains(b.ip()) && !b.contains(a.ip())), "{a} meets another of {kept:?}");
        }
    }
}
