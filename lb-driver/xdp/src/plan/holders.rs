//! Members by their slots, and back.

use std::{collections::BTreeMap, net::IpAddr};

use lb_driver::model::Owner;

use super::{Book, Identity};
use crate::sync::Holder;

/// Members by slot, with the slot's generation.
pub type Holders = BTreeMap<u16, (Holder, u32)>;

impl Book {
    /// The slot of a member at this address, and the slot's generation.
    pub fn place(&self, pool: &Owner, member: &str, address: IpAddr) -> Option<(u16, u32)> {
        let (slot, held, _) = self.members.get(&(pool.clone(), member.to_owned()))?;
        let slot = u16::try_from(*slot).ok().filter(|_| *held == address)?;
        Some((slot, self.generations.get(&slot.into()).copied()?))
    }

    /// Whose slots are, and their generations.
    pub fn holders(&self) -> Holders {
        let holder = |((pool, name), (slot, address, _)): (&(Owner, String), &(u32, IpAddr, Identity))| {
            let holder = Holder { pool: pool.clone(), name: name.clone(), address: *address };
            Some((u16::try_from(*slot).ok()?, (holder, self.generations.get(slot).copied()?)))
        };
        self.members.iter().filter_map(holder).collect()
    }
}
