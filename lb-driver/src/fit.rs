//! What a device can hold of what is wanted, and what it is refused.
//!
//! [`fit`] stands between what is wanted and [`diff`](crate::diff): a load balancer that the device cannot do as
//! it is asked for is refused whole, with reasons, and never done in part; a pool that listeners share becomes
//! one per listener where the device cannot share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::{
    driver::{Capabilities, Driver, Limits, MemberStatus, Obstacles, Status},
    model::{Affinity, Check, Endpoint, LoadBalancer, Member, Owner, Pool, Protocol, State},
};

/// What a device is asked to hold in place of what is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fitted {
    /// What it can hold.
    pub state: State,
    /// Load balancers that are not in it, each with every reason.
    pub refused: BTreeMap<Owner, Vec<Reason>>,
    /// Members that are done otherwise than asked, by the pool they were wanted in: the device cannot drain, so
    /// they are out, and their flows end.
    pub cut: BTreeMap<Owner, BTreeSet<String>>,
    /// The pools that pools were wanted as.
    origins: BTreeMap<Owner, Owner>,
}

/// Why a device cannot do a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An address of a family that it does not speak.
    Ipv6(IpAddr),
    /// A port of a protocol that it does not speak.
    Sctp(Endpoint),
    /// It cannot keep clients out.
    SourceRanges,
    /// It cannot spread by the client's address.
    ClientIp,
    /// It gives all members of a pool one share.
    Weights(Owner),
    /// It cannot check in this way.
    Check(Owner, Check),
    /// It cannot check in so many ways.
    Checks(Owner, usize),
    /// It has no room: of what, and how many it takes.
    Full(&'static str, usize),
    /// The pool of a port is not wanted, or has no name on this device.
    Pool(Endpoint, Owner),
    /// Something is in the way, in the driver's words.
    Obstacle(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv6(address) => write!(f, "address {address}: the balancer does not do IPv6"),
            Self::Sctp(endpoint) => write!(f, "listener {endpoint}: the balancer does not do SCTP"),
            Self::SourceRanges => f.write_str("source ranges: the balancer cannot keep clients out"),
            Self::ClientIp => {
                f.write_str("affinity ClientIP: the balancer cannot spread by clients' addresses")
            }
            Self::Weights(pool) => {
                write!(f, "pool {pool}: members of different weights: the balancer gives each the same share")
            }
            Self::Check(pool, check) => {
                let kind = match check {
                    Check::Tcp { .. } => "TCP",
                    Check::Http { .. } => "HTTP",
                    Check::Vip { .. } => "its VIP",
                };
                write!(f, "pool {pool}: check by {kind} on port {}: the balancer cannot", check.port())
            }
            Self::Checks(pool, most) => write!(f, "pool {pool}: checks: the balancer takes at most {most}"),
            Self::Full(what, most) => write!(f, "the balancer is full: it takes at most {most} {what}"),
            Self::Pool(endpoint, pool) => write!(f, "listener {endpoint}: there is no pool {pool}"),
            Self::Obstacle(obstacle) => f.write_str(obstacle),
        }
    }
}

/// What a device of these capabilities can hold of `wanted`.
///
/// What is refused is not on the device at all: half of it (a VIP without its source ranges) could be worse than
/// nothing. Where room is short, load balancers that the device holds already (`held`) stay before others come.
/// A pool that no listener uses comes last, and only where it can.
pub fn fit(wanted: &State, capabilities: &Capabilities, held: &State) -> Fitted {
    fit_around(wanted, capabilities, &Obstacles::default(), held)
}

/// What a device can hold of `wanted`, as it was read last (`held`).
pub fn fit_to(driver: &dyn Driver, wanted: &State, held: &State) -> Fitted {
    fit_around(wanted, &driver.capabilities(), &driver.obstacles(wanted), held)
}

fn fit_around(wanted: &State, capabilities: &Capabilities, obstacles: &Obstacles, held: &State) -> Fitted {
    let pools: BTreeMap<&Owner, FittedPool> = wanted
        .pools
        .iter()
        .map(|(owner, pool)| (owner, fit_pool(owner, pool, capabilities, obstacles)))
        .collect();
    let mut fitted =
        Fitted { state: State { version: wanted.version, ..State::default() }, ..Fitted::default() };
    let mut room = Room::default();
    let is_held = |owner: &Owner| held.load_balancers.contains_key(owner);
    let (before, after): (Vec<_>, Vec<_>) =
        wanted.load_balancers.iter().partition(|(owner, _)| is_held(owner));
    for (owner, balancer) in before.into_iter().chain(after) {
        let own = own_reasons(owner, balancer, capabilities, obstacles);
        if let Err(reasons) = fitted.take(owner, balancer, own, &pools, capabilities, &mut room) {
            fitted.refused.insert(owner.clone(), reasons);
        }
    }
    if capabilities.shared_pools {
        for (owner, pool) in &pools {
            let with = room.with(None, [pool]);
            if !fitted.state.pools.contains_key(*owner)
                && pool.reasons.is_empty()
                && with.over(&capabilities.limits).is_none()
            {
                room = with;
                fitted.put(owner, owner, pool);
            }
        }
    }
    fitted
}

/// How a load balancer stands on a device of these capabilities; none if the name of one of its pools would be too
/// long.
fn shape(owner: &Owner, balancer: &LoadBalancer, capabilities: &Capabilities) -> Option<LoadBalancer> {
    let mut shaped = balancer.clone();
    for (endpoint, pool) in &mut shaped.listeners {
        *pool = place(owner, *endpoint, pool, capabilities)?;
    }
    Some(shaped)
}

/// The pool behind a listener on the device. What is expanded is named by the listener, so that it changes in
/// place when the listener goes over to another pool.
fn place(balancer: &Owner, endpoint: Endpoint, pool: &Owner, capabilities: &Capabilities) -> Option<Owner> {
    if capabilities.shared_pools {
        return Some(pool.clone());
    }
    balancer.sibling(format!("{}_{}_{}", balancer.object(), endpoint.protocol, endpoint.port)).ok()
}

impl Fitted {
    fn take(
        &mut self,
        owner: &Owner,
        balancer: &LoadBalancer,
        mut reasons: BTreeSet<Reason>,
        pools: &BTreeMap<&Owner, FittedPool>,
        capabilities: &Capabilities,
        room: &mut Room,
    ) -> Result<(), Vec<Reason>> {
        let mut needed = BTreeMap::new();
        for (endpoint, wanted) in &balancer.listeners {
            match (pools.get(wanted), place(owner, *endpoint, wanted, capabilities)) {
                (Some(pool), Some(place)) => {
                    reasons.extend(pool.reasons.iter().cloned());
                    needed.insert(place, (wanted, pool));
                }
                _ => {
                    reasons.insert(Reason::Pool(*endpoint, wanted.clone()));
                }
            }
        }
        needed.retain(|place, _| !self.state.pools.contains_key(place));
        let with = room.with(Some(balancer), needed.values().map(|(_, pool)| *pool));
        reasons.extend(with.over(&capabilities.limits));
        let shaped = shape(owner, balancer, capabilities).filter(|_| reasons.is_empty());
        let Some(shaped) = shaped else { return Err(reasons.into_iter().collect()) };
        *room = with;
        for (place, (wanted, pool)) in needed {
            self.put(&place, wanted, pool);
        }
        self.state.load_balancers.insert(owner.clone(), shaped);
        Ok(())
    }

    fn put(&mut self, place: &Owner, wanted: &Owner, pool: &FittedPool) {
        self.state.pools.insert(place.clone(), pool.pool.clone());
        if !pool.cut.is_empty() {
            self.cut.insert(wanted.clone(), pool.cut.clone());
        }
        if place != wanted {
            self.origins.insert(place.clone(), wanted.clone());
        }
    }

    /// A load balancer that the device has, with the pools that were wanted.
    pub fn as_wanted(&self, held: &LoadBalancer) -> LoadBalancer {
        let mut balancer = held.clone();
        for pool in balancer.listeners.values_mut() {
            if let Some(origin) = self.origins.get(pool) {
                *pool = origin.clone();
            }
        }
        balancer
    }

    /// What the device says of a member of a pool that was wanted. Where the pool is several ones there, a member
    /// is well if it is well in each; shares and flows are of all together.
    pub fn member(&self, status: &Status, pool: &Owner, member: &str) -> Option<MemberStatus> {
        let expanded = self.origins.iter().filter(|(_, origin)| *origin == pool).map(|(place, _)| place);
        let places = std::iter::once(pool).chain(expanded);
        let said = places.filter_map(|place| status.pools.get(place)?.members.get(member));
        said.cloned().reduce(|one, other| MemberStatus {
            healthy: match (one.healthy, other.healthy) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            reason: one.reason.or(other.reason),
            slots: one.slots + other.slots,
            new_flows: one.new_flows + other.new_flows,
        })
    }
}

/// What keeps a device from a load balancer, whatever its pools.
fn own_reasons(
    owner: &Owner,
    balancer: &LoadBalancer,
    capabilities: &Capabilities,
    obstacles: &Obstacles,
) -> BTreeSet<Reason> {
    let said = obstacles.load_balancers.get(owner).into_iter().flatten();
    let mut reasons: BTreeSet<Reason> = said.cloned().map(Reason::Obstacle).collect();
    if balancer.vip.is_ipv6() && !capabilities.ipv6 {
        reasons.insert(Reason::Ipv6(balancer.vip));
    }
    if !capabilities.sctp {
        let sctp = balancer.listeners.keys().filter(|endpoint| endpoint.protocol == Protocol::Sctp);
        reasons.extend(sctp.copied().map(Reason::Sctp));
    }
    if !balancer.source_ranges.is_empty() && !capabilities.source_ranges {
        reasons.insert(Reason::SourceRanges);
    }
    if balancer.affinity == Affinity::ClientIp && !capabilities.client_ip_affinity {
        reasons.insert(Reason::ClientIp);
    }
    reasons
}

/// A pool as a device can hold it, and why it cannot.
struct FittedPool {
    pool: Pool,
    cut: BTreeSet<String>,
    reasons: Vec<Reason>,
}

fn fit_pool(owner: &Owner, wanted: &Pool, capabilities: &Capabilities, obstacles: &Obstacles) -> FittedPool {
    let said = obstacles.pools.get(owner).into_iter().flatten().cloned().map(Reason::Obstacle);
    let mut fitted = FittedPool { pool: wanted.clone(), cut: BTreeSet::new(), reasons: said.collect() };
    let members = &mut fitted.pool.members;
    if !capabilities.ipv6 {
        let six = members.values().map(|member| member.address).find(IpAddr::is_ipv6);
        fitted.reasons.extend(six.map(Reason::Ipv6));
    }
    if !capabilities.macs {
        members.values_mut().for_each(|member| member.mac = None);
    }
    if !capabilities.weights {
        let is_idle = |member: &Member| member.draining || member.weight == 0;
        let shares: BTreeSet<u16> = members.values().filter(|m| !is_idle(m)).map(|m| m.weight).collect();
        if shares.len() > 1 {
            fitted.reasons.push(Reason::Weights(owner.clone()));
        }
        for member in members.values_mut() {
            // who takes no new flows and keeps those that it has is drained
            member.draining = is_idle(member);
            member.weight = 1;
        }
    }
    if !capabilities.drain {
        fitted.cut = members.iter().filter(|(_, m)| m.draining).map(|(name, _)| name.clone()).collect();
        members.retain(|_, member| !member.draining);
    }
    let kinds = &capabilities.checks;
    let refused = wanted.checks.iter().filter(|check| match check {
        Check::Tcp { .. } => !kinds.tcp,
        Check::Http { .. } => !kinds.http,
        Check::Vip { .. } => !kinds.vip,
    });
    fitted.reasons.extend(refused.map(|check| Reason::Check(owner.clone(), check.clone())));
    if let Some(most) = capabilities.limits.checks.filter(|most| wanted.checks.len() > *most) {
        fitted.reasons.push(Reason::Checks(owner.clone(), most));
    }
    fitted
}

/// What is taken of a device's room.
#[derive(Debug, Clone, Default)]
struct Room {
    load_balancers: usize,
    listeners: usize,
    source_ranges: usize,
    pools: usize,
    members: usize,
}

impl Room {
    fn with<'a>(
        &self,
        balancer: Option<&LoadBalancer>,
        pools: impl IntoIterator<Item = &'a FittedPool>,
    ) -> Self {
        let mut room = self.clone();
        if let Some(balancer) = balancer {
            room.load_balancers += 1;
            room.listeners += balancer.listeners.len();
            room.source_ranges += balancer.source_ranges.len();
        }
        for pool in pools {
            room.pools += 1;
            room.members += pool.pool.members.len();
        }
        room
    }

    fn over(&self, limits: &Limits) -> Option<Reason> {
        let all = [
            ("load balancers", self.load_balancers, limits.load_balancers),
            ("listeners", self.listeners, limits.listeners),
            ("source ranges", self.source_ranges, limits.source_ranges),
            ("pools", self.pools, limits.pools),
            ("members", self.members, limits.members),
        ];
        all.into_iter().find_map(|(what, taken, most)| {
            most.filter(|most| taken > *most).map(|most| Reason::Full(what, most))
        })
    }
}

#[cfg(test)]
mod tests;
