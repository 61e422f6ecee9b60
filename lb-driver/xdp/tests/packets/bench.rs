//! A balancer without an interface, that frames are run through.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use ake_xdp::{
    config::{Check, Limits},
    engine::Engine,
    health::Checker,
    maps::DataPlane,
    plan::Book,
    store::Store,
};
use lb_driver::{
    model::{Affinity, Endpoint, LoadBalancer, Member, Owner, Pool, Protocol, State, Version},
    vendor::xdp::{translate, wire},
};

use crate::frames::{self, CLIENT, Frame, OWN};

pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;

pub(crate) const VIP: &str = "203.0.113.17";
pub(crate) const VIP6: &str = "2001:db8:113::17";

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) state: State,
    _folder: tempfile::TempDir,
}

pub(crate) fn owner(object: &str) -> Owner {
    Owner::new("project", "cluster", object).unwrap()
}

pub(crate) fn endpoint(protocol: Protocol, port: u16) -> Endpoint {
    Endpoint { protocol, port: NonZeroU16::new(port).unwrap() }
}

pub(crate) fn mac(index: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, index]
}

pub(crate) fn member(index: u8) -> Member {
    Member {
        address: IpAddr::from([192, 168, 77, index]),
        mac: Some(lb_driver::model::MacAddr::new(mac(index)).unwrap()),
        weight: 1,
        draining: false,
    }
}

impl Bench {
    /// A balancer with a pool of so many members behind TCP 80, UDP 53 and SCTP 36412 of both VIPs.
    pub(crate) fn new(members: u8) -> Self {
        Self::with(members, |_| {})
    }

    /// The same with other limits.
    pub(crate) fn with(members: u8, change: impl FnOnce(&mut Limits)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let small = Limits { listeners: 64, pools: 16, members: 64, source_ranges: 64, ..Limits::default() };
        let mut limits = Limits { flows: 65_536, new_flows: 1 << 24, fragments: 1024, ..small };
        change(&mut limits);
        let plane = DataPlane::load(lb_driver::model::MacAddr::new(OWN).unwrap(), &limits)
            .expect("loading the data plane needs root and a kernel with XDP");
        let (reports, _) = tokio::sync::mpsc::unbounded_channel();
        let checker = Checker::new(Check::default(), reports).unwrap();
        let book =
            Book::new(limits, vec!["203.0.113.0/24".parse().unwrap(), "2001:db8:113::/64".parse().unwrap()]);
        let engine =
            Engine::start(plane, checker, Store::new(folder.path().join("state.json")), book).unwrap();
        let members = (1..=members).map(|index| (format!("m{index}"), member(index))).collect();
        let balancer = |vip: &str| LoadBalancer {
            vip: vip.parse().unwrap(),
            listeners: [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 36412)]
                .map(|(protocol, port)| (endpoint(protocol, port), owner("nodes")))
                .into(),
            source_ranges: BTreeSet::new(),
            affinity: Affinity::None,
        };
        let state = State {
            version: Version::default(),
            pools: BTreeMap::from([(owner("nodes"), Pool { members, checks: BTreeSet::new() })]),
            load_balancers: BTreeMap::from([(owner("four"), balancer(VIP)), (owner("six"), balancer(VIP6))]),
        };
        let mut bench = Self { engine, state, _folder: folder };
        bench.change(|_| {});
        bench
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut self.state);
        self.state.version.number += 1;
        assert!(self.engine.put(&translate::document(&self.state)).unwrap().changed);
    }

    pub(crate) fn members(&mut self, change: impl FnOnce(&mut BTreeMap<String, Member>)) {
        self.change(|state| change(&mut state.pools.get_mut(&owner("nodes")).unwrap().members));
    }

    pub(crate) fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        self.engine.run(frame).unwrap()
    }

    /// The member that a frame goes to; the rest of it must be as it was.
    pub(crate) fn goes_to(&self, frame: &[u8]) -> Result<u8, u32> {
        let (action, out) = self.run(frame);
        if action != TX {
            return Err(action);
        }
        assert_eq!(out[6..12], OWN);
        assert_eq!(out[12..], frame[12..]);
        assert_eq!(out[..5], mac(0)[..5]);
        Ok(out[5])
    }

    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = self.engine.status().unwrap().drops;
        drops.retain(|_, count| *count > 0);
        drops
    }

    pub(crate) fn status(&self) -> BTreeMap<String, wire::MemberStatus> {
        let status = self.engine.status().unwrap();
        let [pool] = &status.pools[..] else { panic!("one pool") };
        pool.members.iter().map(|member| (member.name.clone(), member.clone())).collect()
    }
}

/// The first packet of a flow from this client port, and one from its middle.
pub(crate) fn tcp(port: u16) -> (Vec<u8>, Vec<u8>) {
    let frame = Frame::v4(CLIENT, VIP);
    (frame.tcp(port, 80, frames::SYN, port.into()), frame.tcp(port, 80, frames::ACK, 9))
}
