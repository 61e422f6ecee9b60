//! Which address of its blocks a cluster's VIP gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{AddressRequest, Family};
use ipnetwork::IpNetwork;

use super::{
    facts::{PortFact, Retained},
    ranges::Span,
    wanted::ClusterRecord,
};
use crate::{
    refusal::Refusal,
    store::{BlockRecord, Loaded},
};

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
    taken: &BTreeMap<IpAddr, impl std::fmt::Display>,
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

/// An address that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The address.
    pub address: IpAddr,
    /// Id of the port that has it; none of a plain range.
    pub port: Option<String>,
    /// Id of its network; empty where there is no Neutron.
    pub network: String,
    /// Whether it is one that the project has retained.
    pub retained: bool,
}

/// Judges whether an address can be adopted that the project has retained. `found` is what it has by this address.
pub fn adopt_retained(
    request: &AddressRequest,
    address: IpAddr,
    project: &str,
    found: Option<&Retained>,
) -> Result<Adoption, Refusal> {
    let found = found.filter(|found| found.project == project && !found.going).ok_or_else(|| {
        let expected = format!(
            "expected an address that project {project} has retained, or the id of a port of its own; it has retained none such"
        );
        Refusal::invalid("adopt", address, expected)
    })?;
    match request.address {
        Some(wished) if wished != address => {
            Err(Refusal::invalid("address", wished, format!("expected none, or the one to adopt, {address}")))
        }
        None if address.is_ipv4() != (request.family == Family::V4) => Err(Refusal::invalid(
            "family",
            format!("{:?}", request.family),
            format!("expected the family of the address to adopt, {address}"),
        )),
        _ => {
            Ok(Adoption { address, port: found.port.clone(), network: found.network.clone(), retained: true })
        }
    }
}

/// What stays the project's when a cluster goes: its retained addresses that AKE itself has reserved. An adopted one
/// is the project's in any case.
#[must_use]
pub fn outliving(loaded: &Loaded, blocks: &[BlockRecord]) -> Vec<Retained> {
    let ClusterRecord { project, .. } = &loaded.record;
    let own: Vec<&BlockRecord> =
        blocks.iter().filter(|block| block.settled && !block.origin.is_borrowed()).collect();
    let notes = loaded.wanted.notes.iter().filter(|(_, note)| note.retained);
    notes
        .filter_map(|(name, note)| {
            let address = *loaded.wanted.addresses.get(name)?;
            let block = own.iter().find(|block| block.block.contains(address))?;
            Some(Retained {
                address,
                project: project.clone(),
                name: name.clone(),
                about: note.about.clone(),
                port: block.port.clone(),
                network: block.network.clone(),
                subnet: block.subnet.clone(),
                going: false,
            })
        })
        .collect()
}

/// Judges whether a port's address can be adopted. `fact` is the port, if it is one of the project.
pub fn adopt(
    request: &AddressRequest,
    port: &str,
    project: &str,
    fact: Option<&PortFact>,
    vip_networks: &BTreeSet<String>,
) -> Result<Adoption, Refusal> {
    let fact = fact.filter(|fact| vip_networks.contains(&fact.network)).ok_or_else(|| {
        Refusal::invalid(
            "adopt",
            port,
            format!("expected a port of project {project} on the VIP network; there is none"),
        )
    })?;
    if !fact.device_id.is_empty() || !fact.device_owner.is_empty() {
        return Err(Refusal::conflict(format!(
            "adopt: {port}: it belongs to {} {}; expected a port that nothing else uses",
            fact.device_owner, fact.device_id
        ))
        .of_field("adopt"));
    }
    let mut fitting = fact.addresses.iter().copied().filter(|address| match request.address {
        Some(wished) => *address == wished,
        None => address.is_ipv4() == (request.family == Family::V4),
    });
    let address = fitting.next().ok_or_else(|| {
        let has: Vec<String> = fact.addresses.iter().map(ToString::to_string).collect();
        match request.address {
            Some(wished) => Refusal::invalid(
                "address",
                wished,
                format!("expected an address of port {port}, which has {}", has.join(", ")),
            ),
            None => Refusal::invalid(
                "family",
                format!("{:?}", request.family),
                format!("expected the family of an address of port {port}, which has {}", has.join(", ")),
            ),
        }
    })?;
    Ok(Adoption { address, port: Some(port.to_owned()), network: fact.network.clone(), retained: false })
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
        AddressRequest { address: address.map(|a| a.parse().unwrap()), family, ..AddressRequest::default() }
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

    #[test]
    fn what_the_project_has_retained_is_adopted_by_it_alone() {
        let address: IpAddr = "203.0.113.18".parse().unwrap();
        let retained = |project: &str, going| Retained {
            address,
            project: project.into(),
            name: "api".into(),
            about: None,
            port: Some("p1".into()),
            network: "vips".into(),
            subnet: "sub".into(),
            going,
        };
        let judge = |request: &AddressRequest, found: Option<Retained>| {
            adopt_retained(request, address, "p", found.as_ref())
        };
        for request in [wish(None, Family::V4), wish(Some("203.0.113.18"), Family::V4)] {
            let adopted = judge(&request, Some(retained("p", false))).unwrap();
            assert_eq!(
                (adopted.address, adopted.port.as_deref(), adopted.retained),
                (address, Some("p1"), true)
            );
        }
        for (request, found, words) in [
            (wish(None, Family::V4), None, "203.0.113.18: expected an address that project p has retained"),
            (wish(None, Family::V4), Some(retained("other", false)), "it has retained none such"),
            (wish(None, Family::V4), Some(retained("p", true)), "it has retained none such"),
            (wish(None, Family::V6), Some(retained("p", false)), "family: V6"),
            (
                wish(Some("203.0.113.19"), Family::V4),
                Some(retained("p", false)),
                "or the one to adopt, 203.0.113.18",
            ),
        ] {
            let refusal = judge(&request, found).unwrap_err();
            assert!(refusal.message.contains(words), "{refusal}");
        }
    }

    #[test]
    fn only_a_free_port_of_the_project_on_the_vip_network_is_adopted() {
        let port = |network: &str, device: &str| PortFact {
            id: "p1".into(),
            mac: String::new(),
            network: network.into(),
            project: "p".into(),
            device_owner: String::new(),
            device_id: device.into(),
            addresses: vec!["203.0.113.200".parse().unwrap()],
        };
        let networks = BTreeSet::from(["vips".to_owned()]);
        let judge =
            |request: &AddressRequest, fact: Option<&PortFact>| adopt(request, "p1", "p", fact, &networks);
        let any = wish(None, Family::V4);
        let adopted = judge(&any, Some(&port("vips", ""))).unwrap();
        assert_eq!(
            (adopted.address.to_string().as_str(), adopted.network.as_str()),
            ("203.0.113.200", "vips")
        );
        for (request, fact, words) in [
            (&any, None, "there is none"),
            (&any, Some(port("nodes", "")), "on the VIP network"),
            (&any, Some(port("vips", "server")), "nothing else uses"),
            (&wish(Some("203.0.113.201"), Family::V4), Some(port("vips", "")), "which has 203.0.113.200"),
            (&wish(None, Family::V6), Some(port("vips", "")), "family"),
        ] {
            let refusal = judge(request, fact.as_ref()).unwrap_err();
            assert!(refusal.message.contains(words), "{refusal}");
        }
    }
}
