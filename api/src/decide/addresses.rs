//! Which address of its blocks a cluster's VIP gets.

use std::{collections::BTreeMap, net::IpAddr};

use ake_api_client::{AddressRequest, Family};
use ipnetwork::IpNetwork;

use super::ranges::Span;
use crate::refusal::Refusal;

/// What can be done about a wish for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Address(IpAddr),
    /// All addresses of the cluster's blocks of this family are in use: another block is needed first.
    NeedsBlock(Family),
}

/// Chooses the wished address, or the lowest free one of the family; `taken` names who has an address.
pub fn choose(
    request: &AddressRequest,
    blocks: &[IpNetwork],
    taken: &BTreeMap<IpAddr, &str>,
) -> Result<Choice, Refusal> {
    if let Some(wished) = request.address {
        return if !blocks.iter().any(|b| b.contains(wished)) {
            Err(Refusal::invalid(
                "address",
                wished,
                format!("expected an address of the cluster's own VIP blocks, {}", listed(blocks)),
            ))
        } else if let Some(holder) = taken.get(&wished) {
            Err(Refusal::conflict(format!(
                "address: {wished}: already taken by address {holder} of this cluster; expected a free one of {}, or \
                 none to have one chosen",
                listed(blocks)
            ))
            .of_field("address"))
        } else {
            Ok(Choice::Address(wished))
        };
    }
    let v4 = request.family == Family::V4;
    let free = blocks
        .iter()
        .filter(|block| block.is_ipv4() == v4)
        .flat_map(|block| Span::of(*block).addresses())
        .find(|address| !taken.contains_key(address));
    Ok(free.map_or(Choice::NeedsBlock(request.family), Choice::Address))
}

fn listed(blocks: &[IpNetwork]) -> String {
    blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Kind;

    fn blocks() -> Vec<IpNetwork> {
        ["203.0.113.16/30", "2001:db8:113::10/126"].iter().map(|b| b.parse().unwrap()).collect()
    }

    fn taken(addresses: &[&'static str]) -> BTreeMap<IpAddr, &'static str> {
        addresses.iter().map(|a| (a.parse().unwrap(), "web")).collect()
    }

    fn wish(address: Option<&str>, family: Family) -> AddressRequest {
        AddressRequest { address: address.map(|a| a.parse().unwrap()), family }
    }

    #[test]
    fn the_lowest_free_address_of_the_family_is_chosen() {
        for (family, used, expected) in [
            (Family::V4, &[][..], Choice::Address("203.0.113.16".parse().unwrap())),
            (Family::V4, &["203.0.113.16"], Choice::Address("203.0.113.17".parse().unwrap())),
            (Family::V6, &["203.0.113.16"], Choice::Address("2001:db8:113::10".parse().unwrap())),
            (
                Family::V4,
                &["203.0.113.16", "203.0.113.17", "203.0.113.18", "203.0.113.19"],
                Choice::NeedsBlock(Family::V4),
            ),
        ] {
            assert_eq!(choose(&wish(None, family), &blocks(), &taken(used)).unwrap(), expected);
        }
    }

    #[test]
    fn a_wished_address_must_be_the_clusters_and_free() {
        let wished = wish(Some("203.0.113.18"), Family::V4);
        assert_eq!(
            choose(&wished, &blocks(), &taken(&[])).unwrap(),
            Choice::Address("203.0.113.18".parse().unwrap())
        );
        let refusal = choose(&wished, &blocks(), &taken(&["203.0.113.18"])).unwrap_err();
        assert_eq!(refusal.kind, Kind::Conflict);
        assert!(refusal.message.contains("203.0.113.18: already taken by address web"), "{refusal}");
        let refusal = choose(&wish(Some("203.0.113.40"), Family::V4), &blocks(), &taken(&[])).unwrap_err();
        assert_eq!(refusal.kind, Kind::Invalid);
        assert!(
            refusal.message.contains("203.0.113.40") && refusal.message.contains("203.0.113.16/30"),
            "{refusal}"
        );
    }
}
