//! The blocks of the VIP ranges that clusters have.

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;

use super::{Store, StoreError, parsed, raise_version};

/// A block that a cluster has, or is about to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRecord {
    /// The block.
    pub block: IpNetwork,
    /// Whose it is.
    pub cluster: ClusterId,
    /// Id of the Neutron network that it is on.
    pub network: String,
    /// Id of its subnet.
    pub subnet: String,
    /// The Neutron port that reserves it; none before it is made.
    pub port: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    block: String,
    cluster: String,
    network: String,
    subnet: String,
    port: Option<String>,
}

impl Store {
    /// All blocks of all clusters, or of one.
    pub async fn blocks(&self, cluster: Option<ClusterId>) -> Result<Vec<BlockRecord>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT block, cluster, network, subnet, port FROM blocks WHERE ?1 IS NULL OR cluster = ?1 \
             ORDER BY position, block",
        )
        .bind(cluster.map(|cluster| cluster.to_string()))
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(BlockRecord {
                    block: parsed("blocks.block", &row.block, "a range")?,
                    cluster: parsed("blocks.cluster", &row.cluster, "a UUID")?,
                    network: row.network,
                    subnet: row.subnet,
                    port: row.port,
                })
            })
            .collect()
    }

    /// Keeps that a cluster is about to have a block, before Neutron is asked for it.
    pub async fn intend_block(&self, record: &BlockRecord) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO blocks (block, cluster, position, network, subnet) \
             SELECT ?, ?, COUNT(*), ?, ? FROM blocks WHERE cluster = ?",
        )
        .bind(record.block.to_string())
        .bind(record.cluster.to_string())
        .bind(&record.network)
        .bind(&record.subnet)
        .bind(record.cluster.to_string())
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(Into::into)
    }

    /// Keeps the Neutron port that reserves a block: from now on the block is the cluster's.
    pub async fn reserve_block(&self, record: &BlockRecord, port: &str) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE blocks SET port = ? WHERE block = ?")
            .bind(port)
            .bind(record.block.to_string())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE clusters SET revision = revision + 1 WHERE id = ?")
            .bind(record.cluster.to_string())
            .execute(&mut *transaction)
            .await?;
        raise_version(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Takes back the intention to have a block.
    pub async fn abandon_block(&self, block: IpNetwork) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM blocks WHERE block = ? AND port IS NULL")
            .bind(block.to_string())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(Into::into)
    }
}
