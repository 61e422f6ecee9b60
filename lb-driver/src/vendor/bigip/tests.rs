use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
    time::Duration,
};

use ake_bigip::{Device, Options, PASSWORD, Served, USER};
use proptest::prelude::*;

use super::{derive::Style, *};
use crate::{diff::diff, driver::Driver, model::*};

mod conformance;
mod device;
mod pure;

fn style() -> Style {
    Style { prefix: "ake-".to_owned(), traffic_group: "/Common/traffic-group-1".to_owned() }
}

fn owner(object: &str) -> Owner {
    Owner::new("p1", "c", object).unwrap()
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn endpoint(protocol: Protocol, number: u16) -> Endpoint {
    Endpoint { protocol, port: port(number) }
}

fn member(address: &str, weight: u16) -> Member {
    Member {
        address: address.parse().unwrap(),
        mac: Some("fa:16:3e:00:00:20".parse().unwrap()),
        weight,
        draining: false,
    }
}

/// A state with one of everything.
fn everything(number: u64) -> State {
    let mut nodes = Pool::default();
    nodes.members.insert("w0".into(), member("192.168.77.20", 1));
    nodes.members.insert("w1".into(), member("192.168.77.21", 300));
    nodes.members.insert("w2".into(), Member { draining: true, ..member("192.168.77.22", 3) });
    nodes.members.insert("w3".into(), Member { mac: None, ..member("192.168.77.23", 0) });
    nodes.checks.insert(Check::Http { port: port(10256), path: "/healthz?x=1".into() });
    nodes.checks.insert(Check::Tcp { port: port(22) });
    nodes.checks.insert(Check::Vip { vip: "203.0.113.17".parse().unwrap(), port: port(80) });
    let mut six = Pool::default();
    six.members.insert("w0".into(), member("fd00:77::20", 1));
    let balancer = |vip: &str, listeners: &[(Protocol, u16, &str)]| LoadBalancer {
        vip: vip.parse().unwrap(),
        listeners: listeners.iter().map(|(p, n, pool)| (endpoint(*p, *n), owner(pool))).collect(),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    let mut web = balancer(
        "203.0.113.17",
        &[(Protocol::Tcp, 80, "nodes"), (Protocol::Udp, 80, "nodes"), (Protocol::Sctp, 36412, "nodes")],
    );
    web.affinity = Affinity::ClientIp;
    web.source_ranges = ["198.51.100.0/24", "10.0.0.1/8", "10.0.0.0/8"].map(|r| r.parse().unwrap()).into();
    let mut anybody = balancer("203.0.113.17", &[(Protocol::Tcp, 443, "nodes")]);
    anybody.source_ranges.insert("0.0.0.0/0".parse().unwrap());
    let mut idle = balancer("203.0.113.18", &[]);
    idle.source_ranges.insert("198.51.100.0/24".parse().unwrap());
    State {
        version: Version { epoch: 1, number },
        pools: BTreeMap::from([
            (owner("nodes"), nodes),
            (owner("six"), six),
            (owner("none"), Pool::default()),
        ]),
        load_balancers: BTreeMap::from([
            (owner("web"), web),
            (owner("anybody"), anybody),
            (owner("six"), balancer("2001:db8:113::1", &[(Protocol::Tcp, 443, "six")])),
            (owner("idle"), idle),
        ]),
    }
}
