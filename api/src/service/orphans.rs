//! Neutron ports that say that they are ours and that no row knows: what broke off between Neutron and the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    cloud::{BLOCK_OWNER, RETAINED_OWNER},
    config::Network,
    decide::{
        facts::Retained,
        orphans::{Sweep, Terms},
        ranges::Span,
        remains::BlockPort,
    },
    refusal::Refusal,
    store::BlockRecord,
};

/// Where the metrics say that they are.
const PLACE: &str = "neutron";

impl Service {
    /// Looks at all ports that reserve VIPs; those that no row has known for a period go, within the budget.
    pub(super) async fn sweep_ports(
        &self,
        sweep: &mut Sweep,
        now: Duration,
        period: Duration,
    ) -> Result<(), Refusal> {
        if !self.config.networks.iter().any(Network::uses_neutron) {
            return Ok(());
        }
        if !self.is_of_today().await? {
            self.forget_ports(sweep);
            return Ok(());
        }
        // Rows are written before ports are made: whatever is listed here and has none afterwards never had one.
        let blocks = self.cloud.block_ports().await?;
        let retained = self.cloud.retained_ports().await?;
        let rows = (self.store.blocks(None).await?, self.store.retained(None).await?);
        let known = self.store.clusters(None).await?.len() + rows.1.len();
        let ours = |address: &IpAddr| self.is_of_our_ranges(*address);
        let orphans = unknown(&blocks, &retained, &rows.0, &rows.1, ours);
        let counts = orphans.keys().map(|port| (port.clone(), 1)).collect();
        let terms = Terms { period, budget: self.config.orphan_budget };
        let verdict = sweep.observe(now, &counts, known, terms);
        self.metrics.orphans(PLACE, orphans.len(), verdict.stopped.is_some());
        if let Some(reason) = verdict.stopped {
            let ports: Vec<&String> = orphans.keys().take(10).collect();
            tracing::error!(reason, ?ports, "Neutron ports of AKE's that no row of the database knows stay");
        }
        for port in &verdict.ripe {
            let Some(owner) = orphans.get(port) else { continue };
            if self.cloud.remove_orphan(port, owner).await? {
                tracing::warn!(port, "no row has known this port for a period; it is deleted");
                self.metrics.neutron_written("orphan");
                self.metrics.orphans_removed(PLACE, 1);
            }
        }
        Ok(())
    }

    /// Whether the database is not older than what balancers hold, as far as any of them tells: one that was restored or
    /// begun anew knows too little to judge by, until the operator says that it is right.
    async fn is_of_today(&self) -> Result<bool, Refusal> {
        // the database after the balancers: they never hold what it does not know yet
        let view = self.devices.view();
        let version = self.store.version().await?;
        let mut held = view.devices.values().filter_map(|seen| seen.state.as_ref()).peekable();
        Ok(held.peek().is_some() && held.all(|state| state.version <= version))
    }

    /// Forgets what was seen, and says no more of it: whoever judges next begins anew.
    pub(super) fn forget_ports(&self, sweep: &mut Sweep) {
        sweep.reset();
        self.metrics.orphans(PLACE, 0, false);
    }

    fn is_of_our_ranges(&self, address: IpAddr) -> bool {
        let vips = self.config.networks.iter().flat_map(|network| &network.vips);
        let mut spans = vips.filter_map(|vip| Span::between(vip.first, vip.last));
        spans.any(|span| span.contains(Span::of(IpNetwork::from(address))))
    }
}

/// Ports that no row knows, with their owner's word. A port that has an address outside our ranges may be another
/// installation's.
fn unknown(
    blocks: &[BlockPort],
    retained: &[Retained],
    rows: &[BlockRecord],
    kept: &[Retained],
    ours: impl Fn(&IpAddr) -> bool,
) -> BTreeMap<String, &'static str> {
    let has_row = |port: &BlockPort| {
        let mut of_cluster = rows.iter().filter(|row| row.cluster == port.cluster);
        of_cluster.any(|row| port.addresses.iter().any(|address| row.block.contains(*address)))
    };
    let known: BTreeSet<&String> = kept
        .iter()
        .filter_map(|one| one.port.as_ref())
        .chain(rows.iter().filter_map(|row| row.port.as_ref()))
        .collect();
    // one without addresses says nothing of whose range it is of
    let is_ours = |port: &BlockPort| !port.addresses.is_empty() && port.addresses.iter().all(&ours);
    let reservations = blocks
        .iter()
        .filter(|port| is_ours(port) && !known.contains(&port.port) && !has_row(port))
        .map(|port| (port.port.clone(), BLOCK_OWNER));
    let foreign: BTreeSet<&String> =
        retained.iter().filter(|one| !ours(&one.address)).filter_map(|one| one.port.as_ref()).collect();
    let ports = retained.iter().filter_map(|one| one.port.as_ref());
    let outlived = ports
        .filter(|port| !known.contains(port) && !foreign.contains(port))
        .map(|port| (port.clone(), RETAINED_OWNER));
    reservations.chain(outlived).collect()
}

#[cfg(test)]
mod tests {
    use ake_api_client::ClusterId;

    use super::*;
    use crate::store::Origin;

    fn port(id: &str, cluster: u128, address: &str) -> BlockPort {
        BlockPort {
            port: id.into(),
            cluster: ClusterId::from_u128(cluster),
            addresses: BTreeSet::from([address.parse().unwrap()]),
            ..BlockPort::default()
        }
    }

    fn row(cluster: u128, block: &str) -> BlockRecord {
        BlockRecord {
            block: block.parse().unwrap(),
            cluster: ClusterId::from_u128(cluster),
            network: String::new(),
            subnet: String::new(),
            port: Some(format!("of-{block}")),
            settled: false,
            origin: Origin::Neutron,
        }
    }

    fn kept(port: &str, address: &str) -> Retained {
        Retained {
            address: address.parse().unwrap(),
            project: "p".into(),
            name: "web".into(),
            about: None,
            port: Some(port.into()),
            network: String::new(),
            subnet: String::new(),
            going: true,
        }
    }

    #[test]
    fn only_what_no_row_knows_and_is_of_our_ranges_counts() {
        let ours = |address: &IpAddr| address.to_string().starts_with("203.0.113.");
        let rows = [row(1, "203.0.113.16/28"), row(2, "203.0.113.48/32")];
        let blocks = [
            port("known", 1, "203.0.113.17"),
            port("of a cluster that is gone", 3, "203.0.113.65"),
            port("another block of a known one", 1, "203.0.113.33"),
            port("another installation's", 4, "198.51.100.1"),
            BlockPort { addresses: BTreeSet::new(), ..port("without addresses", 5, "203.0.113.97") },
            // somebody changed its addresses, or whose it is
            port("of-203.0.113.16/28", 6, "203.0.113.97"),
        ];
        let retained = [
            kept("kept", "203.0.113.80"),
            kept("nobody's", "203.0.113.81"),
            kept("not ours", "198.51.100.2"),
            kept("of-203.0.113.48/32", "203.0.113.48"),
        ];
        let found = unknown(&blocks, &retained, &rows, &[kept("kept", "203.0.113.80")], ours);
        let found: Vec<(&str, &str)> = found.iter().map(|(port, owner)| (port.as_str(), *owner)).collect();
        assert_eq!(
            found,
            [
                ("another block of a known one", BLOCK_OWNER),
                ("nobody's", RETAINED_OWNER),
                ("of a cluster that is gone", BLOCK_OWNER),
            ]
        );
    }
}
