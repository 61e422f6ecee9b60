//! Which aligned block of a VIP range a cluster gets.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::ranges::{Span, lowest_free};
use crate::refusal::{Kind, Refusal};

/// A range that VIPs are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VipRange {
    /// Its first address.
    pub first: IpAddr,
    /// Its last address.
    pub last: IpAddr,
    /// Prefix length of a cluster's block.
    pub prefix: u8,
}

/// The lowest block that neither a cluster has (`owned`) nor holds somebody else's address (`foreign`).
pub fn next_block(range: VipRange, owned: &[IpNetwork], foreign: &[IpNetwork]) -> Result<IpNetwork, Refusal> {
    let VipRange { first, last, prefix } = range;
    let Some(span) = Span::between(first, last) else {
        return Err(Refusal::new(Kind::Exhausted, format!("VIP range {first}-{last}: it has no addresses")));
    };
    let taken: Vec<Span> = owned.iter().chain(foreign).map(|b| Span::of(*b)).collect();
    lowest_free(span, prefix, &taken).map_err(|full| {
        let used = owned.iter().filter(|b| span.overlaps(Span::of(**b))).count();
        let strange = match foreign.len() {
            0 => String::new(),
            n => format!(", {n} hold addresses of ports that are not AKE's"),
        };
        Refusal::new(
            Kind::Exhausted,
            format!(
                "VIP range {first}-{last}: no block of size /{prefix} is free: {used} of {} are in use{strange}; a \
                 cluster that is deleted frees its own, and the operator can widen the range",
                full.blocks
            ),
        )
        .of_field("address")
    })
}

/// The block of an adopted address, if no cluster has it (`owned`).
pub fn adopted(address: IpAddr, owned: &[IpNetwork]) -> Result<IpNetwork, Refusal> {
    match owned.iter().any(|block| block.contains(address)) {
        true => Err(Refusal::conflict(format!("adopt: {address}: a cluster has this address already"))
            .of_field("adopt")),
        false => Ok(address.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> VipRange {
        VipRange { first: "203.0.113.16".parse().unwrap(), last: "203.0.113.63".parse().unwrap(), prefix: 28 }
    }

    #[test]
    fn the_lowest_block_that_is_nobodys_is_given() {
        let first = next_block(range(), &[], &[]).unwrap();
        assert_eq!(first.to_string(), "203.0.113.16/28");
        let next = next_block(range(), &[first], &["203.0.113.32/28".parse().unwrap()]).unwrap();
        assert_eq!(next.to_string(), "203.0.113.48/28");
    }

    #[test]
    fn an_exhausted_range_names_range_size_and_use() {
        let owned = ["203.0.113.16/28".parse().unwrap(), "203.0.113.32/28".parse().unwrap()];
        let refusal = next_block(range(), &owned, &["203.0.113.48/28".parse().unwrap()]).unwrap_err();
        assert_eq!(refusal.kind, Kind::Exhausted);
        for word in ["203.0.113.16-203.0.113.63", "/28", "2 of 3", "1 hold addresses"] {
            assert!(refusal.message.contains(word), "{refusal}");
        }
    }
}
