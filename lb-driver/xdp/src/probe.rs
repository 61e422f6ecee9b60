//! Connections to a VIP by way of one member.
//!
//! A socket with the member's mark connects to the VIP as any client would. `bpf/probe.bpf.c`, at the interface's way
//! out, puts the member's MAC address on what carries the mark. A rule sends such packets out by the interface whatever
//! the main routing table says, so VIPs on the link, for which only this host answers neighbours, are checked as well.
//! The answer comes straight to this host's own address. No VIP may be bound here: the answer would be a martian.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, MapError},
    programs::{ProgramError, SchedClassifier, TcAttachType},
};
use lb_driver::model::MacAddr;
use netlink_packet_route::{
    AddressFamily,
    route::RouteMessage,
    rule::{RuleAction, RuleAttribute},
};
use rtnetlink::{Handle, RouteMessageBuilder, RuleAddRequest};
use socket2::SockRef;
use tokio::net::TcpSocket;

use crate::link::Interface;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe.bpf.o"));
const PROGRAM: &str = "ake_probe";
/// Upper half of every mark; the lower one is the member's.
const MARK: u32 = 0x414b_0000;
const MARK_MASK: u32 = 0xffff_0000;
/// Table of the route for marked packets, and priority of its rule.
const TABLE: u32 = 0x414b;
/// What the route goes by. Nobody has these addresses: the MAC address is put on later.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 65, 75);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x414b, 0x4501);
const GATEWAY_MAC: [u8; 6] = [0x02, 0x41, 0x4b, 0x45, 0x00, 0x01];

/// Why VIPs cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The object was refused.
    #[error("loading the checks' program: {0}")]
    Load(#[from] aya::EbpfError),
    /// The program was refused, or could not be attached.
    #[error("the checks' program: {0}")]
    Program(#[from] ProgramError),
    /// The object is not the one that this program was built for.
    #[error("the checks' object has no {0}")]
    Missing(&'static str),
    /// A member's station could not be written.
    #[error("map stations: {0}")]
    Station(#[from] MapError),
    /// No netlink.
    #[error("netlink: {0}")]
    Netlink(io::Error),
    /// A rule, route or neighbour was refused.
    #[error("{what} of the checks of VIPs: {cause}")]
    Route {
        /// Which.
        what: &'static str,
        /// Why.
        cause: rtnetlink::Error,
    },
    /// More members than marks.
    #[error("limits.members: no mark is left for a check of a VIP")]
    Full,
}

/// Gives marks to members. What it attached goes with the value.
pub struct Prober {
    _object: Ebpf,
    stations: Array<MapData, [u8; 8]>,
    /// Marks' lower halves, and the MAC addresses behind them, where they are known.
    held: BTreeMap<IpAddr, (u32, Option<MacAddr>)>,
    free: VecDeque<u32>,
}

impl Prober {
    /// One for as many members, at this interface.
    pub fn start(interface: &Interface, members: u32) -> Result<Self, ProbeError> {
        let mut object = EbpfLoader::new().map_max_entries("stations", members).load(OBJECT)?;
        let program = object.program_mut(PROGRAM).ok_or(ProbeError::Missing(PROGRAM))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        program.attach(&interface.name, TcAttachType::Egress)?;
        let stations = object.take_map("stations").ok_or(ProbeError::Missing("stations"))?;
        let stations = Array::try_from(stations)?;
        Ok(Self { _object: object, stations, held: BTreeMap::new(), free: (0..members).collect() })
    }

    /// Knows exactly these members from now on; how many writes that took.
    pub fn assign(&mut self, members: &BTreeMap<IpAddr, Option<MacAddr>>) -> Result<u64, ProbeError> {
        let mut writes = 0;
        let gone: Vec<IpAddr> =
            self.held.keys().filter(|held| !members.contains_key(*held)).copied().collect();
        for address in gone {
            if let Some((index, _)) = self.held.remove(&address) {
                self.stations.set(index, [0; 8], 0)?;
                self.free.push_back(index);
                writes += 1;
            }
        }
        for (address, mac) in members {
            let held = self.held.get(address).copied();
            if held.is_some_and(|(_, held)| held == *mac) {
                continue;
            }
            let index = match held {
                Some((index, _)) => index,
                None => self.free.pop_front().ok_or(ProbeError::Full)?,
            };
            self.held.insert(*address, (index, *mac));
            let mut station = [0; 8];
            if let Some(mac) = mac {
                station[..6].copy_from_slice(&mac.octets());
                station[6..].copy_from_slice(&1u16.to_ne_bytes());
            }
            self.stations.set(index, station, 0)?;
            writes += 1;
        }
        Ok(writes)
    }

    /// The mark of what goes to a member.
    pub fn mark(&self, member: IpAddr) -> Option<u32> {
        self.held.get(&member).map(|(index, _)| MARK | index)
    }
}

/// Whether a connection to a VIP is accepted, sent with a member's mark.
pub async fn connect(vip: SocketAddr, mark: u32) -> io::Result<()> {
    let socket = if vip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_mark(mark)?;
    // Ports would run out if connections lingered.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let stream = socket.connect(vip).await?;
    if stream.local_addr()?.ip() == vip.ip() {
        return Err(io::Error::other("the VIP is an address of the balancer's own host: it must not be"));
    }
    Ok(())
}

/// Sends marked packets out by the interface. Right at any time: what is there already stays.
pub async fn route(interface: &Interface) -> Result<(), ProbeError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(ProbeError::Netlink)?;
    let connection = tokio::spawn(connection);
    let mut done = Ok(());
    for way in ways(interface.index) {
        let added = way.add(&handle, interface.index).await;
        match added {
            // A host may have no IPv6 at all; then it has no VIPs to check either.
            Err(error) if way.gateway.is_ipv6() => tracing::warn!(%error, "VIPs of IPv6 cannot be checked"),
            added => done = done.and(added),
        }
    }
    connection.abort();
    done
}

/// Takes away what [`route`] made, as far as it is there.
pub async fn unroute(interface: &Interface) -> Result<(), ProbeError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(ProbeError::Netlink)?;
    let connection = tokio::spawn(connection);
    for way in ways(interface.index) {
        let rule = handle.rule().del(way.rule(&handle).message_mut().clone()).execute().await;
        let route = handle.route().del(way.route.clone()).execute().await;
        let mut neighbour = handle.neighbours().add(interface.index, way.gateway);
        let neighbour = handle.neighbours().del(neighbour.message_mut().clone()).execute().await;
        for (what, gone) in [("rule", rule), ("route", route), ("neighbour", neighbour)] {
            if let Err(error) = gone {
                tracing::debug!(%error, what, "was not there");
            }
        }
    }
    connection.abort();
    Ok(())
}

/// How marked packets of one family go out.
struct Way {
    gateway: IpAddr,
    route: RouteMessage,
}

fn ways(interface: u32) -> [Way; 2] {
    let four = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY);
    let six = RouteMessageBuilder::<Ipv6Addr>::new().gateway(GATEWAY6);
    let four = four.output_interface(interface).table_id(TABLE).onlink().build();
    let six = six.output_interface(interface).table_id(TABLE).onlink().build();
    [Way { gateway: GATEWAY.into(), route: four }, Way { gateway: GATEWAY6.into(), route: six }]
}

impl Way {
    fn rule(&self, handle: &Handle) -> RuleAddRequest {
        let rule = handle.rule().add().table_id(TABLE).action(RuleAction::ToTable);
        let mut rule = rule.priority(TABLE).fw_mark(MARK);
        rule.message_mut().attributes.push(RuleAttribute::FwMask(MARK_MASK));
        rule.message_mut().header.family = match self.gateway {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        rule
    }

    async fn add(&self, handle: &Handle, interface: u32) -> Result<(), ProbeError> {
        let neighbour = handle.neighbours().add(interface, self.gateway).link_layer_address(&GATEWAY_MAC);
        there(neighbour.replace().execute().await, "neighbour")?;
        there(handle.route().add(self.route.clone()).replace().execute().await, "route")?;
        there(self.rule(handle).execute().await, "rule")
    }
}

/// What is there already is as it should be.
fn there(added: Result<(), rtnetlink::Error>, what: &'static str) -> Result<(), ProbeError> {
    match added {
        Err(rtnetlink::Error::NetlinkError(message))
            if message.to_io().kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        added => added.map_err(|cause| ProbeError::Route { what, cause }),
    }
}
