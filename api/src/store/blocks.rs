//! The blocks of the VIP ranges that clusters have.

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;

use super::{Store, StoreError, parsed, raise_changes, raise_version, retained};
use crate::refusal::Refusal;

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
    /// The Neutron port that reserves it; none before it is made, and none where there is no Neutron.
    pub port: Option<String>,
    /// Whether it is the cluster's already.
    pub settled: bool,
    /// What holds it.
    pub origin: Origin,
}

/// A block that is yet to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBlock {
    /// Whose it will be.
    pub cluster: ClusterId,
    /// Id of the Neutron network that it is on; empty where there is no Neutron.
    pub network: String,
    /// Id of its subnet.
    pub subnet: String,
    /// What will hold it.
    pub origin: Origin,
}

/// What holds a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A Neutron port that AKE made.
    Neutron,
    /// Nothing but the database: there is no Neutron.
    Range,
    /// A Neutron port that was there before.
    Adopted,
    /// An address that the project has retained.
    Retained,
}

impl Origin {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Neutron => "neutron",
            Self::Range => "range",
            Self::Adopted => "adopted",
            Self::Retained => "retained",
        }
    }

    /// Whether it is the project's, and stays when the cluster lets go of it.
    #[must_use]
    pub fn is_borrowed(self) -> bool {
        matches!(self, Self::Adopted | Self::Retained)
    }
}

/// A word that is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected neutron, range, adopted or retained")]
pub struct NoOrigin;

impl std::str::FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(word: &str) -> Result<Self, NoOrigin> {
        let all = [Self::Neutron, Self::Range, Self::Adopted, Self::Retained];
        all.into_iter().find(|o| o.word() == word).ok_or(NoOrigin)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    block: String,
    cluster: String,
    network: String,
    subnet: String,
    port: Option<String>,
    settled: i64,
    origin: String,
}

impl Store {
    /// All blocks of all clusters, or of one.
    pub async fn blocks(&self, cluster: Option<ClusterId>) -> Result<Vec<BlockRecord>, StoreError> {
        let text = match cluster {
            None => format!("{COLUMNS} ORDER BY cluster, position, block"),
            Some(_) => format!("{COLUMNS} WHERE cluster = ? ORDER BY position, block"),
        };
        let query = sqlx::query_as(&text);
        let query = cluster.iter().map(ToString::to_string).fold(query, sqlx::query::QueryAs::bind);
        let rows: Vec<Row> = query.fetch_all(&self.pool).await?;
        rows.into_iter().map(record).collect()
    }

    /// Keeps that a cluster is about to have a block, before Neutron is asked for it. It is chosen, of what no
    /// cluster has and no project has retained, while nobody else can choose; one that was retained is not given back
    /// meanwhile.
    pub async fn intend_block(
        &self,
        new: &NewBlock,
        choose: impl Fn(&[IpNetwork]) -> Result<IpNetwork, Refusal>,
    ) -> Result<Result<BlockRecord, Refusal>, StoreError> {
        let id = new.cluster.to_string();
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_changes(&mut transaction).await?;
            let owned: Vec<(String, String)> =
                sqlx::query_as("SELECT block, cluster FROM blocks").fetch_all(&mut *transaction).await?;
            let position = owned.iter().filter(|(_, cluster)| *cluster == id).count();
            let mut owned: Vec<IpNetwork> =
                owned.iter().map(|(b, _)| parsed("blocks.block", b, "a range")).collect::<Result<_, _>>()?;
            let retained = retained::addresses(&mut transaction).await?;
            if new.origin != Origin::Retained {
                owned.extend(retained.iter().map(|(address, _)| IpNetwork::from(*address)));
            }
            let block = match choose(&owned) {
                Ok(block) => block,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if new.origin == Origin::Retained && !retained.contains(&(block.ip(), true)) {
                let gone = format!("adopt: {}: the project has given it back meanwhile", block.ip());
                return Ok(Err(Refusal::conflict(gone).of_field("adopt")));
            }
            sqlx::query(
                "INSERT INTO blocks (block, cluster, position, network, subnet, origin) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(block.to_string())
            .bind(&id)
            .bind(i64::try_from(position).unwrap_or(i64::MAX))
            .bind(&new.network)
            .bind(&new.subnet)
            .bind(new.origin.word())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let NewBlock { cluster, network, subnet, origin } = new.clone();
            Ok(Ok(BlockRecord { block, cluster, network, subnet, port: None, settled: false, origin }))
        })
        .await
    }

    /// Keeps what reserves a block, a Neutron port where there is Neutron: from now on the block is the cluster's.
    pub async fn settle_block(&self, record: &BlockRecord, port: Option<&str>) -> Result<(), StoreError> {
        let id = record.cluster.to_string();
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_version(&mut transaction).await?;
            let updated =
                sqlx::query("UPDATE blocks SET port = ?, settled = 1 WHERE block = ? AND cluster = ?")
                    .bind(port)
                    .bind(record.block.to_string())
                    .bind(&id)
                    .execute(&mut *transaction)
                    .await?;
            if updated.rows_affected() == 0 {
                // the cluster was forgotten meanwhile
                return Err(StoreError::Race(record.cluster));
            }
            sqlx::query("UPDATE clusters SET revision = revision + 1 WHERE id = ?")
                .bind(&id)
                .execute(&mut *transaction)
                .await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Begins to give back all blocks of a cluster: their ports may be gone from now on.
    pub async fn give_up_blocks(&self, cluster: ClusterId) -> Result<(), StoreError> {
        self.retried(|| async {
            sqlx::query("UPDATE blocks SET settled = 0 WHERE cluster = ?")
                .bind(cluster.to_string())
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }

    /// Takes back the intention to have a block.
    pub async fn abandon_block(&self, block: IpNetwork) -> Result<(), StoreError> {
        self.retried(|| async {
            sqlx::query("DELETE FROM blocks WHERE block = ? AND settled = 0")
                .bind(block.to_string())
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}

const COLUMNS: &str = "SELECT block, cluster, network, subnet, port, settled, origin FROM blocks";

fn record(row: Row) -> Result<BlockRecord, StoreError> {
    Ok(BlockRecord {
        block: parsed("blocks.block", &row.block, "a range")?,
        cluster: parsed("blocks.cluster", &row.cluster, "a UUID")?,
        network: row.network,
        subnet: row.subnet,
        port: row.port,
        settled: row.settled != 0,
        origin: parsed("blocks.origin", &row.origin, "neutron, range, adopted or retained")?,
    })
}
