//! The network around the machines: the switch, the router, the balancer's and the client's hosts, the control host.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::balancers::Balancers;
use crate::cage::{Cage, NETNS};
use crate::procs::output_of;
use crate::shell;

/// The provider network's bridge, in the namespace `switch`.
pub const BRIDGE: &str = "br0";
/// Bridge ports of the provider's own hosts. They are trusted, as a provider's switch trusts its router.
pub const INFRASTRUCTURE: [&str; 3] = ["p-router", "p-balancer", "p-balancer2"];
/// Where the cloud's metadata service is found.
pub const METADATA_ADDRESS: &str = "169.254.169.254";

/// Instances of inotify that all machines together may have: systemd, cloud-init and kubelet use 16 in each.
const INOTIFY_INSTANCES: u32 = 4096;
const INOTIFY_FILE: &str = "/proc/sys/fs/inotify/max_user_instances";

/// What is done in one namespace, in this order.
struct Host {
    name: &'static str,
    sysctls: Vec<&'static str>,
    /// Lines for `ip -batch`.
    ip: Vec<&'static str>,
    /// Arguments of `ethtool`.
    ethtool: Vec<&'static [&'static str]>,
}

/// Of every host: no surprises of IPv6 autoconfiguration, and addresses that are usable at once.
const QUIET: [&str; 4] = [
    "net.ipv6.conf.all.accept_ra=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.autoconf=0",
];
/// Of those who pass on what is not theirs: its source need not lie on the side it came in, and what leaves on the same
/// side is no reason to tell the sender of a shorter way.
const PASSES_ON: [&str; 4] = [
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
];

/// The bridge, and the wires between the hosts.
const WIRES: &str = "\
link add name br0 netns switch type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link add name eth0 address fa:16:3e:77:00:01 netns router type veth peer name p-router netns switch
link add name eth0 address fa:16:3e:77:00:02 netns balancer type veth peer name p-balancer netns switch
link add name eth0 address fa:16:3e:77:00:03 netns balancer2 type veth peer name p-balancer2 netns switch
link add name clients address fa:16:3e:51:00:01 netns router type veth peer name eth0 address fa:16:3e:51:00:02 netns client
link add name control address fa:16:3e:02:00:01 netns router type veth peer name eth0 address fa:16:3e:02:00:02 netns control
";

/// All hosts; VIPs are routed to the one balancer, or to the addresses that VRRP moves between the two.
fn hosts(balancers: Balancers) -> Vec<Host> {
    let with = |more: &[&'static str]| QUIET.iter().chain(more).copied().collect();
    let [route, route6] = match balancers {
        Balancers::One => {
            ["route add 203.0.113.0/24 via 192.168.77.2", "route add 2001:db8:113::/112 via fd00:77::2"]
        }
        Balancers::Two => {
            ["route add 203.0.113.0/24 via 192.168.77.4", "route add 2001:db8:113::/112 via fd00:77::4"]
        }
    };
    vec![
        Host {
            name: "switch",
            // IPv4 and IPv6 of the bridge pass the hooks of connection tracking: security groups are stateful. The
            // same packet passes twice when it goes through the balancer, which tracking must not mind.
            sysctls: vec![
                "net.bridge.bridge-nf-call-iptables=1",
                "net.bridge.bridge-nf-call-ip6tables=1",
                "net.bridge.bridge-nf-call-arptables=0",
                "net.netfilter.nf_conntrack_tcp_be_liberal=1",
                "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv6.conf.default.disable_ipv6=1",
            ],
            ip: vec![
                "link set lo up",
                "link set br0 up",
                "link set p-router master br0 up",
                "link set p-balancer master br0 up",
                "link set p-balancer2 master br0 up",
            ],
            // A driver of XDP on the other end can send frames back only to an end that polls.
            ethtool: vec![&["-K", "p-balancer", "gro", "on"], &["-K", "p-balancer2", "gro", "on"]],
        },
        Host {
            name: "router",
            sysctls: with(
                &[&PASSES_ON[..], &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]].concat(),
            ),
            ip: vec![
                "link set lo up",
                "addr add 169.254.169.254/32 dev lo",
                "link set eth0 up",
                "addr add 192.168.77.1/24 dev eth0",
                "addr add fd00:77::1/64 dev eth0 nodad",
                "link set clients up",
                "addr add 198.51.100.1/24 dev clients",
                "addr add 2001:db8:51::1/64 dev clients nodad",
                "link set control up",
                "addr add 192.0.2.1/24 dev control",
                route,
                route6,
            ],
            // Checksums and segments are made before the wire, as they are on a real one: a program at the balancer's
            // driver sees frames as they are.
            ethtool: vec![&["-K", "eth0", "tx", "off"]],
        },
        Host {
            name: "balancer",
            // Its data plane passes packets on; the kernel would send back those that it does not take.
            sysctls: with(&PASSES_ON),
            ip: vec![
                "link set lo up",
                "link set eth0 up",
                "addr add 192.168.77.2/24 dev eth0",
                "addr add fd00:77::2/64 dev eth0 nodad",
                "route add default via 192.168.77.1",
                "route add default via fd00:77::1",
            ],
            ethtool: vec![],
        },
        Host {
            name: "balancer2",
            sysctls: with(&PASSES_ON),
            ip: vec![
                "link set lo up",
                "link set eth0 up",
                "addr add 192.168.77.3/24 dev eth0",
                "addr add fd00:77::3/64 dev eth0 nodad",
                "route add default via 192.168.77.1",
                "route add default via fd00:77::1",
            ],
            ethtool: vec![],
        },
        Host {
            name: "client",
            sysctls: with(&[]),
            ip: vec![
                "link set lo up",
                "link set eth0 up",
                "addr add 198.51.100.2/24 dev eth0",
                "addr add 2001:db8:51::2/64 dev eth0 nodad",
                "route add default via 198.51.100.1",
                "route add default via 2001:db8:51::1",
            ],
            ethtool: vec![],
        },
        Host {
            name: "control",
            sysctls: with(&[]),
            ip: vec![
                "link set lo up",
                "link set eth0 up",
                "addr add 192.0.2.2/24 dev eth0",
                "route add default via 192.0.2.1",
            ],
            ethtool: vec![],
        },
    ]
}

/// Makes the lab's network in a cage that has none yet.
pub fn up(cage: &Cage, balancers: Balancers) -> Result<()> {
    raise_inotify()?;
    // Settings come first: a card takes those of its host when it is made.
    for Host { name, sysctls, .. } in hosts(balancers) {
        shell::run(cage.command(None, "ip").args(["netns", "add", name]))?;
        shell::run(cage.command(Some(name), "sysctl").arg("-qw").args(&sysctls))
            .with_context(|| format!("settings of the host {name}"))?;
    }
    output_of(cage.command(None, "ip").args(["-batch", "-"]), WIRES)?;
    for Host { name, ip, ethtool, .. } in hosts(balancers) {
        output_of(cage.command(None, "ip").args(["-n", name, "-batch", "-"]), &ip.join("\n"))
            .with_context(|| format!("addresses of the host {name}"))?;
        for arguments in &ethtool {
            shell::run(cage.command(Some(name), "ethtool").args(*arguments))?;
        }
    }
    crate::switch::reset(cage)
}

/// The limit counts for the whole computer; it is raised, never lowered.
fn raise_inotify() -> Result<()> {
    let now = fs::read_to_string(INOTIFY_FILE).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if now.is_some_and(|now| now < INOTIFY_INSTANCES) {
        fs::write(INOTIFY_FILE, INOTIFY_INSTANCES.to_string())
            .with_context(|| format!("cannot write {INOTIFY_FILE}"))?;
    }
    Ok(())
}

/// The network card of a server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Card {
    /// Its Neutron port.
    pub port: String,
    /// The port's MAC address.
    pub mac: String,
    /// Its MTU.
    pub mtu: u32,
}

/// The bridge port of a Neutron port, by the name that Neutron's own agents give it.
pub fn tap(port: &str) -> String {
    format!("tap{}", port.get(..11).unwrap_or(port))
}

/// The network namespace of a server.
pub fn namespace(server: &str) -> String {
    format!("server-{server}")
}

/// Makes the network namespace of a server with its cards, plugged into the switch. Doing it again is right.
pub fn plug(cage: &Cage, server: &str, cards: &[Card]) -> Result<()> {
    let name = namespace(server);
    if !exists(cage, &name)? {
        shell::run(cage.command(None, "ip").args(["netns", "add", &name]))?;
        shell::run(cage.command(None, "ip").args(["-n", &name, "link", "set", "lo", "up"]))?;
    }
    for (index, card) in cards.iter().enumerate() {
        plug_card(cage, &name, index, card)?;
    }
    Ok(())
}

/// Plugs one more card in, as `eth<index>`.
pub fn plug_card(cage: &Cage, namespace: &str, index: usize, card: &Card) -> Result<()> {
    let Card { port, mac, mtu } = card;
    let tap = tap(port);
    // One that is left of an attempt that failed half way is made anew.
    unplug_card(cage, port)?;
    let lines = format!(
        "link add name {tap} mtu {mtu} netns switch type veth peer name eth{index} address {mac} mtu {mtu} netns {namespace}\n"
    );
    output_of(cage.command(None, "ip").args(["-batch", "-"]), &lines)
        .with_context(|| format!("the wire of port {port}"))?;
    shell::run(cage.command(None, "ip").args(["-n", "switch", "link", "set", &tap, "master", BRIDGE, "up"]))?;
    Ok(())
}

/// Takes a card out of the switch; its other end goes with it.
pub fn unplug_card(cage: &Cage, port: &str) -> Result<()> {
    let tap = tap(port);
    let there =
        shell::run(cage.command(None, "ip").args(["-n", "switch", "-o", "link", "show", "type", "veth"]))?;
    let named =
        |line: &str| line.split_whitespace().nth(1).is_some_and(|name| name.starts_with(&format!("{tap}@")));
    if there.lines().any(named) {
        shell::run(cage.command(None, "ip").args(["-n", "switch", "link", "del", &tap]))?;
    }
    Ok(())
}

/// Removes a server's cards and its network namespace.
pub fn unplug(cage: &Cage, server: &str, cards: &[Card]) -> Result<()> {
    for card in cards {
        unplug_card(cage, &card.port)?;
    }
    let name = namespace(server);
    if exists(cage, &name)? {
        shell::run(cage.command(None, "ip").args(["netns", "del", &name]))?;
    }
    Ok(())
}

fn exists(cage: &Cage, namespace: &str) -> Result<bool> {
    let path = Path::new(NETNS).join(namespace);
    Ok(cage.command(None, "test").arg("-e").arg(path).status()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancers::{BALANCERS, SHARED};

    #[test]
    fn names_of_wires_fit_the_kernel() {
        assert_eq!(tap("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"), "tap0a1b2c3d-4e");
        assert_eq!(tap("short"), "tapshort");
        assert!(tap("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9").len() < 16);
    }

    #[test]
    fn every_setting_has_its_reason_in_the_reference() {
        let page = include_str!("../../../docs/reference/stand-ins.md");
        for host in hosts(Balancers::Two) {
            for setting in host.sysctls {
                // One line speaks for all interfaces.
                let key = setting.split('=').next().unwrap().replace(".default.", ".all.");
                assert!(page.contains(&format!("`{key}`")), "{key} of the host {}", host.name);
            }
            for words in host.ethtool {
                let feature = format!("`ethtool -K {}`", words[1..].join(" "));
                assert!(page.contains(&feature), "{feature}");
            }
        }
        assert!(page.contains("`fs.inotify.max_user_instances`"));
    }

    #[test]
    fn balancers_have_the_addresses_that_they_are_known_by() {
        let all = hosts(Balancers::Two);
        let of = |name: &str| all.iter().find(|host| host.name == name).unwrap();
        for balancer in &BALANCERS {
            let [v4, v6] = balancer.addresses;
            let ip = &of(balancer.host).ip;
            let has = |line: &str| ip.contains(&line);
            assert!(has(&format!("addr add {v4}/24 dev eth0")), "{v4} of {}", balancer.host);
            assert!(has(&format!("addr add {v6}/64 dev eth0 nodad")), "{v6} of {}", balancer.host);
            assert!(INFRASTRUCTURE.contains(&balancer.wire), "{}", balancer.wire);
        }
        for (balancers, to) in [(Balancers::One, BALANCERS[0].addresses), (Balancers::Two, SHARED)] {
            let all = hosts(balancers);
            let routed = |line: &&&str| line.starts_with("route add") && !line.contains("default");
            let routes: Vec<_> = all
                .iter()
                .filter(|host| host.name == "router")
                .flat_map(|host| host.ip.iter().filter(routed))
                .collect();
            assert!(
                routes.iter().zip(to).all(|(route, to)| route.ends_with(&format!(" via {to}"))),
                "{routes:?}"
            );
            assert_eq!(routes.len(), to.len());
        }
    }

    #[test]
    fn every_host_is_wired_and_configured() {
        for host in hosts(Balancers::Two) {
            assert!(
                WIRES.contains(&format!("netns {} ", host.name))
                    || WIRES.contains(&format!("netns {}\n", host.name))
            );
            assert!(host.ip.contains(&"link set lo up"), "{}", host.name);
        }
        for port in INFRASTRUCTURE {
            assert!(WIRES.contains(&format!("peer name {port} netns switch")), "{port}");
        }
    }
}
