//! Which address each of a Service's load balancers gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{AddressRequest, ClusterState, Family};
use ipnetwork::IpNetwork;

use super::{
    annotations::{ADDRESS, ADOPT, Finding, RANGE, Retain, Wishes, field},
    names,
    view::ServiceView,
    wanted::{Draft, Wanted, World, text},
};

/// The cluster's VIP blocks, in words.
#[must_use]
pub fn blocks(state: &ClusterState) -> String {
    let blocks: Vec<_> = state.cluster.vip_blocks.iter().map(ToString::to_string).collect();
    if blocks.is_empty() { "none".to_owned() } else { blocks.join(", ") }
}

/// What cannot be had of the addresses and ranges that a Service wishes for.
pub(super) fn findings(state: &ClusterState, wishes: &Wishes, families: &[Family]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (family, address) in &wishes.addresses {
        let inside = state.cluster.vip_blocks.iter().any(|block| block.contains(*address));
        if !inside || !families.contains(family) {
            findings.push(Finding::refused(
                format!("spec.loadBalancerIP or {}", field(ADDRESS)),
                address.to_string(),
                format!("an address of the Service's families in the cluster's VIP blocks {}", blocks(state)),
            ));
        }
        if inside && !is_within(*address, &wishes.ranges) {
            findings.push(Finding::refused(
                format!("spec.loadBalancerIP or {}", field(ADDRESS)),
                address.to_string(),
                format!("an address of {}", field(RANGE)),
            ));
        }
    }
    for range in &wishes.ranges {
        let overlaps = |block: &IpNetwork| block.contains(range.network()) || range.contains(block.network());
        if !state.cluster.vip_blocks.iter().any(overlaps) {
            let expected = format!("ranges that meet the cluster's VIP blocks {}", blocks(state));
            findings.push(Finding::refused(field(RANGE), range.to_string(), expected));
        }
    }
    findings
}

/// Whether an address is in one of the ranges of its family; a family without ranges is free to choose.
fn is_within(address: IpAddr, ranges: &[IpNetwork]) -> bool {
    let mut ranges = ranges.iter().filter(|range| range.is_ipv6() == address.is_ipv6()).peekable();
    ranges.peek().is_none() || ranges.any(|range| range.contains(address))
}

/// Names and requests for addresses, for one Service after the other.
pub(super) struct Addresses<'a> {
    state: &'a ClusterState,
    /// See [`World::free_ports`].
    free_ports: Option<&'a BTreeMap<String, Vec<IpAddr>>>,
    /// Names of addresses that are there.
    held: BTreeMap<IpAddr, &'a str>,
    /// What any Service wishes for, and what was chosen.
    taken: BTreeSet<IpAddr>,
    /// Names of certain addresses that were asked for just now.
    given: BTreeMap<IpAddr, String>,
    /// What has no effect of what the last Service wished for.
    pub(super) ignored: Vec<Finding>,
}

impl<'a> Addresses<'a> {
    /// Beside what is there already, what any Service wishes for is not given to another.
    pub(super) fn new<'b>(world: &'a World, drafts: impl Iterator<Item = &'b Draft<'b>>) -> Self {
        let state = &world.state;
        let held: BTreeMap<IpAddr, &str> =
            state.addresses.iter().map(|(name, has)| (has.address, name.as_str())).collect();
        let wished = drafts.flat_map(|draft| draft.wishes.addresses.values().copied());
        let taken = held.keys().copied().chain(wished).collect();
        let (free_ports, ignored) = (world.free_ports.as_ref(), Vec::new());
        Self { state, free_ports, held, taken, given: BTreeMap::new(), ignored }
    }

    /// For each of the Service's families, in their order.
    pub(super) fn choose(&mut self, draft: &Draft<'_>) -> Result<Vec<(String, AddressRequest)>, Finding> {
        let Draft { key, service, wishes, families, .. } = draft;
        let own = names::balancers(&service.uid, families);
        let chosen = own.into_iter().map(|(own, family)| {
            let name = match &wishes.share {
                Some(share) => {
                    let namespace = Some(key.namespace.as_str()).filter(|_| wishes.share_with.is_empty());
                    names::shared_address(namespace, share, family)
                }
                None if wishes.retain == Retain::No => own.clone(),
                None => names::kept_address(key, family),
            };
            let adopt = wishes.adopt.get(&family).cloned();
            let adopted = adopt.as_ref().and_then(|adopt| adopt.parse().ok());
            let address = match (wishes.addresses.get(&family).copied(), adopted) {
                (Some(address), _) => {
                    let at = format!("spec.loadBalancerIP or {}", field(ADDRESS));
                    Some(self.certain(&own, &name, address, at)?)
                }
                (None, Some(address)) => Some(self.certain(&own, &name, address, field(ADOPT))?),
                (None, None) if adopt.is_some() => self.of_port(&own, &name, family, adopt.as_deref())?,
                (None, None) => match self.of_ranges(&name, family, wishes)? {
                    Some(address) => Some(address),
                    None => self.published(&name, service, family, wishes),
                },
            };
            let retained = self.state.addresses.get(&name).is_some_and(|has| has.retained);
            let outlive = wishes.retain == Retain::Project;
            let request = AddressRequest {
                address,
                family,
                adopt,
                retain: (retained || outlive).then_some(outlive),
                about: Some(match &wishes.share {
                    Some(share) => format!("Services that share {share:?}"),
                    None => format!("Service {key}"),
                }),
            };
            Ok((name, request))
        });
        chosen.collect()
    }

    /// The address of the port that is to be adopted. Where it is not known, ake-api finds out as long as the Service has
    /// none.
    fn of_port(
        &mut self,
        own: &str,
        name: &str,
        family: Family,
        port: Option<&str>,
    ) -> Result<Option<IpAddr>, Finding> {
        let (Some(port), Some(ports)) = (port, self.free_ports) else { return Ok(None) };
        let mut known = ports.get(port).into_iter().flatten();
        if let Some(address) = known.find(|address| address.is_ipv6() == (family == Family::V6)) {
            return self.certain(own, name, *address, field(ADOPT)).map(Some);
        }
        if let Some(has) = self.state.addresses.get(name) {
            let expected = format!(
                "a port of the project with an {} address, which nothing else uses: the Service keeps {}, which it has",
                text(family),
                has.address
            );
            self.ignored.push(Finding::ignored(field(ADOPT), port, expected));
        }
        Ok(None)
    }

    /// A certain address by that name, if nobody else has it. `own`: the load balancer that it is for; `at`: where it
    /// was asked for.
    fn certain(&mut self, own: &str, name: &str, address: IpAddr, at: String) -> Result<IpAddr, Finding> {
        let is_own = |held: &str| {
            let mut users = self.state.load_balancers.iter().filter(|(_, balancer)| balancer.address == held);
            held == name || users.next().is_some_and(|(user, _)| user == own) && users.next().is_none()
        };
        let held = self.held.get(&address).copied().filter(|held| !is_own(held));
        let given = self.given.get(&address).map(String::as_str).filter(|given| *given != name);
        if let Some(holder) = held.or(given) {
            let expected = format!(
                "a free address: it is already taken by address {holder} of this cluster, whose VIP blocks are {} (Services \
                 share one by ake.dev/share)",
                blocks(self.state)
            );
            return Err(Finding::refused(at, address.to_string(), expected));
        }
        self.given.insert(address, name.to_owned());
        Ok(address)
    }

    /// The address that clients know: where ake-api has lost it, it is asked for again.
    fn published(
        &self,
        name: &str,
        service: &ServiceView,
        family: Family,
        wishes: &Wishes,
    ) -> Option<IpAddr> {
        if self.state.addresses.contains_key(name) {
            return None;
        }
        let mut published = service.ingress.iter().filter_map(|entry| entry.ip);
        published.find(|address| {
            address.is_ipv6() == (family == Family::V6)
                && is_within(*address, &wishes.ranges)
                && self.state.cluster.vip_blocks.iter().any(|block| block.contains(*address))
                && !self.taken.contains(address)
        })
    }

    /// An address of the ranges that the Service wishes for; none where any will do, or what it has will.
    fn of_ranges(&mut self, name: &str, family: Family, wishes: &Wishes) -> Result<Option<IpAddr>, Finding> {
        let is_of = |network: &&IpNetwork| network.is_ipv6() == (family == Family::V6);
        if !wishes.ranges.iter().any(|range| is_of(&range)) {
            return Ok(None);
        }
        if let Some(has) = self.state.addresses.get(name)
            && is_within(has.address, &wishes.ranges)
        {
            return Ok(None);
        }
        let blocks = self.state.cluster.vip_blocks.iter().filter(is_of);
        let mut free = blocks
            .flat_map(IpNetwork::iter)
            .filter(|address| is_within(*address, &wishes.ranges) && !self.taken.contains(address));
        let Some(address) = free.next() else {
            let ranges: Vec<_> = wishes.ranges.iter().map(ToString::to_string).collect();
            let expected = format!(
                "ranges with a free address in the cluster's VIP blocks {}",
                self::blocks(self.state)
            );
            return Err(Finding::refused(field(RANGE), ranges.join(","), expected));
        };
        self.taken.insert(address);
        Ok(Some(address))
    }
}

/// A Service that begins or ends to share or to keep its address gets it by another name: as long as nobody else has
/// it, the address itself stays.
pub(super) fn inherit(state: &ClusterState, wanted: &mut Wanted) {
    let mut passed = BTreeSet::new();
    let mut heirs = Vec::new();
    for (name, balancer) in &wanted.balancers {
        let heir = &balancer.request.address;
        let Some((_, request)) = wanted.addresses.get(heir) else { continue };
        let Some(has) = state.load_balancers.get(name) else { continue };
        let same_family = has.vip.is_ipv6() == (request.family == Family::V6);
        let is_free = names::holder(&has.address).is_some() && !wanted.addresses.contains_key(&has.address);
        if request.address.is_none()
            && !state.addresses.contains_key(heir)
            && same_family
            && is_free
            && passed.insert(has.address.clone())
        {
            heirs.push((heir.clone(), has.vip));
        }
    }
    for (heir, address) in heirs {
        if let Some((_, request)) = wanted.addresses.get_mut(&heir) {
            request.address.get_or_insert(address);
        }
    }
}
