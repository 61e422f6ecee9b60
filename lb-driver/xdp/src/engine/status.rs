//! What the balancer says of itself.

use std::collections::BTreeMap;

use lb_driver::{model::Member, vendor::xdp::wire};

use super::{
    Inner,
    members::{healthy, verdict},
};
use crate::{layout, maps::MapsError};

impl Inner {
    pub(super) fn status(&self) -> Result<wire::StatusDocument, MapsError> {
        let (drops, unrecorded_flows) = (self.drops()?, self.plane.unrecorded()?);
        let limits = Some(self.book.limits());
        let Some(state) = &self.state else {
            return Ok(wire::StatusDocument { drops, unrecorded_flows, limits, ..Default::default() });
        };
        let state = &*self.completed(state);
        let port_drops = self.plane.port_drops()?;
        let drops_of = |vip, endpoint| {
            let named = |(reason, count): &(usize, u64)| {
                Some(((*layout::DROPS.get(*reason)?).to_owned(), *count)).filter(|_| *count > 0)
            };
            let counts = port_drops.get(&(vip, endpoint));
            counts.map(|counts| counts.iter().filter_map(named).collect()).unwrap_or_default()
        };
        let mut pools = Vec::new();
        for (owner, pool) in &state.pools {
            let ring = self.book.ring(owner);
            let mut slots: BTreeMap<u16, u32> = BTreeMap::new();
            ring.iter().for_each(|slot| *slots.entry(*slot).or_default() += 1);
            let mut members = Vec::new();
            for (name, member) in &pool.members {
                let slot = self.book.slot(owner, name);
                members.push(wire::MemberStatus {
                    name: name.clone(),
                    address: member.address,
                    healthy: healthy(&self.health, pool, member),
                    reason: verdict(&self.health, pool, member).err().or_else(|| idle(member)),
                    slots: slot.and_then(|slot| slots.get(&slot)).copied().unwrap_or(0),
                    new_flows: slot.map_or(Ok(0), |slot| self.plane.new_flows(slot))?,
                });
            }
            let ring_size = u32::try_from(ring.len()).unwrap_or(u32::MAX);
            pools.push(wire::PoolStatus { owner: owner.clone(), ring_size, members });
        }
        let mut load_balancers = Vec::new();
        for (owner, balancer) in &state.load_balancers {
            let mut listeners = Vec::new();
            for endpoint in balancer.listeners.keys() {
                let counters = self.book.counters(owner, balancer.vip, *endpoint);
                let traffic = counters.map_or(Ok(Default::default()), |id| self.plane.traffic(id))?;
                listeners.push(wire::ListenerStatus {
                    protocol: endpoint.protocol,
                    port: endpoint.port,
                    packets: traffic.packets,
                    bytes: traffic.bytes,
                    drops: drops_of(balancer.vip, Some(*endpoint)),
                });
            }
            load_balancers.push(wire::LoadBalancerStatus {
                owner: owner.clone(),
                vip: balancer.vip,
                listeners,
                drops: drops_of(balancer.vip, None),
            });
        }
        let version = Some(state.version);
        Ok(wire::StatusDocument {
            mark: None,
            version,
            pair: None,
            pools,
            load_balancers,
            drops,
            unrecorded_flows,
            limits,
        })
    }

    fn drops(&self) -> Result<BTreeMap<String, u64>, MapsError> {
        let counts = self.plane.drops()?;
        Ok(layout::DROPS.iter().map(ToString::to_string).zip(counts).collect())
    }
}

/// Why a member that takes packets takes no new flows.
fn idle(member: &Member) -> Option<String> {
    match member {
        Member { draining: true, .. } => Some("draining".to_owned()),
        Member { weight: 0, .. } => Some("weight 0".to_owned()),
        _ => None,
    }
}
