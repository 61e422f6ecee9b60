//! From a state and what is known of its members to what the kernel's maps shall hold, and from there to
//! writes. No IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnetwork::IpNetwork;
use lb_driver::{
    model::{Affinity, Endpoint, Member, Owner, Pool, State},
    ring::{self, Share},
    vendor::xdp::wire,
};

use crate::{
    config::Limits,
    memory::{Identity, Memory, Place},
};

pub use holders::Holders;
pub use places::Full;
use places::Places;
pub use tables::{Listener, Station, Tables, Write, writes};

/// What a member takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Packets.
    Well,
    /// Those of connections that it has: nobody else could go on with them.
    Unwell,
    /// The same, while nobody is heard: it was well before, and is taken for well by a process that begins then.
    Unheard,
    /// Nothing. Connections are sent elsewhere, where they are reset: their clients learn at once that they are over.
    Down,
}

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

    /// How much a state may have.
    pub fn limits(&self) -> wire::Limits {
        let Limits { listeners, pools, members, source_ranges, .. } = self.limits;
        wire::Limits {
            // each has a VIP, most of the time of its own
            load_balancers: Some(listeners),
            listeners: Some(listeners),
            pools: Some(pools),
            members: Some(members),
            source_ranges: Some(source_ranges),
        }
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

    /// What the maps shall hold for `state`, where `standing` says what members take.
    pub fn tables(
        &mut self,
        state: &State,
        standing: impl Fn(&Pool, &Member) -> Standing,
    ) -> Result<Tables, Full> {
        self.claim(state);
        self.forget(state);
        let mut tables = Tables::default();
        for (owner, pool) in &state.pools {
            let shares = self.stations(owner, pool, &standing, &mut tables)?;
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
        standing: &impl Fn(&Pool, &Member) -> Standing,
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
            let standing = standing(pool, member);
            let mac = member.mac.filter(|_| standing != Standing::Down);
            let well = mac.is_some() && standing == Standing::Well;
            let generation = self.generations.get(&place).copied().unwrap_or_default();
            let alive = well || (mac.is_some() && standing == Standing::Unheard);
            tables.places.insert(slot, Place { identity, generation, alive });
            tables.members.insert(slot, Station { mac, well, generation });
            if well && !member.draining && member.weight > 0 {
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

/// Whom a port lets in, as a number of 24 bits: the same after a restart, never 0.
fn terms(vip: IpAddr, endpoint: Endpoint, ranges: &BTreeSet<IpNetwork>) -> u32 {
    let text = format!("{vip} {} {} {ranges:?}", endpoint.protocol.number(), endpoint.port);
    (ring::hash(text.as_bytes()) as u32 & 0xff_ffff).max(1)
}

mod holders;
mod places;
mod tables;
#[cfg(test)]
mod tests;
