//! What the data plane has counted.

use std::{collections::BTreeMap, net::IpAddr};

use lb_driver::{driver::Traffic, model::Endpoint};

use super::{DataPlane, MapsError, gone, of};
use crate::layout;

/// Counts by reason, by VIP and port.
pub type PortDrops = BTreeMap<(IpAddr, Option<Endpoint>), Vec<(usize, u64)>>;

impl DataPlane {
    pub(super) fn forget_drops(&mut self, port: layout::ListenerKey) -> Result<(), MapsError> {
        for reason in 0..layout::DROPS.len() {
            gone(self.port_drops.remove(&layout::port_drop_key(port, reason))).map_err(of("port_drops"))?;
        }
        Ok(())
    }

    /// What passed a port, by the index of its counters.
    pub fn traffic(&self, id: u32) -> Result<Traffic, MapsError> {
        let values = self.listener_traffic.get(&id, 0).map_err(of("listener_traffic"))?;
        let sum = |of: usize| values.iter().map(|value| value[of]).sum();
        Ok(Traffic { packets: sum(0), bytes: sum(1) })
    }

    /// Flows that began at a member.
    pub fn new_flows(&self, slot: u16) -> Result<u64, MapsError> {
        Ok(self.member_flows.get(&slot.into(), 0).map_err(of("member_flows"))?.iter().sum())
    }

    /// Dropped packets by reason, in the order of [`layout::DROPS`].
    pub fn drops(&self) -> Result<Vec<u64>, MapsError> {
        let sum = |index: u32| Ok(self.drops.get(&index, 0).map_err(of("drops"))?.iter().sum());
        (0..self.drops.len()).map(sum).collect()
    }

    /// Dropped packets by VIP and, where there is one, port, and by reason: its place in [`layout::DROPS`].
    pub fn port_drops(&self) -> Result<PortDrops, MapsError> {
        let mut found = PortDrops::new();
        for entry in self.port_drops.iter() {
            let (key, counts) = entry.map_err(of("port_drops"))?;
            let (vip, endpoint, reason) = layout::port_drop(&key);
            found.entry((vip, endpoint)).or_default().push((reason, counts.iter().sum()));
        }
        Ok(found)
    }

    /// New flows that were not entered into the table, because there were too many in a second.
    pub fn unrecorded(&self) -> Result<u64, MapsError> {
        Ok(self.rates.get(&0, 0).map_err(of("rates"))?.iter().map(|rate| rate[2]).sum())
    }
}
