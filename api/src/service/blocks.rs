//! Blocks of the VIP ranges: chosen here, reserved in Neutron, and only then a cluster's.

use ake_api_client::Family;
use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    cloud::Reservation,
    config::Vip,
    decide::{blocks, wanted::ClusterRecord},
    refusal::{Kind, Refusal},
    store::{BlockRecord, NewBlock, Origin},
};

impl Service {
    /// Gives a cluster one block of each family that its network has a range for, as far as it has none.
    pub(super) async fn ensure_blocks(&self, cluster: &ClusterRecord) -> Result<(), Refusal> {
        let has = self.store.blocks(Some(cluster.id)).await?;
        for vip in self.vips(cluster).await? {
            let v4 = vip.first.is_ipv4();
            let of_family: Vec<&BlockRecord> =
                has.iter().filter(|record| record.block.is_ipv4() == v4).collect();
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
            if !record.settled && record.block.is_ipv4() == (family == Family::V4) {
                match self.reserve(cluster, &record).await? {
                    Reservation::Port(_) => return Ok(()),
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
        let (network, subnet) = self.cloud.vip_ids(vip).await?;
        let new = NewBlock { cluster: cluster.id, network, subnet, origin: Origin::Neutron };
        let mut foreign: Vec<IpNetwork> = Vec::new();
        loop {
            let record = self
                .store
                .intend_block(&new, |owned| blocks::next_block(vip.range(), owned, &foreign))
                .await??;
            match self.reserve(cluster, &record).await? {
                Reservation::Port(_) => return Ok(()),
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
        let reservation = self.cloud.reserve(cluster, record).await?;
        if let Reservation::Port(port) = &reservation {
            self.metrics.neutron_written("block");
            self.store.settle_block(record, Some(port)).await?;
            self.devices.feed().touch(cluster.id);
            tracing::info!(cluster = %cluster.id, block = %record.block, %port, "VIP block reserved");
        }
        Ok(reservation)
    }

    async fn vips(&self, cluster: &ClusterRecord) -> Result<&[Vip], Refusal> {
        for network in &self.config.networks {
            if self.cloud.network_id(&network.network).await? == cluster.network {
                return Ok(&network.vips);
            }
        }
        Err(Refusal::new(
            Kind::Unavailable,
            format!(
                "network {}: it is no longer in the operator's configuration of ake-api",
                cluster.network
            ),
        ))
    }
}
