//! The switch drops what Neutron's port security and security groups would drop, and passes the rest.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use ake_lab::network::{self, Card};
use ake_lab::switch::{self, Drop, Outcome, Table};
use common::{Guard, Lab, beside, eventually};
use serde_json::{Value, json};

const MAC_A: &str = "fa:16:3e:00:00:0a";
const MAC_B: &str = "fa:16:3e:00:00:0b";
const PORT_A: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const PORT_B: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
/// The link-local address that goes with `MAC_A`.
const LOCAL_A: &str = "fe80::f816:3eff:fe00:a";

/// Neutron's table: two ports of one group and what a test changes about it.
struct Neutron {
    lab: Lab,
    generation: u64,
    pairs_a: Vec<Value>,
    pairs_b: Vec<Value>,
    secure: bool,
    rules: Vec<Value>,
    groups_b: Vec<&'static str>,
}

impl Neutron {
    fn up(name: &str) -> Self {
        let lab = Lab::up(name);
        let mut neutron = Self {
            lab,
            generation: 0,
            pairs_a: vec![],
            pairs_b: vec![],
            secure: true,
            rules: vec![],
            groups_b: vec!["default"],
        };
        neutron.tell();
        for (server, port, mac, host) in [("a", PORT_A, MAC_A, "10"), ("b", PORT_B, MAC_B, "11")] {
            let card = Card { port: port.to_owned(), mac: mac.to_owned(), mtu: 1500 };
            network::plug(&neutron.lab.cage, server, &[card]).unwrap();
            neutron.lab.must(
                &network::namespace(server),
                &format!(
                    "sysctl -qw net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_dad=0 &&
                     ip addr add 192.168.77.{host}/24 dev eth0 && ip addr add fd00:77::{host}/64 dev eth0 nodad &&
                     ip link set eth0 up && ip route add default via 192.168.77.1 && ip route add default via fd00:77::1"
                ),
            );
        }
        neutron
    }

    fn table(&self) -> Value {
        let port = |id: &str, mac: &str, host: &str, pairs: &[Value], groups: &[&str], secure: bool| {
            json!({"id": id, "mac_address": mac, "project_id": "p", "device_id": host, "device_owner": "compute:nova",
                "fixed_ips": [{"ip_address": format!("192.168.77.{host}")}, {"ip_address": format!("fd00:77::{host}")}],
                "allowed_address_pairs": pairs, "port_security_enabled": secure, "security_groups": groups})
        };
        // What Neutron puts into the group "default" by itself.
        let mut rules = vec![
            json!({"id": "1", "direction": "egress", "ethertype": "IPv4"}),
            json!({"id": "2", "direction": "egress", "ethertype": "IPv6"}),
        ];
        rules.extend(self.rules.clone());
        json!({"event": "network", "generation": self.generation,
            "ports": [port(PORT_A, MAC_A, "10", &self.pairs_a, &["default"], self.secure),
                      port(PORT_B, MAC_B, "11", &self.pairs_b, &self.groups_b, true)],
            "groups": {"default": rules,
                       "other": [{"id": "3", "direction": "egress", "ethertype": "IPv4"}]}})
    }

    fn tell(&mut self) {
        self.generation += 1;
        self.lab.hook("network", &self.table()).unwrap();
    }

    fn dropped(&self, why: Drop) -> u64 {
        switch::dropped(&self.lab.cage, PORT_A, why).unwrap()
    }

    /// Sends a frame from server `a`; whether the router sees it. One that is dropped must be counted as such.
    fn passes(&self, kind: &str, mac: &str, claim: &str) -> bool {
        let lab = &self.lab;
        let script = beside("frame.py");
        lab.must(
            "router",
            &format!(
                "nft 'add table netdev t; delete table netdev t; add table netdev t;
                  add chain netdev t i {{ type filter hook ingress device \"eth0\" priority 0; }};
                  add rule netdev t i ether saddr {mac} {} counter'",
                match kind {
                    "ip" => format!("ip saddr {claim} udp dport 9"),
                    "arp" => format!("arp saddr ip {claim}"),
                    "ip6" => format!("ip6 saddr {claim} udp dport 9"),
                    "na" => format!("icmpv6 type nd-neighbor-advert @th,64,128 0x{}", hex(claim)),
                    "ns" => format!("ip6 saddr {claim} icmpv6 type nd-neighbor-solicit"),
                    _ => format!("ip6 saddr {claim} icmpv6 type nd-router-advert"),
                }
            ),
        );
        let seen = || !lab.must("router", "nft list table netdev t").contains("counter packets 0 ");
        let before = self.dropped(Drop::Spoof);
        lab.must("server-a", &format!("python3 {} {kind} {mac} {claim} {LOCAL_A}", script.display()));
        let mut passed = false;
        eventually(&format!("{kind} of {claim} is seen or counted"), 5, || {
            passed = seen();
            passed || self.dropped(Drop::Spoof) > before
        });
        passed
    }
}

/// A web server of IPv4 and IPv6 in a namespace.
fn web(neutron: &Neutron, netns: &str, port: u16) -> Guard {
    let guard = neutron.lab.serve(netns, &format!("python3 -m http.server -b :: -d /usr/bin {port}"));
    eventually("the web server listens", 20, || {
        neutron.lab.must(netns, "ss -Htln").contains(&format!(":{port} "))
    });
    guard
}

fn get(neutron: &Neutron, from: &str, more: &str) -> bool {
    neutron.lab.works(from, &format!("curl -gsfo /dev/null --max-time 2 {more}"))
}

fn hex(address: &str) -> String {
    format!("{:032x}", address.parse::<std::net::Ipv6Addr>().unwrap().to_bits())
}

#[test]
fn port_security() {
    let mut neutron = Neutron::up("h-ports");
    assert!(neutron.lab.works("server-a", "ping -qc1 -W2 192.168.77.1"), "own IPv4 address");
    assert!(neutron.lab.works("server-a", "ping -qc1 -W2 fd00:77::1"), "own IPv6 address");
    let vip = ["203.0.113.17", "2001:db8:113::17"];
    for (what, kind, mac, claim, expected) in [
        ("own IPv4 source", "ip", MAC_A, "192.168.77.10", true),
        ("own IPv6 source", "ip6", MAC_A, "fd00:77::10", true),
        ("ARP of the own address", "arp", MAC_A, "192.168.77.10", true),
        ("NA of the own address", "na", MAC_A, "fd00:77::10", true),
        ("NA of the own link-local address", "na", MAC_A, LOCAL_A, true),
        ("NS from the own address", "ns", MAC_A, "fd00:77::10", true),
        ("foreign MAC", "ip", "fa:16:3e:00:00:99", "192.168.77.10", false),
        ("foreign IPv4 source", "ip", MAC_A, "192.168.77.11", false),
        ("foreign IPv6 source", "ip6", MAC_A, "fd00:77::11", false),
        ("ARP of another's address", "arp", MAC_A, "192.168.77.11", false),
        ("NA of another's address", "na", MAC_A, "fd00:77::11", false),
        ("NS from another's address", "ns", MAC_A, "fd00:77::11", false),
        ("playing the router", "ra", MAC_A, LOCAL_A, false),
        ("a VIP as IPv4 source", "ip", MAC_A, vip[0], false),
        ("a VIP by ARP", "arp", MAC_A, vip[0], false),
        ("a VIP as IPv6 source", "ip6", MAC_A, vip[1], false),
        ("a VIP by NA", "na", MAC_A, vip[1], false),
    ] {
        assert_eq!(neutron.passes(kind, mac, claim), expected, "{what}");
    }

    neutron.pairs_a = vec![
        json!({"ip_address": "203.0.113.16/28", "mac_address": MAC_A}),
        json!({"ip_address": "2001:db8:113::10/124"}),
    ];
    neutron.tell();
    let kinds = [("ip", vip[0]), ("arp", vip[0]), ("ip6", vip[1]), ("na", vip[1])];
    for (kind, claim) in kinds {
        assert!(neutron.passes(kind, MAC_A, claim), "{kind} of a pair that was added while it runs");
    }
    assert!(!neutron.passes("arp", MAC_A, "203.0.113.33"), "outside of the pair's range");
    let with_pairs: Table = serde_json::from_value(neutron.table()).unwrap();

    neutron.pairs_a.clear();
    neutron.tell();
    for (kind, claim) in kinds {
        assert!(!neutron.passes(kind, MAC_A, claim), "{kind} of a pair that was removed");
    }
    assert_eq!(
        switch::apply(&neutron.lab.cage, &with_pairs).unwrap(),
        Outcome::Stale,
        "an older table comes late"
    );
    assert!(!neutron.passes("ip", MAC_A, vip[0]), "and changes nothing");

    neutron.secure = false;
    neutron.tell();
    assert!(
        neutron.lab.works(
            "server-a",
            "ip link set eth0 down; ip link set eth0 address fa:16:3e:00:00:99; \
        ip link set eth0 up; ping -qc1 -W2 192.168.77.1"
        ),
        "without port security any MAC passes"
    );
    assert!(
        !neutron.lab.works(
            "server-b",
            "ip link set eth0 down; ip link set eth0 address fa:16:3e:00:00:98; \
        ip link set eth0 up; ping -qc1 -W1 192.168.77.1"
        ),
        "on the other port it does not"
    );
}

#[test]
fn security_groups() {
    let mut neutron = Neutron::up("h-groups");
    let _servers =
        [web(&neutron, "server-a", 80), web(&neutron, "server-a", 81), web(&neutron, "client", 80)];

    assert!(get(&neutron, "server-a", "http://198.51.100.2"), "the answer to what the server began passes");
    assert!(get(&neutron, "server-a", "http://[2001:db8:51::2]"), "over IPv6 too");
    assert!(!get(&neutron, "client", "http://192.168.77.10"), "nothing is let in by default");
    assert!(neutron.dropped(Drop::Ingress) > 0, "and it is counted");

    neutron.rules = ["IPv4", "IPv6"]
        .map(|kind| {
            json!({"id": kind, "direction": "ingress", "ethertype": kind, "protocol": "tcp",
                "port_range_min": 80, "port_range_max": 80})
        })
        .to_vec();
    neutron.tell();
    assert!(get(&neutron, "client", "http://192.168.77.10"), "port 80 by the rule");
    assert!(get(&neutron, "client", "http://[fd00:77::10]"), "port 80 by the rule, IPv6");
    assert!(!get(&neutron, "client", "http://192.168.77.10:81"), "port 81 by none");
    assert!(!get(&neutron, "client", "http://[fd00:77::10]:81"), "port 81 by none, IPv6");

    // UDP: an answer passes, and what nobody asked for does not.
    let _echo = neutron.lab.serve(
        "client",
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 7))
while True: s.sendto(*s.recvfrom(99))'",
    );
    eventually("the echo listens", 20, || neutron.lab.must("client", "ss -Huln").contains(":7 "));
    let ask = "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); \
        s.sendto(b\"hello\", (\"198.51.100.2\", 7)); s.recv(9)'";
    assert!(neutron.lab.works("server-a", ask), "an answer over UDP");
    let before = neutron.dropped(Drop::Ingress);
    neutron.lab.must("client", "bash -c 'echo unasked > /dev/udp/192.168.77.10/7777'");
    eventually("unasked UDP is dropped", 5, || neutron.dropped(Drop::Ingress) > before);

    // The members of a group, with their address pairs.
    neutron.lab.must("server-b", "ip addr add 10.240.1.5/32 dev lo");
    neutron.lab.must("server-a", "ip route add 10.240.1.0/24 via 192.168.77.11");
    neutron.rules.push(json!({"id": "r", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
        "port_range_min": 81, "port_range_max": 81, "remote_group_id": "default"}));
    neutron.pairs_b = vec![json!({"ip_address": "10.240.1.0/24"})];
    neutron.tell();
    assert!(get(&neutron, "server-b", "http://192.168.77.10:81"), "a member");
    assert!(get(&neutron, "server-b", "--interface 10.240.1.5 http://192.168.77.10:81"), "a member's pair");
    assert!(!get(&neutron, "client", "http://192.168.77.10:81"), "not a member");
    neutron.groups_b = vec!["other"];
    neutron.tell();
    assert!(!get(&neutron, "server-b", "http://192.168.77.10:81"), "no member any more");

    let refused = neutron.lab.hook(
        "network",
        &json!({"generation": u64::MAX, "ports": [{"id": "x",
        "mac_address": "no", "fixed_ips": []}]}),
    );
    assert!(refused.unwrap_err().contains("port x: mac_address \"no\""), "what is wrong is named");
}

#[test]
fn an_answer_leaves_past_the_balancer() {
    let mut neutron = Neutron::up("h-dsr");
    let [v4, v6] = ["203.0.113.17", "2001:db8:113::17"];
    let lab = &neutron.lab;
    lab.must("balancer", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    // A balancer that rewrites MAC addresses alone is, to the network, a router to the VIP.
    lab.must(
        "balancer",
        &format!("ip route add {v4} via 192.168.77.10 && ip route add {v6} via fd00:77::10"),
    );
    lab.must("server-a", &format!("ip addr add {v4}/32 dev lo && ip addr add {v6}/128 dev lo"));
    let _server = web(&neutron, "server-a", 80);
    neutron.rules = ["IPv4", "IPv6"]
        .map(|kind| {
            json!({"id": kind, "direction": "ingress", "ethertype": kind, "protocol": "tcp",
                "port_range_min": 80, "port_range_max": 80})
        })
        .to_vec();
    neutron.tell();
    assert!(!get(&neutron, "client", &format!("http://{v4}")), "without a pair the answer is dropped");
    assert!(neutron.dropped(Drop::Spoof) > 0);
    neutron.pairs_a =
        vec![json!({"ip_address": format!("{v4}/28")}), json!({"ip_address": format!("{v6}/124")})];
    neutron.tell();
    let sent = || {
        let text = neutron.lab.must("balancer", "ip -s -j link show eth0");
        let links: Value = serde_json::from_str(&text).unwrap();
        links[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
    };
    let size = std::fs::metadata("/usr/bin/bash").unwrap().len();
    for vip in [v4.to_owned(), format!("[{v6}]")] {
        let (before, refused) = (sent(), neutron.dropped(Drop::Ingress));
        assert!(get(&neutron, "client", &format!("http://{vip}/bash")), "{vip}");
        assert!(sent() - before < size / 4, "only requests pass the balancer");
        assert_eq!(
            neutron.dropped(Drop::Ingress),
            refused,
            "no packet of the connection was taken for another's"
        );
        assert!(!get(&neutron, "client", &format!("http://{vip}:81")), "{vip}, a port of no rule");
    }
}
