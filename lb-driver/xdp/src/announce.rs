//! Tells neighbours where VIPs on the link are: unasked, when this instance begins to answer for them, and to those who
//! make sure that nobody has an address before they take it (RFC 4862), which the data plane leaves to the kernel.
//!
//! Frames go out by a packet socket. Solicitations for IPv6 addresses are sent to groups: they are joined, so that cards
//! and switches let them through.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use lb_driver::model::MacAddr;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::link::Interface;

mod frames;

/// How often neighbours are told of an address, and how long after one another: a frame may be lost.
const ROUNDS: u8 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Frames that are sent at one go, and how long after one another.
const BURST: usize = 128;
const BREATH: Duration = Duration::from_millis(2);
/// Groups that one socket joins: the kernel bounds what a socket may take.
const GROUPS: usize = 64;

/// VIPs on the link, and whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnLink {
    /// The addresses.
    pub vips: BTreeSet<IpAddr>,
    /// Whether neighbours shall send to this instance what is for them.
    pub active: bool,
    /// Another number when they shall be told anew, though nothing else has changed.
    pub again: u64,
}

/// Why neighbours cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The interface has no address of its own.
    #[error("interface {0}: no link address")]
    Interface(String),
    /// Neither a frame can be sent nor a solicitation be heard: it takes CAP_NET_RAW.
    #[error("on_link: a socket that tells neighbours of VIPs: {0}")]
    Socket(#[from] io::Error),
}

/// The way to the neighbours.
pub struct Announcer {
    own: MacAddr,
    interface: u32,
    frames: OwnedFd,
    solicitations: Option<UdpSocket>,
    groups: Groups,
}

impl Announcer {
    /// Opens the sockets; nobody is told anything yet.
    pub fn open(interface: &Interface) -> Result<Self, AnnounceError> {
        let missing = || AnnounceError::Interface(interface.name.clone());
        // The address is one that the kernel gave: to make one up takes unsafe code.
        let address = nix::ifaddrs::getifaddrs()
            .map_err(io::Error::from)?
            .filter(|found| found.interface_name == interface.name)
            .find_map(|found| found.address?.as_link_addr().copied())
            .ok_or_else(missing)?;
        // Without a protocol it hears nothing.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let frames = socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(io::Error::from)?;
        bind(frames.as_raw_fd(), &address).map_err(io::Error::from)?;
        let solicitations = match hear(interface) {
            Ok(socket) => Some(socket),
            // A host may have no IPv6 at all; then nobody asks it for such VIPs.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) => None,
            Err(error) => return Err(error.into()),
        };
        let groups = Groups { interface: interface.index, sockets: Vec::new() };
        Ok(Self { own: interface.mac, interface: interface.index, frames, solicitations, groups })
    }

    /// Tells neighbours of what is on the link until `stop`.
    pub async fn keep_told(mut self, mut on_link: watch::Receiver<OnLink>, stop: CancellationToken) {
        let (mut known, mut times) = (BTreeSet::new(), 0);
        let mut due: BTreeMap<IpAddr, u8> = BTreeMap::new();
        let mut next = Instant::now();
        loop {
            let OnLink { vips, active, again } = on_link.borrow_and_update().clone();
            self.groups.hold(&vips);
            let here = if active { vips } else { BTreeSet::new() };
            due.retain(|vip, _| here.contains(vip));
            if times != again {
                (times, known) = (again, BTreeSet::new());
            }
            if here.iter().any(|vip| !known.contains(vip)) {
                due.extend(here.difference(&known).map(|vip| (*vip, ROUNDS)));
                next = Instant::now();
            }
            known = here;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = on_link.changed() => if changed.is_err() { return },
                asked = heard(self.solicitations.as_ref()) => self.answer(asked, &known),
                () = sleep_until(next), if !due.is_empty() => {
                    self.round(due.keys()).await;
                    due.retain(|_, rounds| {
                        *rounds -= 1;
                        *rounds > 0
                    });
                    next = Instant::now() + PAUSE;
                }
            }
        }
    }

    async fn round(&self, vips: impl Iterator<Item = &IpAddr>) {
        let (mut told, mut failed) = (0, None);
        for vip in vips {
            match self.tell(*vip) {
                Ok(()) => told += 1,
                Err(error) => failed = Some(error),
            }
            if told % BURST == 0 {
                sleep(BREATH).await;
            }
        }
        if let Some(error) = failed {
            tracing::warn!(%error, "not all neighbours could be told of VIPs on the link");
        }
        tracing::debug!(vips = told, "neighbours are told of VIPs on the link");
    }

    fn tell(&self, vip: IpAddr) -> io::Result<()> {
        let frame = frames::announcement(vip, self.own);
        send(self.frames.as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }

    /// An address that is ours is told to whoever is about to take it.
    fn answer(&self, asked: io::Result<Ipv6Addr>, known: &BTreeSet<IpAddr>) {
        let done = match asked {
            Ok(target) if known.contains(&target.into()) => {
                tracing::warn!(address = %target, interface = self.interface, "another host is about to take a VIP");
                self.tell(target.into())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "neighbours that make sure of an address");
        }
    }
}

/// Hears what comes to this host by ICMPv6.
fn hear(interface: &Interface) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_nonblocking(true)?;
    // no datagrams of UDP, but received like these
    UdpSocket::from_std(socket.into())
}

/// The address that somebody is about to take, as soon as somebody is.
async fn heard(socket: Option<&UdpSocket>) -> io::Result<Ipv6Addr> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut message = [0; 128];
    loop {
        let (length, from) = match socket.recv_from(&mut message).await {
            Ok(heard) => heard,
            Err(error) => {
                sleep(PAUSE).await;
                return Err(error);
            }
        };
        if let SocketAddr::V6(from) = from
            && from.ip().is_unspecified()
            && let Some(target) = frames::solicited(&message[..length])
        {
            return Ok(target);
        }
    }
}

/// Groups that solicitations for addresses are sent to.
struct Groups {
    interface: u32,
    sockets: Vec<(Socket, BTreeSet<Ipv6Addr>)>,
}

impl Groups {
    /// Is in the groups of these addresses, and in no other.
    fn hold(&mut self, vips: &BTreeSet<IpAddr>) {
        let group = |vip: &IpAddr| match vip {
            IpAddr::V6(vip) => Some(frames::group(*vip)),
            IpAddr::V4(_) => None,
        };
        let mut wanted: BTreeSet<Ipv6Addr> = vips.iter().filter_map(group).collect();
        let interface = self.interface;
        for (socket, joined) in &mut self.sockets {
            joined
                .retain(|group| wanted.remove(group) || socket.leave_multicast_v6(group, interface).is_err());
        }
        self.sockets.retain(|(_, joined)| !joined.is_empty());
        for group in wanted {
            if let Err(error) = self.join(group) {
                tracing::warn!(%group, %error, "solicitations to the group may not come through");
            }
        }
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        if self.sockets.iter().all(|(_, joined)| joined.len() >= GROUPS) {
            self.sockets.push((Socket::new(Domain::IPV6, Type::DGRAM, None)?, BTreeSet::new()));
        }
        if let Some((socket, joined)) = self.sockets.iter_mut().find(|(_, joined)| joined.len() < GROUPS) {
            socket.join_multicast_v6(&group, self.interface)?;
            joined.insert(group);
        }
        Ok(())
    }
}
