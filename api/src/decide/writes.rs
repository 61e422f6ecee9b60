//! What a write makes of a cluster's wanted state.

mod addresses;
mod held;

use std::collections::BTreeMap;

use ake_api_client::{
    Check, Family, LoadBalancerRequest, MemberRequest, NodePortRequest, PoolRequest, Write,
};
use held::Held;

use super::{
    addresses::Adoption,
    facts::{Facts, Known},
    validate,
    wanted::{ClusterRecord, Wanted, WantedMember},
};
use crate::refusal::{Kind, Refusal};

/// Why writes were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// For good.
    Refused(Refusal),
    /// Until the cluster has another block of this family.
    NeedsBlock(Family),
    /// Until the cluster has adopted this address.
    NeedsAdoption(Adoption),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Applies writes in order. On an error nothing counts.
pub fn apply(
    cluster: &ClusterRecord,
    wanted: &Wanted,
    facts: &Facts,
    writes: &[Write],
) -> Result<Wanted, Stop> {
    let mut next = wanted.clone();
    let (known, held) = (Known::new(facts), Held::new(wanted));
    let mut judge = Judge { cluster, facts, known, held, wanted: &mut next };
    for write in writes {
        judge.write(write)?;
    }
    // Only at the end: one batch may replace an address, or take it away before the pool.
    for (name, pool) in &next.pools {
        let mut checked = pool.checks.iter().filter_map(vip_checked);
        if let Some(gone) = checked.find(|address| !next.addresses.contains_key(*address)) {
            return Err(Stop::Refused(Refusal::conflict(format!(
                "address {gone}: pool {name} is checked there; delete that, or its check, in the same batch or before"
            ))));
        }
    }
    Ok(next)
}

/// The address whose VIP a check asks for.
fn vip_checked(check: &Check) -> Option<&str> {
    match check {
        Check::Vip { address, .. } => Some(address),
        Check::Tcp { .. } | Check::Http { .. } => None,
    }
}

struct Judge<'a> {
    cluster: &'a ClusterRecord,
    facts: &'a Facts,
    known: Known<'a>,
    /// Kept beside what is wanted, with every change of it.
    held: Held,
    wanted: &'a mut Wanted,
}

impl Judge<'_> {
    fn write(&mut self, write: &Write) -> Result<(), Stop> {
        match write {
            Write::PutAddress { name, request } => {
                self.takes_new("address", name)?;
                validate::name("address", name)?;
                validate::about(request.about.as_deref())?;
                validate::adopt(request.adopt.as_deref())?;
                self.put_address(name, request)
            }
            Write::DeleteAddress { name } => Ok(self.delete_address(name)?),
            Write::PutPool { name, request } => {
                self.takes_new("pool", name)?;
                validate::name("pool", name)?;
                Ok(self.put_pool(name, request)?)
            }
            Write::DeletePool { name } => Ok(self.delete_pool(name)?),
            Write::PutMember { pool, name, request } => {
                self.takes_new("member", name)?;
                validate::member_name(name)?;
                Ok(self.put_member(pool, name, request)?)
            }
            Write::DeleteMember { pool, name } => {
                if let Some(pool) = self.wanted.pools.get_mut(pool) {
                    pool.members.remove(name);
                }
                Ok(())
            }
            Write::PutLoadBalancer { name, request } => {
                self.takes_new("load balancer", name)?;
                validate::name("load balancer", name)?;
                Ok(self.put_load_balancer(name, request)?)
            }
            Write::DeleteLoadBalancer { name } => {
                if let Some(gone) = self.wanted.load_balancers.remove(name) {
                    self.held.let_go(&gone);
                }
                Ok(())
            }
            Write::PutNodePort { port, request } => {
                self.takes_new("node port", port)?;
                Ok(self.put_node_port(port, request)?)
            }
            Write::DeleteNodePort { port, asker } => {
                if let Some(askers) = self.wanted.node_ports.get_mut(port) {
                    askers.remove(asker);
                    if askers.is_empty() {
                        self.wanted.node_ports.remove(port);
                    }
                }
                Ok(())
            }
        }
    }

    fn takes_new(&self, what: &str, name: &str) -> Result<(), Refusal> {
        if !self.cluster.deleting {
            return Ok(());
        }
        Err(Refusal::new(
            Kind::Deleting,
            format!("{what} {name}: cluster {} is being deleted and takes nothing new", self.cluster.id),
        ))
    }

    fn put_pool(&mut self, name: &str, request: &PoolRequest) -> Result<(), Refusal> {
        validate::checks(&request.checks)?;
        let mut checked = request.checks.iter().filter_map(vip_checked);
        if let Some(missing) = checked.find(|address| !self.wanted.addresses.contains_key(*address)) {
            return Err(Refusal::invalid(
                "checks.address",
                missing,
                "expected the name of an address of the cluster; there is none of this name",
            ));
        }
        let members = match &request.members {
            None => None,
            Some(members) => {
                let mut found = BTreeMap::new();
                for (member, body) in members {
                    validate::member_name(member)?;
                    found.insert(member.clone(), self.member(member, body)?);
                }
                Some(found)
            }
        };
        let pool = self.wanted.pools.entry(name.to_owned()).or_default();
        pool.checks.clone_from(&request.checks);
        pool.checks.sort();
        pool.checks.dedup();
        if let Some(members) = members {
            pool.members = members;
        }
        Ok(())
    }

    fn delete_pool(&mut self, name: &str) -> Result<(), Refusal> {
        let user =
            self.wanted.load_balancers.iter().find(|(_, lb)| lb.listeners.iter().any(|l| l.pool == name));
        if let Some((user, _)) = user {
            return Err(Refusal::conflict(format!(
                "pool {name}: load balancer {user} uses it; delete that first"
            )));
        }
        self.wanted.pools.remove(name);
        Ok(())
    }

    fn put_member(&mut self, pool: &str, name: &str, request: &MemberRequest) -> Result<(), Refusal> {
        if !self.wanted.pools.contains_key(pool) {
            return Err(Refusal::not_found("pool", pool));
        }
        let member = self.member(name, request)?;
        if let Some(pool) = self.wanted.pools.get_mut(pool) {
            pool.members.insert(name.to_owned(), member);
        }
        Ok(())
    }

    fn member(&self, name: &str, request: &MemberRequest) -> Result<WantedMember, Refusal> {
        let ClusterRecord { project, network, .. } = self.cluster;
        let expected =
            format!("expected a fixed address of a server's port of project {project} on network {network}");
        let refuse = |found: String| {
            Refusal::invalid("address", request.address, format!("member {name}: {expected}; {found}"))
        };
        let port =
            self.known.with_address(request.address).ok_or_else(|| refuse("there is none".to_owned()))?;
        if port.project != *project || port.network != *network {
            return Err(refuse("there is none".to_owned()));
        }
        if !port.is_of_a_server() {
            return Err(refuse(format!("port {} has it, but belongs to no server yet", port.id)));
        }
        if let Some(id) = &request.port
            && port.id.is_empty()
        {
            let expected = format!("member {name}: expected none: no Neutron knows network {network}");
            return Err(Refusal::invalid("port", id, expected));
        }
        if let Some(id) = &request.port
            && *id != port.id
        {
            return Err(Refusal::invalid(
                "port",
                id,
                format!("member {name}: expected the port that has address {}, {}", request.address, port.id),
            ));
        }
        Ok(WantedMember {
            address: request.address,
            mac: port.mac.clone(),
            port: port.id.clone(),
            weight: request.weight,
            draining: request.draining,
        })
    }

    fn put_load_balancer(&mut self, name: &str, request: &LoadBalancerRequest) -> Result<(), Refusal> {
        validate::load_balancer(request)?;
        let Some(vip) = self.wanted.addresses.get(&request.address).copied() else {
            return Err(Refusal::invalid(
                "address",
                &request.address,
                "expected the name of an address of the cluster; there is none of this name",
            ));
        };
        if let Some(range) = request.source_ranges.iter().find(|range| range.is_ipv4() != vip.is_ipv4()) {
            return Err(Refusal::invalid(
                "source_ranges",
                range,
                format!("expected ranges of the family of the address, {vip}"),
            ));
        }
        for listener in &request.listeners {
            if !self.wanted.pools.contains_key(&listener.pool) {
                return Err(Refusal::invalid(
                    "listeners.pool",
                    &listener.pool,
                    "expected the name of a pool of the cluster; there is none of this name",
                ));
            }
            let other = self.held.listens(&request.address, listener);
            if let Some(other) = other.filter(|other| *other != name) {
                return Err(Refusal::conflict(format!(
                    "load balancer {name}: listeners: {} {} on address {}: load balancer {other} has it already",
                    format!("{:?}", listener.protocol).to_uppercase(),
                    listener.port,
                    request.address
                ))
                .of_field("listeners"));
            }
        }
        let mut request = request.clone();
        request.listeners.sort();
        request.source_ranges.sort();
        request.source_ranges.dedup();
        if let Some(before) = self.wanted.load_balancers.remove(name) {
            self.held.let_go(&before);
        }
        self.held.take(name, &request);
        self.wanted.load_balancers.insert(name.to_owned(), request);
        Ok(())
    }

    fn put_node_port(&mut self, port: &str, request: &NodePortRequest) -> Result<(), Refusal> {
        validate::port_id(port)?;
        validate::node_port(request, &self.cluster.pod_ranges().collect::<Vec<_>>())?;
        if let Some(missing) =
            request.addresses.iter().find(|name| !self.wanted.addresses.contains_key(*name))
        {
            return Err(Refusal::invalid(
                "addresses",
                missing,
                "expected names of addresses of the cluster; there is none of this name",
            ));
        }
        let ClusterRecord { project, network, .. } = self.cluster;
        let fact =
            self.known.with_id(port).filter(|fact| fact.project == *project && fact.network == *network);
        if fact.is_none() {
            return Err(Refusal::invalid(
                "port",
                port,
                format!("expected a port of project {project} on network {network}; there is none"),
            ));
        }
        let mut request = request.clone();
        request.pod_ranges.sort();
        request.pod_ranges.dedup();
        request.addresses.sort();
        request.addresses.dedup();
        self.wanted.node_ports.entry(port.to_owned()).or_default().insert(request.asker.clone(), request);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
