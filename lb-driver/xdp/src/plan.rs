//! From a state and what is known of its members to what the kernel's maps shall hold, and from there to
//! writes. No IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnetwork::IpNetwork;
use lb_driver::{
    model::{Affinity, Endpoint, MacAddr, Member, Owner, Pool, State},
    ring::{self, Share},
};

use crate::{
    config::Limits,
    memory::{Identity, Memory, Place},
};

pub use holders::Holders;
pub use places::Full;
use places::Places;

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
    /// Whom it lets in, as a fingerprint: a flow that was let in by others is asked again.
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
    /// Flows of the port that had these counters are let in no more.
    CloseTerms(u32),
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
    for (slot, station) in &to.members {
        if from.members.get(slot) != Some(station) {
            writes.push(Write::Member(*slot, *station));
        }
    }
    for (index, ring) in &to.rings {
        if from.rings.get(index) != Some(ring) {
            writes.push(Write::Ring(*index, ring.clone()));
        }
    }
    writes.extend(to.sources.difference(&from.sources).map(|(acl, range)| Write::Source(*acl, *range)));
    let new = to.vips.iter().filter(|(vip, on_link)| from.vips.get(*vip) != Some(*on_link));
    writes.extend(new.map(|(vip, on_link)| Write::Vip(*vip, *on_link)));
    for (key, listener) in &to.listeners {
        if from.listeners.get(key) != Some(listener) {
            writes.push(Write::Listener(key.0, key.1, *listener));
        }
    }
    let kept: BTreeSet<u32> = to.listeners.values().map(|listener| listener.id).collect();
    for ((vip, endpoint), listener) in &from.listeners {
        if !to.listeners.contains_key(&(*vip, *endpoint)) {
            writes.push(Write::CloseListener(*vip, *endpoint));
        }
        if !kept.contains(&listener.id) {
            writes.push(Write::CloseTerms(listener.id));
        }
    }
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
            Write::ZeroMember(_) | Write::ZeroListener(_) | Write::CloseTerms(_) => {}
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

/// Whether a member takes packets, and if not, why.
pub type Verdict = Result<(), String>;

/// Which place in the maps everything has. Places are kept as long as their owner, and given to another one
/// as late as possible.
#[derive(Debug, Clone)]
pub struct Book {
    slots: Places,
    rings: Places,
    listeners: Places,
    acls: Places,
    generations: BTreeMap<u32, u32>,
    members: BTreeMap<(Owner, String), (u32, IpAddr, Identity)>,
    pools: BTreeMap<Owner, Ring>,
    ports: BTreeMap<(Owner, IpAddr, Endpoint), (u32, Identity)>,
    lists: BTreeMap<Owner, (u32, BTreeSet<IpNetwork>)>,
    limits: Limits,
    on_link: Vec<IpNetwork>,
}

#[derive(Debug, Clone)]
struct Ring {
    index: u32,
    /// What it was built from: names, slots and weights.
    shares: Vec<(String, u16, u16)>,
    slots: Arc<Vec<u16>>,
}

impl Book {
    /// An empty one; VIPs in `on_link` are answered for.
    pub fn new(limits: Limits, on_link: Vec<IpNetwork>) -> Self {
        Self {
            slots: Places::new("members", "members", 0, limits.members),
            rings: Places::new("pools", "pools", 0, limits.pools),
            listeners: Places::new("listeners", "listeners", 0, limits.listeners),
            // 0 stands for everybody
            acls: Places::new("listeners", "load balancers with source ranges", 1, limits.listeners),
            generations: BTreeMap::new(),
            members: BTreeMap::new(),
            pools: BTreeMap::new(),
            ports: BTreeMap::new(),
            lists: BTreeMap::new(),
            limits,
            on_link,
        }
    }

    /// Gives everything the place that it had in a former process.
    #[must_use]
    pub fn recall(mut self, memory: &Memory) -> Self {
        self.slots.keep(memory.places.iter().map(|(slot, place)| (place.identity, u32::from(*slot))));
        self.listeners.keep(memory.ports.iter().map(|(id, identity)| (*identity, *id)));
        self.generations = memory.generations.clone();
        self
    }

    /// The slot of a member.
    pub fn slot(&self, pool: &Owner, member: &str) -> Option<u16> {
        let (slot, ..) = self.members.get(&(pool.clone(), member.to_owned()))?;
        u16::try_from(*slot).ok()
    }

    /// The ring of a pool: slots of its members.
    pub fn ring(&self, pool: &Owner) -> &[u16] {
        self.pools.get(pool).map_or(&[], |ring| &ring.slots)
    }

    /// The index of a port's counters.
    pub fn counters(&self, balancer: &Owner, vip: IpAddr, endpoint: Endpoint) -> Option<u32> {
        self.ports.get(&(balancer.clone(), vip, endpoint)).map(|(id, _)| *id)
    }

    /// What the maps shall hold for `state`, where `verdict` says which members take packets.
    pub fn tables(
        &mut self,
        state: &State,
        verdict: impl Fn(&Pool, &Member) -> Verdict,
    ) -> Result<Tables, Full> {
        self.claim(state);
        self.forget(state);
        let mut tables = Tables::default();
        for (owner, pool) in &state.pools {
            let shares = self.stations(owner, pool, &verdict, &mut tables)?;
            let ring = self.spread(owner, shares)?;
            tables.rings.insert(ring.index, ring.slots.clone());
        }
        for (owner, balancer) in &state.load_balancers {
            let acl = self.access_list(owner, &balancer.source_ranges)?;
            tables.sources.extend(balancer.source_ranges.iter().map(|range| (acl, *range)));
            let on_link = self.on_link.iter().any(|range| range.contains(balancer.vip));
            tables.vips.insert(balancer.vip, on_link);
            for (endpoint, pool) in &balancer.listeners {
                // checked: every pool that is named is there
                let Some(ring) = self.pools.get(pool).map(|ring| ring.index) else { continue };
                let key = (owner.clone(), balancer.vip, *endpoint);
                let (id, identity) = match self.ports.get(&key) {
                    Some(port) => *port,
                    None => {
                        let identity = Identity::port(owner, balancer.vip, *endpoint);
                        (self.listeners.take(identity)?.0, identity)
                    }
                };
                self.ports.insert(key, (id, identity));
                tables.ports.insert(id, identity);
                let client_ip = balancer.affinity == Affinity::ClientIp;
                let terms = terms(balancer.vip, *endpoint, &balancer.source_ranges);
                let listener = Listener { id, ring, acl, terms, client_ip };
                tables.listeners.insert((balancer.vip, *endpoint), listener);
            }
        }
        let full = |limit, what, size, count| {
            if count > size as usize { Err(Full { limit, size, what }) } else { Ok(()) }
        };
        full("source_ranges", "source ranges", self.limits.source_ranges, tables.sources.len())?;
        full("listeners", "VIPs", self.limits.listeners, tables.vips.len())?;
        Ok(tables)
    }

    /// Gives up the places of a former process that the state has no owner for; the others are taken up with it.
    fn claim(&mut self, state: &State) {
        self.slots.claim(state.pools.iter().flat_map(|(owner, pool)| {
            pool.members.iter().map(|(name, member)| Identity::member(owner, name, member.address))
        }));
        self.listeners.claim(state.load_balancers.iter().flat_map(|(owner, balancer)| {
            balancer.listeners.keys().map(|endpoint| Identity::port(owner, balancer.vip, *endpoint))
        }));
    }

    /// Gives up the places of what is not in the state, first of all: a full table must not refuse a
    /// state that makes room in it.
    fn forget(&mut self, state: &State) {
        let Self { slots, rings, listeners, acls, members, pools, ports, lists, .. } = self;
        members.retain(|(pool, name), (slot, address, _)| {
            let member = state.pools.get(pool).and_then(|pool| pool.members.get(name));
            // another address is another machine, which knows nothing of the flows
            let kept = member.is_some_and(|member| member.address == *address);
            kept || slots.give(*slot)
        });
        pools.retain(|owner, ring| state.pools.contains_key(owner) || rings.give(ring.index));
        ports.retain(|(owner, vip, endpoint), (id, _)| {
            let balancer = state.load_balancers.get(owner).filter(|balancer| balancer.vip == *vip);
            balancer.is_some_and(|b| b.listeners.contains_key(endpoint)) || listeners.give(*id)
        });
        // A list that changes gets another id: packets meet the old one or the new one, whole.
        lists.retain(|owner, (id, ranges)| {
            let kept = state.load_balancers.get(owner).is_some_and(|b| b.source_ranges == *ranges);
            kept || acls.give(*id)
        });
    }

    fn stations(
        &mut self,
        owner: &Owner,
        pool: &Pool,
        verdict: &impl Fn(&Pool, &Member) -> Verdict,
        tables: &mut Tables,
    ) -> Result<Vec<(String, u16, u16)>, Full> {
        let mut shares = Vec::new();
        for (name, member) in &pool.members {
            let key = (owner.clone(), name.clone());
            let (place, identity) = match self.members.get(&key) {
                Some((place, _, identity)) => (*place, *identity),
                None => {
                    let identity = Identity::member(owner, name, member.address);
                    let (place, new) = self.slots.take(identity)?;
                    *self.generations.entry(place).or_default() += u32::from(new);
                    (place, identity)
                }
            };
            self.members.insert(key, (place, member.address, identity));
            // limits.members ends before u16 does
            let slot = u16::try_from(place).unwrap_or(u16::MAX);
            let mac = member.mac.filter(|_| verdict(pool, member).is_ok());
            let generation = self.generations.get(&place).copied().unwrap_or_default();
            tables.places.insert(slot, Place { identity, generation, alive: mac.is_some() });
            tables.members.insert(slot, Station { mac, generation });
            if mac.is_some() && !member.draining && member.weight > 0 {
                shares.push((name.clone(), slot, member.weight));
            }
        }
        Ok(shares)
    }

    fn spread(&mut self, owner: &Owner, shares: Vec<(String, u16, u16)>) -> Result<&Ring, Full> {
        let old = self.pools.remove(owner);
        let index = match &old {
            Some(ring) => ring.index,
            None => self.rings.next()?,
        };
        let ring = match old {
            Some(ring) if ring.shares == shares => ring,
            _ => {
                let names: Vec<_> =
                    shares.iter().map(|(name, _, weight)| Share { name, weight: *weight }).collect();
                let places = ring::build(ring::size(names.len()), &names);
                let slots = places.iter().map(|place| shares[usize::from(*place)].1).collect();
                Ring { index, shares, slots: Arc::new(slots) }
            }
        };
        Ok(self.pools.entry(owner.clone()).or_insert(ring))
    }

    fn access_list(&mut self, owner: &Owner, ranges: &BTreeSet<IpNetwork>) -> Result<u32, Full> {
        if ranges.is_empty() {
            return Ok(0);
        }
        if let Some((id, _)) = self.lists.get(owner) {
            return Ok(*id);
        }
        let id = self.acls.next()?;
        self.lists.insert(owner.clone(), (id, ranges.clone()));
        Ok(id)
    }
}

/// Whom a port lets in, as a number: the same after a restart, never 0.
fn terms(vip: IpAddr, endpoint: Endpoint, ranges: &BTreeSet<IpNetwork>) -> u32 {
    let text = format!("{vip} {} {} {ranges:?}", endpoint.protocol.number(), endpoint.port);
    (ring::hash(text.as_bytes()) as u32).max(1)
}

mod holders;
mod places;
#[cfg(test)]
mod tests;
