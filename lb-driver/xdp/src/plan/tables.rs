//! What the kernel's maps hold, and the writes from one content to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnetwork::IpNetwork;
use lb_driver::model::{Endpoint, MacAddr};

use crate::memory::{Identity, Memory, Place};

/// What the maps shall hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Whose each member's slot is.
    pub places: BTreeMap<u16, Place>,
    /// Whose the counters of ports are.
    pub ports: BTreeMap<u32, Identity>,
    /// Members by slot.
    pub members: BTreeMap<u16, Station>,
    /// Rings by index; slots hold members' slots.
    pub rings: BTreeMap<u32, Arc<Vec<u16>>>,
    /// Source ranges by access list.
    pub sources: BTreeSet<(u32, IpNetwork)>,
    /// All VIPs, and whether neighbours get an answer when they ask for them.
    pub vips: BTreeMap<IpAddr, bool>,
    /// Ports of VIPs.
    pub listeners: BTreeMap<(IpAddr, Endpoint), Listener>,
}

/// A member, to the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// Where its packets go; none while it is down.
    pub mac: Option<MacAddr>,
    /// Whether it may take what belongs to no connection of its own.
    pub well: bool,
    /// Tells its flows from those of a former owner of its slot.
    pub generation: u32,
}

/// A VIP's port, to the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Index of its counters.
    pub id: u32,
    /// Index of its pool's ring.
    pub ring: u32,
    /// Its access list, 0 for everybody.
    pub acl: u32,
    /// Whom it lets in, as a fingerprint of 24 bits: a flow that was let in by others is asked again.
    pub terms: u32,
    /// Whether flows are spread by the client's address alone.
    pub client_ip: bool,
}

/// One write to the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A member's flow counter begins anew.
    ZeroMember(u16),
    /// A port's counters begin anew.
    ZeroListener(u32),
    /// A member's slot is so-and-so's.
    Place(u16, Place),
    /// A port's counters are so-and-so's.
    Port(u32, Identity),
    /// A member is so.
    Member(u16, Station),
    /// A ring is swapped for this one.
    Ring(u32, Arc<Vec<u16>>),
    /// A range is let in.
    Source(u32, IpNetwork),
    /// An address is a VIP, on the link or routed to us.
    Vip(IpAddr, bool),
    /// A VIP's port is so.
    Listener(IpAddr, Endpoint, Listener),
    /// A VIP's port is closed.
    CloseListener(IpAddr, Endpoint),
    /// An address is no VIP any more.
    CloseVip(IpAddr),
    /// A range is not let in any more.
    CloseSource(u32, IpNetwork),
    /// A ring is emptied.
    CloseRing(u32),
    /// A slot is nobody's; the generation stays, so that its flows stay ignored.
    CloseMember(u16),
    /// A port's counters are nobody's.
    ClosePort(u32),
}

/// The writes between two contents, in an order in which no packet meets half of a change: what is pointed
/// at comes before what points at it, and goes after it.
pub fn writes(from: &Tables, to: &Tables) -> Vec<Write> {
    let mut writes = Vec::new();
    for (slot, place) in &to.places {
        let before = from.places.get(slot);
        if before.is_none_or(|before| before.identity != place.identity) {
            writes.push(Write::ZeroMember(*slot));
        }
        if before != Some(place) {
            writes.push(Write::Place(*slot, *place));
        }
    }
    for (id, port) in &to.ports {
        if from.ports.get(id) != Some(port) {
            writes.push(Write::ZeroListener(*id));
            writes.push(Write::Port(*id, *port));
        }
    }
    let members = to.members.iter().filter(|(slot, station)| from.members.get(*slot) != Some(*station));
    let (up, down): (Vec<_>, Vec<_>) = members.partition(|(_, station)| station.mac.is_some());
    let write = |(slot, station): (&u16, &Station)| Write::Member(*slot, *station);
    writes.extend(up.into_iter().map(write));
    for (index, ring) in &to.rings {
        if from.rings.get(index) != Some(ring) {
            writes.push(Write::Ring(*index, ring.clone()));
        }
    }
    // a ring that still has a member that is down already would lose new flows
    writes.extend(down.into_iter().map(write));
    writes.extend(to.sources.difference(&from.sources).map(|(acl, range)| Write::Source(*acl, *range)));
    let new = to.vips.iter().filter(|(vip, on_link)| from.vips.get(*vip) != Some(*on_link));
    writes.extend(new.map(|(vip, on_link)| Write::Vip(*vip, *on_link)));
    for (key, listener) in &to.listeners {
        if from.listeners.get(key) != Some(listener) {
            writes.push(Write::Listener(key.0, key.1, *listener));
        }
    }
    let closed = from.listeners.keys().filter(|key| !to.listeners.contains_key(key));
    writes.extend(closed.map(|(vip, endpoint)| Write::CloseListener(*vip, *endpoint)));
    let gone = from.vips.keys().filter(|vip| !to.vips.contains_key(vip));
    writes.extend(gone.map(|vip| Write::CloseVip(*vip)));
    writes.extend(from.sources.difference(&to.sources).map(|(acl, range)| Write::CloseSource(*acl, *range)));
    let gone = from.rings.keys().filter(|index| !to.rings.contains_key(index));
    writes.extend(gone.map(|index| Write::CloseRing(*index)));
    let gone = from.places.keys().filter(|slot| !to.places.contains_key(slot));
    writes.extend(gone.map(|slot| Write::CloseMember(*slot)));
    writes.extend(from.ports.keys().filter(|id| !to.ports.contains_key(id)).map(|id| Write::ClosePort(*id)));
    writes
}

impl Tables {
    /// What the maps hold of a former process.
    pub fn recall(memory: &Memory) -> Self {
        Self { places: memory.places.clone(), ports: memory.ports.clone(), ..Self::default() }
    }

    /// What the maps hold once a write was performed.
    pub fn perform(&mut self, write: &Write) {
        match write {
            Write::ZeroMember(_) | Write::ZeroListener(_) => {}
            Write::Place(slot, place) => {
                self.places.insert(*slot, *place);
            }
            Write::Port(id, port) => {
                self.ports.insert(*id, *port);
            }
            Write::Member(slot, station) => {
                self.members.insert(*slot, *station);
            }
            Write::Ring(index, ring) => {
                self.rings.insert(*index, ring.clone());
            }
            Write::Source(acl, range) => {
                self.sources.insert((*acl, *range));
            }
            Write::Vip(vip, on_link) => {
                self.vips.insert(*vip, *on_link);
            }
            Write::Listener(vip, endpoint, listener) => {
                self.listeners.insert((*vip, *endpoint), *listener);
            }
            Write::CloseListener(vip, endpoint) => {
                self.listeners.remove(&(*vip, *endpoint));
            }
            Write::CloseVip(vip) => {
                self.vips.remove(vip);
            }
            Write::CloseSource(acl, range) => {
                self.sources.remove(&(*acl, *range));
            }
            Write::CloseRing(index) => {
                self.rings.remove(index);
            }
            Write::CloseMember(slot) => {
                self.places.remove(slot);
                self.members.remove(slot);
            }
            Write::ClosePort(id) => {
                self.ports.remove(id);
            }
        }
    }
}
