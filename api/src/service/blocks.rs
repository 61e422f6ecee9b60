//! Blocks of the VIP ranges: chosen here, reserved in Neutron, and only then a cluster's.

use std::collections::BTreeSet;

use ake_api_client::Family;
use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    cloud::Reservation,
    config::Vip,
    decide::{addresses::Adoption, blocks, wanted::ClusterRecord},
    refusal::Refusal,
    store::{BlockRecord, NewBlock, Origin},
};

impl Service {
    /// Gives a cluster one block of each family that its network has a range for, as far as it has none.
    pub(super) async fn ensure_blocks(&self, cluster: &ClusterRecord) -> Result<(), Refusal> {
        let has = self.store.blocks(Some(cluster.id)).await?;
        for vip in self.vips(cluster).await? {
            let v4 = vip.first.is_ipv4();
            let of_family: Vec<&BlockRecord> = has
                .iter()
                .filter(|record| record.block.is_ipv4() == v4 && !record.origin.is_borrowed())
                .collect();
            if of_family.is_empty() {
                self.add_block(cluster, vip).await?;
            }
            for record in of_family {
                if record.settled {
                    continue;
                }
                if self.reserve(cluster, record).await? == Reservation::Taken {
                    self.store.abandon_block(record.block).await?;
                    self.add_block(cluster, vip).await?;
                }
            }
        }
        Ok(())
    }

    /// Gives a cluster another block of a family.
    pub(super) async fn add_block_of(&self, cluster: &ClusterRecord, family: Family) -> Result<(), Refusal> {
        // one that was begun and not finished comes first
        for record in self.store.blocks(Some(cluster.id)).await? {
            let begun = !record.settled && !record.origin.is_borrowed();
            if begun && record.block.is_ipv4() == (family == Family::V4) {
                match self.reserve(cluster, &record).await? {
                    Reservation::Port(_) | Reservation::Plain => return Ok(()),
                    Reservation::Taken => self.store.abandon_block(record.block).await?,
                }
            }
        }
        let vips = self.vips(cluster).await?;
        let vip = vips.iter().find(|vip| vip.first.is_ipv4() == (family == Family::V4)).ok_or_else(|| {
            Refusal::invalid(
                "family",
                if family == Family::V4 { "IPv4" } else { "IPv6" },
                format!("network {} has no VIP range of this family; expected another, or one that the operator adds", cluster.network),
            )
        })?;
        self.add_block(cluster, vip).await
    }

    async fn add_block(&self, cluster: &ClusterRecord, vip: &Vip) -> Result<(), Refusal> {
        let new = match self.cloud.vip_ids(vip).await? {
            Some((network, subnet)) => {
                NewBlock { cluster: cluster.id, network, subnet, origin: Origin::Neutron }
            }
            None => {
                let (network, subnet) = (String::new(), String::new());
                NewBlock { cluster: cluster.id, network, subnet, origin: Origin::Range }
            }
        };
        let mut foreign: Vec<IpNetwork> = Vec::new();
        loop {
            let record = self
                .store
                .intend_block(&new, |owned| blocks::next_block(vip.range(), owned, &foreign))
                .await??;
            match self.reserve(cluster, &record).await? {
                Reservation::Port(_) | Reservation::Plain => return Ok(()),
                Reservation::Taken => {
                    tracing::warn!(block = %record.block, "a port that is not AKE's has an address of this block");
                    self.store.abandon_block(record.block).await?;
                    foreign.push(record.block);
                }
            }
        }
    }

    /// Has Neutron reserve a block. The intention stays kept when Neutron fails, so that a repetition finds
    /// the port that may have been made.
    async fn reserve(&self, cluster: &ClusterRecord, record: &BlockRecord) -> Result<Reservation, Refusal> {
        if record.origin == Origin::Range {
            self.store.settle_block(record, None).await?;
            self.devices.feed().touch(cluster.id);
            return Ok(Reservation::Plain);
        }
        let reservation = self.cloud.reserve(cluster, record).await?;
        if let Reservation::Port(port) = &reservation {
            self.metrics.neutron_written("block");
            self.store.settle_block(record, Some(port)).await?;
            self.devices.feed().touch(cluster.id);
            tracing::info!(cluster = %cluster.id, block = %record.block, %port, "VIP block reserved");
        }
        Ok(reservation)
    }

    /// Gives a cluster the address of a port that was there before, as a block of its own.
    pub(super) async fn adopt(&self, cluster: &ClusterRecord, adoption: &Adoption) -> Result<(), Refusal> {
        let Adoption { address, port, network, retained } = adoption;
        let origin = if *retained { Origin::Retained } else { Origin::Adopted };
        let block = IpNetwork::from(*address);
        let has = self.store.blocks(Some(cluster.id)).await?;
        let begun = has.into_iter().find(|record| record.block == block && !record.settled);
        let record = match begun {
            Some(record) => record,
            None => {
                let new =
                    NewBlock { cluster: cluster.id, network: network.clone(), subnet: String::new(), origin };
                self.store.intend_block(&new, |owned| blocks::adopted(*address, owned)).await??
            }
        };
        self.store.settle_block(&record, port.as_deref()).await?;
        self.devices.feed().touch(cluster.id);
        tracing::info!(cluster = %cluster.id, %address, port, retained, "address adopted");
        Ok(())
    }

    /// Ids of the networks that a cluster's VIPs are on.
    pub(super) async fn vip_networks(&self, cluster: &ClusterRecord) -> Result<BTreeSet<String>, Refusal> {
        let mut networks = BTreeSet::new();
        for vip in self.vips(cluster).await? {
            networks.extend(self.cloud.vip_ids(vip).await?.map(|(network, _)| network));
        }
        Ok(networks)
    }

    async fn vips(&self, cluster: &ClusterRecord) -> Result<&[Vip], Refusal> {
        Ok(&self.configured_network(&cluster.network).await?.vips)
    }
}
