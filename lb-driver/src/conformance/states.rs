//! States that a device is led through.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
};

use ipnetwork::IpNetwork;

use crate::model::{
    Affinity, Check, Endpoint, InvalidName, LoadBalancer, MacAddr, Member, Owner, Pool, Protocol, State,
};

/// How many states are drawn after those that were thought of.
const DRAWN: u64 = 12;

/// States in an order that asks for every kind of change, each with what is new in it. The last is empty.
///
/// Two clusters of two projects, few names, addresses and ports, so that everything meets everything. All are
/// possible ([`State::check`]). Members are 192.168.77.21, .22 and .24, and fd00:77::23; VIPs 203.0.113.17 to .19
/// and 2001:db8:113::17.
pub fn series() -> Result<Vec<(String, State)>, InvalidName> {
    let (nodes, local) = (owner("nodes")?, owner("local-2")?);
    let (one, two) = (owner("svc-1")?, owner("svc-2")?);
    let other = Owner::new("other", "c2", "svc-1")?;
    let their_nodes = Owner::new("other", "c2", "nodes")?;
    let http = |port| Check::Http { port, path: "/healthz".to_owned() };
    let mut state = State::default();
    let mut series = Vec::new();
    let mut add = |what: &str, state: &State| series.push((what.to_owned(), state.clone()));

    state.pools.insert(nodes.clone(), pool(&[(1, 1), (2, 1)], [http(port(10_256))]));
    state.load_balancers.insert(one.clone(), balancer(vip(17), [(tcp(80), &nodes)]));
    add("one load balancer", &state);
    state.load_balancers.insert(two.clone(), balancer(vip(18), [(tcp(80), &nodes), (udp(53), &nodes)]));
    add("a second one on the same pool, with UDP", &state);
    state.pools.insert(nodes.clone(), pool(&[(1, 1), (2, 1), (3, 1)], [http(port(10_256))]));
    add("a node joins", &state);
    if let Some(member) = state.pools.get_mut(&nodes).and_then(|pool| pool.members.get_mut("n1")) {
        member.draining = true;
    }
    add("a node drains", &state);
    state.pools.insert(nodes.clone(), pool(&[(2, 1), (3, 1)], [http(port(10_256))]));
    add("a node leaves", &state);
    let checks = [http(port(30_000)), Check::Vip { vip: vip(18), port: port(80) }];
    state.pools.insert(local.clone(), pool(&[(2, 3), (3, 1)], checks));
    state.load_balancers.insert(two.clone(), balancer(vip(18), [(tcp(80), &local), (udp(53), &local)]));
    add("a load balancer goes over to a pool of its own, with weights and two checks", &state);
    state.pools.insert(their_nodes.clone(), pool(&[(4, 1)], [Check::Tcp { port: port(10_256) }]));
    let mut six = balancer(IpAddr::from([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x17]), [(tcp(80), &their_nodes)]);
    six.source_ranges = range("2001:db8:51::/64");
    state.load_balancers.insert(other.clone(), six);
    add("another cluster, IPv6, with a source range", &state);
    let mut restricted = balancer(vip(17), [(tcp(80), &nodes)]);
    restricted.source_ranges = range("198.51.100.0/24");
    restricted.source_ranges.extend(range("10.0.0.0/8"));
    state.load_balancers.insert(one.clone(), restricted.clone());
    add("source ranges", &state);
    let affine = LoadBalancer { affinity: Affinity::ClientIp, source_ranges: BTreeSet::new(), ..restricted };
    state.load_balancers.insert(one.clone(), affine);
    add("affinity in place of source ranges", &state);
    let sctp = Endpoint { protocol: Protocol::Sctp, port: port(80) };
    state.load_balancers.insert(one.clone(), balancer(vip(17), [(tcp(80), &nodes), (sctp, &nodes)]));
    add("SCTP beside TCP on one port number", &state);
    state.load_balancers.insert(two.clone(), balancer(vip(17), [(tcp(443), &local)]));
    add("two share a VIP", &state);
    state.load_balancers.insert(one.clone(), balancer(vip(17), [(tcp(443), &nodes)]));
    state.load_balancers.insert(two.clone(), balancer(vip(17), [(tcp(80), &local)]));
    add("they swap their ports", &state);
    state.load_balancers.insert(one.clone(), balancer(vip(18), [(tcp(80), &nodes)]));
    state.load_balancers.insert(two.clone(), balancer(vip(17), [(tcp(443), &nodes)]));
    state.pools.remove(&local);
    add("one goes to another VIP, the other takes its port, and a pool goes", &state);
    state.pools.insert(nodes.clone(), Pool::default());
    add("a pool without members and checks", &state);
    state.load_balancers.remove(&one);
    state.load_balancers.insert(owner("svc-3")?, balancer(vip(18), [(tcp(80), &nodes)]));
    add("a new one in the place of one that goes", &state);
    for seed in 1..=DRAWN {
        add(&format!("drawn {seed}"), &drawn(seed)?);
    }
    add("nothing", &State::default());
    Ok(series)
}

/// A state at random, the same for the same seed.
fn drawn(seed: u64) -> Result<State, InvalidName> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut state = State::default();
    for name in ["nodes", "local-2", "local-3"].into_iter().take(1 + dice.below(3)) {
        let mut drawn = Pool::default();
        for node in (1..=4).filter(|_| dice.below(2) == 0).collect::<Vec<_>>() {
            let mut member = member(node, 1 + dice.below(2) as u16);
            member.draining = dice.below(4) == 0;
            drawn.members.insert(format!("n{node}"), member);
        }
        match dice.below(3) {
            0 => {}
            1 => drop(drawn.checks.insert(Check::Tcp { port: port(10_256) })),
            _ => drop(drawn.checks.insert(Check::Http { port: port(30_000), path: "/".to_owned() })),
        }
        state.pools.insert(owner(name)?, drawn);
    }
    let pools: Vec<Owner> = state.pools.keys().cloned().collect();
    let mut taken = BTreeSet::new();
    for name in ["svc-1", "svc-2", "svc-3"].into_iter().take(dice.below(4)) {
        let address = vip(17 + dice.below(2) as u8);
        let mut listeners = BTreeMap::new();
        for _ in 0..1 + dice.below(3) {
            let number = port([80, 81, 443][dice.below(3)]);
            let endpoint = if dice.below(3) == 0 { udp(number.get()) } else { tcp(number.get()) };
            if taken.insert((address, endpoint)) {
                listeners.insert(endpoint, pools[dice.below(pools.len())].clone());
            }
        }
        if !listeners.is_empty() {
            let mut drawn = LoadBalancer { listeners, ..balancer(address, []) };
            if dice.below(3) == 0 {
                drawn.source_ranges = range("198.51.100.0/24");
            }
            if dice.below(3) == 0 {
                drawn.affinity = Affinity::ClientIp;
            }
            state.load_balancers.insert(owner(name)?, drawn);
        }
    }
    Ok(state)
}

/// Marsaglia's xorshift: no quality is asked of it but to be the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// The VIP of this last number.
pub(super) fn vip(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

pub(super) fn owner(object: &str) -> Result<Owner, InvalidName> {
    Owner::new("conformance", "c1", object)
}

pub(super) fn tcp(number: u16) -> Endpoint {
    Endpoint { protocol: Protocol::Tcp, port: port(number) }
}

fn udp(number: u16) -> Endpoint {
    Endpoint { protocol: Protocol::Udp, port: port(number) }
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

fn range(text: &str) -> BTreeSet<IpNetwork> {
    text.parse().into_iter().collect()
}

/// A node; the third has an address of the other family, so that a pool mixes them.
fn member(node: u8, weight: u16) -> Member {
    let address = match node {
        3 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x23)),
        _ => IpAddr::from([192, 168, 77, 20 + node]),
    };
    Member { address, mac: MacAddr::new([0xfa, 0x16, 0x3e, 0, 0, 0x20 + node]).ok(), weight, draining: false }
}

fn pool(members: &[(u8, u16)], checks: impl IntoIterator<Item = Check>) -> Pool {
    let members = members.iter().map(|(node, weight)| (format!("n{node}"), member(*node, *weight)));
    Pool { members: members.collect(), checks: checks.into_iter().collect() }
}

fn balancer<'a>(vip: IpAddr, listeners: impl IntoIterator<Item = (Endpoint, &'a Owner)>) -> LoadBalancer {
    let listeners = listeners.into_iter().map(|(endpoint, pool)| (endpoint, pool.clone()));
    LoadBalancer {
        vip,
        listeners: listeners.collect(),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    }
}
