//! The flows that are remembered, for whoever asks where one goes and what a failover would move.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

use lb_driver::model::{Affinity, Endpoint, Owner, Protocol};
use serde::{Deserialize, Serialize};

use super::{Engine, Inner};
use crate::{
    hash,
    layout::{self, FlowKey},
    maps::{FlowEntry, MapsError},
    plan::Holders,
    table::Entry,
};

/// A flow of the flow table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address and port of the client.
    pub client: SocketAddr,
    /// The VIP and its port.
    pub vip: SocketAddr,
    /// Name of the member that has it.
    pub member: String,
    /// Name of the member that the ring has for it now, if that is another one: an instance that does not know the flow
    /// would send it there.
    pub ring: Option<String>,
}

impl Engine {
    /// The flows of ports that are balanced, of members that are there.
    pub fn flows(&self) -> Result<Vec<FlowStatus>, MapsError> {
        let (flows, holders) = self.remembered()?;
        let inner = self.lock();
        let pools = inner.pools_by_port();
        Ok(flows.iter().filter_map(|entry| inner.flow(entry, &holders, &pools)).collect())
    }

    /// All flows of members that are there, and who these are. The table is long, so states are taken while it is read.
    pub(super) fn remembered(&self) -> Result<(Vec<FlowEntry>, Arc<Holders>), MapsError> {
        let table = self.lock().plane.table();
        let entries = table.entries()?;
        // after the entries: who is older than that is none of the former owners of his slot
        let (now, holders) = {
            let mut inner = self.lock();
            (inner.plane.time()?, inner.holders())
        };
        let seed = table.seed();
        let told = |(_, entry): &(u32, Entry)| {
            let (_, generation) = holders.get(&entry.slot())?;
            // of which the table has 16 bits
            (*generation as u16 == entry.generation()).then(|| entry.told(&seed, now, *generation))?
        };
        Ok((entries.iter().filter_map(told).collect(), holders))
    }
}

type Pools<'a> = BTreeMap<(IpAddr, Endpoint), (&'a Owner, Affinity)>;

impl Inner {
    /// Who has which slot.
    pub(super) fn holders(&mut self) -> Arc<Holders> {
        self.holders.get_or_insert_with(|| Arc::new(self.book.holders())).clone()
    }

    fn pools_by_port(&self) -> Pools<'_> {
        let balancers = self.state.iter().flat_map(|state| state.load_balancers.values());
        balancers
            .flat_map(|balancer| {
                balancer
                    .listeners
                    .iter()
                    .map(|(endpoint, pool)| ((balancer.vip, *endpoint), (pool, balancer.affinity)))
            })
            .collect()
    }

    fn flow(&self, (key, value): &FlowEntry, holders: &Holders, pools: &Pools<'_>) -> Option<FlowStatus> {
        let (client, vip, endpoint) = ends(key)?;
        let (pool, affinity) = pools.get(&(vip, endpoint))?;
        let (slot, generation, _) = layout::flow_owner(value);
        let slot = u16::try_from(slot).ok()?;
        let (holder, _) = holders.get(&slot).filter(|(_, current)| *current == generation)?;
        let ring = self.book.ring(pool);
        let at = hash::place(key, *affinity == Affinity::ClientIp, ring.len());
        let other = at.and_then(|at| ring.get(at)).filter(|other| **other != slot);
        Some(FlowStatus {
            protocol: endpoint.protocol,
            client,
            vip: SocketAddr::new(vip, endpoint.port.get()),
            member: holder.name.clone(),
            ring: other.and_then(|other| holders.get(other)).map(|(holder, _)| holder.name.clone()),
        })
    }
}

/// Client, VIP and its port, of a key of the flow table.
fn ends(key: &FlowKey) -> Option<(SocketAddr, IpAddr, Endpoint)> {
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&key[at..at + 16]);
        let address = Ipv6Addr::from(octets);
        if key[37] == 4 { address.to_canonical() } else { IpAddr::V6(address) }
    };
    let port = |at: usize| u16::from_be_bytes([key[at], key[at + 1]]);
    let protocol =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == key[36])?;
    let endpoint = Endpoint { protocol, port: NonZeroU16::new(port(34))? };
    Some((SocketAddr::new(address(0), port(32)), address(16), endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_flow_are_read_from_its_key() {
        let mut key = [0; 40];
        key[10..16].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 2]);
        key[26..32].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 17]);
        key[32..38].copy_from_slice(&[0x9c, 0x40, 0, 80, 6, 4]);
        let (client, vip, endpoint) = ends(&key).unwrap();
        assert_eq!(
            (client.to_string(), vip.to_string()),
            ("198.51.100.2:40000".into(), "203.0.113.17".into())
        );
        assert_eq!(endpoint.to_string(), "TCP/80");
        key[37] = 6;
        assert_eq!(ends(&key).unwrap().1.to_string(), "::ffff:203.0.113.17", "the family stands beside it");
        key[36] = 1;
        assert_eq!(ends(&key), None, "a protocol without ports");
    }
}
