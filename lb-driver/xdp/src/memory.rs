//! What the kernel's tables say of the process that wrote them: who had which place.
//!
//! A flow names its member by a place, so a process that takes the flow table over must give every member the
//! place that it had. That stands in tables of its own which live exactly as long as the flow table: nothing on a
//! disk could be older or newer than the flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_driver::model::{Endpoint, Owner};
use sha2::{Digest as _, Sha256};

/// `identity[16], generation, flags`.
pub type PlaceRecord = [u8; 24];
/// `identity[16]`.
pub type PortRecord = [u8; 16];

const ALIVE: u32 = 1;

/// Tells one holder of a place from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Identity([u8; 16]);

impl Identity {
    /// Of a member: another address is another machine, which knows nothing of the flows.
    pub fn member(pool: &Owner, name: &str, address: IpAddr) -> Self {
        Self::of(&[&pool.to_string(), name, &address.to_string()])
    }

    /// Of a port of a VIP.
    pub fn port(balancer: &Owner, vip: IpAddr, endpoint: Endpoint) -> Self {
        Self::of(&[&balancer.to_string(), &vip.to_string(), &endpoint.to_string()])
    }

    fn of(words: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for word in words {
            hash.update(word.as_bytes());
            hash.update([0]);
        }
        let mut identity = [0; 16];
        identity.copy_from_slice(&hash.finalize()[..16]);
        Self(identity)
    }

    fn nobody(self) -> bool {
        self == Self::default()
    }
}

/// A member's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub identity: Identity,
    /// Tells its flows from those of a former owner.
    pub generation: u32,
    /// Whether the member took packets.
    pub alive: bool,
}

impl Place {
    /// As the table holds it.
    pub fn record(&self) -> PlaceRecord {
        let mut record = [0; 24];
        record[..16].copy_from_slice(&self.identity.0);
        record[16..20].copy_from_slice(&self.generation.to_ne_bytes());
        record[20..].copy_from_slice(&(u32::from(self.alive) * ALIVE).to_ne_bytes());
        record
    }

    /// A place that is nobody's; the generation stays, so that its flows stay ignored.
    pub fn closed(record: PlaceRecord) -> PlaceRecord {
        let mut closed = [0; 24];
        closed[16..20].copy_from_slice(&record[16..20]);
        closed
    }
}

/// A port's place, as the table holds it.
pub fn port_record(identity: Identity) -> PortRecord {
    identity.0
}

/// Who had which place when the tables were taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Members' places that have an owner.
    pub places: BTreeMap<u16, Place>,
    /// Generations of all members' places that ever had one.
    pub generations: BTreeMap<u32, u32>,
    /// Ports' places that have an owner.
    pub ports: BTreeMap<u32, Identity>,
}

impl Memory {
    /// Takes in a record of the members' table.
    pub fn place(&mut self, slot: u16, record: PlaceRecord) {
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&record[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        let mut identity = Identity::default();
        identity.0.copy_from_slice(&record[..16]);
        let generation = word(16);
        if generation > 0 {
            self.generations.insert(slot.into(), generation);
        }
        if !identity.nobody() {
            self.places.insert(slot, Place { identity, generation, alive: word(20) & ALIVE != 0 });
        }
    }

    /// Takes in a record of the ports' table.
    pub fn port(&mut self, id: u32, record: PortRecord) {
        if !Identity(record).nobody() {
            self.ports.insert(id, Identity(record));
        }
    }

    /// The members that took packets.
    pub fn alive(&self) -> BTreeSet<Identity> {
        self.places.values().filter(|place| place.alive).map(|place| place.identity).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_remembered() {
        let pool = Owner::new("project", "cluster", "nodes").unwrap();
        let identity = Identity::member(&pool, "w0", [192, 168, 77, 20].into());
        let place = Place { identity, generation: 7, alive: true };
        let mut memory = Memory::default();
        memory.place(3, place.record());
        memory.place(4, Place::closed(place.record()));
        memory.place(5, [0; 24]);
        assert_eq!(memory.places, BTreeMap::from([(3, place)]));
        assert_eq!(memory.generations, BTreeMap::from([(3, 7), (4, 7)]));
        assert_eq!(memory.alive(), BTreeSet::from([identity]));
    }

    #[test]
    fn another_address_is_another_member() {
        let pool = Owner::new("project", "cluster", "nodes").unwrap();
        let of = |name, end| Identity::member(&pool, name, [192, 168, 77, end].into());
        assert_ne!(of("w0", 20), of("w0", 21));
        assert_ne!(of("w0", 20), of("w1", 20));
    }
}
