//! Which Services may share a VIP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{Family, Listener, Protocol};

use super::{
    annotations::{ADDRESS, Finding, SHARE, SHARE_WITH, field},
    names::{self, Holder},
    view::ServiceView,
    wanted::{Draft, World},
};
use crate::cluster::Key;

/// What keeps a Service from sharing a VIP with those that have it already, or that came before.
pub(super) fn conflicts<'a>(
    world: &World,
    drafts: impl Iterator<Item = &'a Draft<'a>>,
) -> BTreeMap<Key, Finding> {
    let mut groups: BTreeMap<(Option<&str>, &str), Vec<&Draft<'_>>> = BTreeMap::new();
    for draft in drafts {
        if let Some(share) = &draft.wishes.share {
            let namespace = Some(draft.key.namespace.as_str()).filter(|_| draft.wishes.share_with.is_empty());
            groups.entry((namespace, share)).or_default().push(draft);
        }
    }
    let state = &world.state;
    let able: BTreeSet<&str> = groups.values().flatten().map(|draft| draft.service.uid.as_str()).collect();
    let staying = staying(world, &able);
    let mut conflicts = BTreeMap::new();
    for ((namespace, share), mut group) in groups {
        let has_it = |draft: &Draft<'_>| {
            names::balancers(&draft.service.uid, &draft.families).iter().any(|(name, family)| {
                let address = names::shared_address(namespace, share, *family);
                state.load_balancers.get(name).is_some_and(|balancer| balancer.address == address)
            })
        };
        group.sort_by_key(|draft| (!has_it(draft), draft.service.created, draft.key));
        let mut admitted: Vec<&Draft<'_>> = Vec::new();
        for draft in group {
            let is = |family| {
                let address = state.addresses.get(&names::shared_address(namespace, share, family))?;
                Some(address.address)
            };
            let with_others = admitted.iter().find_map(|other| conflict(draft, other, &is));
            let addresses =
                draft.families.iter().map(|family| names::shared_address(namespace, share, *family));
            match with_others.or_else(|| occupied(draft, addresses, &staying)) {
                Some(finding) => {
                    conflicts.insert(draft.key.clone(), finding);
                }
                None => admitted.push(draft),
            }
        }
    }
    conflicts
}

/// Ports of shared VIPs of Services that are left as they are, with the load balancer's name.
type Staying<'a> = BTreeMap<(&'a str, Protocol, u16), &'a str>;

fn staying<'a>(world: &'a World, able: &BTreeSet<&str>) -> Staying<'a> {
    let services: BTreeMap<&str, &ServiceView> =
        world.services.values().map(|service| (service.uid.as_str(), service)).collect();
    let stays = |name: &str, uid: &str| match services.get(uid) {
        Some(service) => service.is_wanted() && !able.contains(uid),
        None => !world.ripe.contains(name),
    };
    let shared = world.state.load_balancers.iter().filter(|(name, balancer)| {
        let is_shared = names::holder(&balancer.address) == Some(Holder::Shared);
        is_shared && names::owner(name).is_some_and(|uid| stays(name, uid))
    });
    let ports = shared.flat_map(|(name, balancer)| {
        let port = move |listener: &'a Listener| {
            ((balancer.address.as_str(), listener.protocol, listener.port), name.as_str())
        };
        balancer.listeners.iter().map(port)
    });
    ports.collect()
}

/// What keeps a Service from ports of a VIP whose holder cannot be changed now.
fn occupied(
    draft: &Draft<'_>,
    addresses: impl Iterator<Item = String>,
    staying: &Staying<'_>,
) -> Option<Finding> {
    for address in addresses {
        for port in &draft.service.ports {
            let holder = staying.get(&(address.as_str(), port.protocol?, port.port)).copied();
            if let Some(holder) = holder.filter(|holder| names::owner(holder) != Some(&draft.service.uid)) {
                return Some(Finding::refused(
                    "spec.ports",
                    format!("{} {}", port.protocol_text, port.port),
                    format!("ports that load balancer {holder} does not have on the VIP that they share"),
                ));
            }
        }
    }
    None
}

/// What keeps a Service from sharing with another one. `is`: what the address is, where there is one already.
fn conflict(draft: &Draft<'_>, other: &Draft<'_>, is: &impl Fn(Family) -> Option<IpAddr>) -> Option<Finding> {
    if !names_each_other(draft, other) {
        return Some(Finding::refused(
            field(SHARE_WITH),
            draft.wishes.share_with.iter().cloned().collect::<Vec<_>>().join(","),
            format!(
                "namespace {} among them, and {} in that of Service {}, which has the VIP of the key {:?}: both agree, or none shares",
                other.key.namespace,
                draft.key.namespace,
                other.key,
                draft.wishes.share.as_deref().unwrap_or_default(),
            ),
        ));
    }
    if !draft.families.iter().any(|family| other.families.contains(family)) {
        return None;
    }
    let ports = |draft: &Draft<'_>| -> BTreeSet<(String, u16)> {
        draft.service.ports.iter().map(|port| (port.protocol_text.clone(), port.port)).collect()
    };
    if let Some((protocol, port)) = ports(draft).intersection(&ports(other)).next() {
        return Some(Finding::refused(
            "spec.ports",
            format!("{protocol} {port}"),
            format!(
                "ports that Service {} does not have on the VIP that they share by {} = {:?}",
                other.key,
                field(SHARE),
                draft.wishes.share.as_deref().unwrap_or_default(),
            ),
        ));
    }
    let differs = draft.wishes.addresses.iter().find_map(|(family, address)| {
        // Nobody's address changes because another one joins.
        let theirs = other.wishes.addresses.get(family).copied().or_else(|| is(*family));
        Some((address, theirs.filter(|theirs| theirs != address)?))
    });
    differs.map(|(address, theirs)| {
        Finding::refused(
            format!("spec.loadBalancerIP or {}", field(ADDRESS)),
            address.to_string(),
            format!("{theirs}, or none: it is the VIP that Service {} shares", other.key),
        )
    })
}

/// Within a namespace the key is enough; across namespaces each names the other's.
fn names_each_other(one: &Draft<'_>, other: &Draft<'_>) -> bool {
    let names = |one: &Draft<'_>, other: &Draft<'_>| {
        let with = &one.wishes.share_with;
        with.contains("*") || with.contains(&other.key.namespace)
    };
    one.key.namespace == other.key.namespace || names(one, other) && names(other, one)
}
