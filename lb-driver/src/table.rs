//! For tests: a device as the least capable ones are. It is changed step by step, refuses a listener without its
//! pool, the deletion of a pool in use and two listeners on one port, and others use it as well. Real devices are
//! held to the same by [`conformance`](crate::conformance), which runs against this one too.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    diff::Change,
    model::{Endpoint, LoadBalancer, Owner, State},
};

/// What is on the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) ours: State,
    pub(crate) foreign: BTreeMap<String, (IpAddr, Endpoint)>,
}

impl Table {
    pub(crate) fn perform(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::DeleteLoadBalancer(owner) => {
                self.ours.load_balancers.remove(owner).ok_or("no such load balancer")?;
            }
            Change::Release(owner, balancer) => {
                self.ours.load_balancers.get(owner).ok_or("no such load balancer")?;
                self.put(owner, balancer)?;
            }
            Change::PutLoadBalancer(owner, balancer) => self.put(owner, balancer)?,
            Change::PutPool(owner, pool) => {
                self.ours.pools.insert(owner.clone(), pool.clone());
            }
            Change::DeletePool(owner) => {
                if self.ours.load_balancers.values().any(|lb| lb.listeners.values().any(|pool| pool == owner))
                {
                    return Err(format!("pool {owner} is in use"));
                }
                self.ours.pools.remove(owner).ok_or("no such pool")?;
            }
        }
        Ok(())
    }

    fn put(&mut self, owner: &Owner, balancer: &LoadBalancer) -> Result<(), String> {
        for (endpoint, pool) in &balancer.listeners {
            if !self.ours.pools.contains_key(pool) {
                return Err(format!("no pool {pool}"));
            }
            let taken = |lb: &LoadBalancer| lb.vip == balancer.vip && lb.listeners.contains_key(endpoint);
            let ours = self.ours.load_balancers.iter().find(|(other, lb)| *other != owner && taken(lb));
            let claim = (balancer.vip, *endpoint);
            let theirs = self.foreign.iter().find(|(_, taken)| **taken == claim);
            let holder = ours.map(|(other, _)| other.to_string()).or(theirs.map(|(name, _)| name.clone()));
            if let Some(holder) = holder {
                return Err(format!("{endpoint} of {} is taken by {holder}", balancer.vip));
            }
        }
        self.ours.load_balancers.insert(owner.clone(), balancer.clone());
        Ok(())
    }
}
