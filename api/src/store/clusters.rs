//! Clusters and what they want.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;
use serde_json::Value;
use sqlx::{Connection, sqlite::SqliteConnection};

use super::{Store, StoreError, parsed, raise_version};
use crate::decide::wanted::{ClusterRecord, UnreadableObject, Wanted};

/// A cluster as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The cluster.
    pub record: ClusterRecord,
    /// What it wants.
    pub wanted: Wanted,
    /// The address pairs that were written to Neutron, by port.
    pub pairs: BTreeMap<String, BTreeSet<IpNetwork>>,
}

/// What a write makes of a cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// All that it wants now.
    pub wanted: Option<&'a Wanted>,
    /// It goes away.
    pub deleting: bool,
    /// The writer's count of Lease transitions.
    pub lease_transitions: u64,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    project: String,
    network: String,
    pod_range: String,
    deleting: i64,
    revision: i64,
    lease_transitions: i64,
}

const COLUMNS: &str =
    "SELECT id, name, project, network, pod_range, deleting, revision, lease_transitions FROM clusters";

impl Store {
    /// All clusters, or those of a project, without what they want.
    pub async fn clusters(&self, project: Option<&str>) -> Result<Vec<ClusterRecord>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let rows: Vec<Row> =
            sqlx::query_as(&format!("{COLUMNS} WHERE ?1 IS NULL OR project = ?1 ORDER BY id"))
                .bind(project)
                .fetch_all(&mut *transaction)
                .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            records.push(record(&mut transaction, row).await?);
        }
        Ok(records)
    }

    /// One cluster with all that it wants.
    pub async fn load(&self, cluster: ClusterId) -> Result<Option<Loaded>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        load(&mut transaction, cluster).await
    }

    /// One cluster without what it wants: one row, however much it owns.
    pub async fn brief(&self, cluster: ClusterId) -> Result<Option<ClusterRecord>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let row: Option<Row> = sqlx::query_as(&format!("{COLUMNS} WHERE id = ?"))
            .bind(cluster.to_string())
            .fetch_optional(&mut *connection)
            .await?;
        match row {
            None => Ok(None),
            Some(row) => Ok(Some(record(&mut connection, row).await?)),
        }
    }

    /// Every cluster with all that it wants, and the version of the whole, from one moment.
    pub async fn load_all(&self) -> Result<(lb_driver::model::Version, Vec<Loaded>), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let (epoch, number): (i64, i64) = sqlx::query_as("SELECT epoch, number FROM device WHERE one = 1")
            .fetch_one(&mut *transaction)
            .await?;
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM clusters ORDER BY id").fetch_all(&mut *transaction).await?;
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.extend(load(&mut transaction, parsed("clusters.id", &id, "a UUID")?).await?);
        }
        let version =
            lb_driver::model::Version { epoch: epoch.unsigned_abs(), number: number.unsigned_abs() };
        Ok((version, all))
    }

    /// The pod ranges that the clusters of a network have.
    pub async fn pod_ranges(&self, network: &str) -> Result<Vec<IpNetwork>, StoreError> {
        let rows: Vec<String> = sqlx::query_scalar("SELECT pod_range FROM clusters WHERE network = ?")
            .bind(network)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|range| parsed("clusters.pod_range", range, "a range")).collect()
    }

    /// Keeps a new cluster, still without blocks.
    pub async fn register(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO clusters (id, name, project, network, pod_range) VALUES (?, ?, ?, ?, ?)")
            .bind(cluster.id.to_string())
            .bind(&cluster.name)
            .bind(&cluster.project)
            .bind(&cluster.network)
            .bind(cluster.pod_range.to_string())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(Into::into)
    }

    /// Keeps a new name.
    pub async fn rename(&self, cluster: ClusterId, name: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE clusters SET name = ?, revision = revision + 1 WHERE id = ?")
            .bind(name)
            .bind(cluster.to_string())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(Into::into)
    }

    /// Keeps a change, if nobody else changed the cluster since it was loaded. Whether anything was to be
    /// changed is the answer; if not, the revision stays.
    pub async fn save(&self, before: &Loaded, change: Change<'_>) -> Result<bool, StoreError> {
        let record = &before.record;
        let id = record.id.to_string();
        let (old, new) = (before.wanted.to_objects()?, change.wanted.unwrap_or(&before.wanted).to_objects()?);
        let changed = old != new || (change.deleting && !record.deleting);
        let raises_lease = change.lease_transitions > record.lease_transitions;
        if !changed && !raises_lease {
            return Ok(false);
        }
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let updated = sqlx::query(
            "UPDATE clusters SET revision = revision + ?, deleting = MAX(deleting, ?), \
             lease_transitions = MAX(lease_transitions, ?) WHERE id = ? AND revision = ?",
        )
        .bind(i64::from(changed))
        .bind(i64::from(change.deleting))
        .bind(i64::try_from(change.lease_transitions).unwrap_or(i64::MAX))
        .bind(&id)
        .bind(i64::try_from(record.revision).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::Race(record.id));
        }
        for path in old.keys().filter(|path| !new.contains_key(*path)) {
            sqlx::query("DELETE FROM objects WHERE cluster = ? AND path = ?")
                .bind(&id)
                .bind(path)
                .execute(&mut *transaction)
                .await?;
        }
        for (path, body) in new.iter().filter(|(path, body)| old.get(*path) != Some(*body)) {
            sqlx::query("INSERT OR REPLACE INTO objects (cluster, path, body) VALUES (?, ?, ?)")
                .bind(&id)
                .bind(path)
                .bind(body.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        if changed {
            raise_version(&mut transaction).await?;
        }
        transaction.commit().await?;
        Ok(changed)
    }

    /// Keeps which address pairs of a port are ours.
    pub async fn save_pairs(
        &self,
        cluster: ClusterId,
        port: &str,
        ours: &BTreeSet<IpNetwork>,
    ) -> Result<(), StoreError> {
        let id = cluster.to_string();
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM pairs WHERE cluster = ? AND port = ?")
            .bind(&id)
            .bind(port)
            .execute(&mut *transaction)
            .await?;
        for range in ours {
            sqlx::query("INSERT INTO pairs (cluster, port, range) VALUES (?, ?, ?)")
                .bind(&id)
                .bind(port)
                .bind(range.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets a cluster and all that hangs on it.
    pub async fn forget(&self, cluster: ClusterId) -> Result<(), StoreError> {
        let id = cluster.to_string();
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for statement in [
            "DELETE FROM redeemed WHERE cluster = ?",
            "DELETE FROM bundles WHERE cluster = ?",
            "DELETE FROM credentials WHERE cluster = ?",
            "DELETE FROM pairs WHERE cluster = ?",
            "DELETE FROM objects WHERE cluster = ?",
            "DELETE FROM blocks WHERE cluster = ?",
            "DELETE FROM clusters WHERE id = ?",
        ] {
            sqlx::query(statement).bind(&id).execute(&mut *transaction).await?;
        }
        raise_version(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// The cluster that an application credential belongs to.
    pub async fn cluster_of_credential(&self, credential: &str) -> Result<Option<ClusterId>, StoreError> {
        let found: Option<String> =
            sqlx::query_scalar("SELECT cluster FROM credentials WHERE credential = ?")
                .bind(credential)
                .fetch_optional(&self.pool)
                .await?;
        found.map(|id| parsed("credentials.cluster", &id, "a UUID")).transpose()
    }

    /// Gives an application credential to a cluster, unless it belongs to one already.
    pub async fn bind_credential(&self, credential: &str, cluster: ClusterId) -> Result<(), StoreError> {
        sqlx::query("INSERT OR IGNORE INTO credentials (credential, cluster) VALUES (?, ?)")
            .bind(credential)
            .bind(cluster.to_string())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(Into::into)
    }
}

async fn load(connection: &mut SqliteConnection, cluster: ClusterId) -> Result<Option<Loaded>, StoreError> {
    let id = cluster.to_string();
    let row: Option<Row> =
        sqlx::query_as(&format!("{COLUMNS} WHERE id = ?")).bind(&id).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(None) };
    let record = record(connection, row).await?;
    let objects: Vec<(String, String)> = sqlx::query_as("SELECT path, body FROM objects WHERE cluster = ?")
        .bind(&id)
        .fetch_all(&mut *connection)
        .await?;
    let objects = objects
        .into_iter()
        .map(|(path, body)| match serde_json::from_str::<Value>(&body) {
            Ok(body) => Ok((path, body)),
            Err(e) => Err(UnreadableObject { path, reason: e.to_string() }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT port, range FROM pairs WHERE cluster = ?")
        .bind(&id)
        .fetch_all(&mut *connection)
        .await?;
    let mut pairs: BTreeMap<String, BTreeSet<IpNetwork>> = BTreeMap::new();
    for (port, range) in rows {
        pairs.entry(port).or_default().insert(parsed("pairs.range", &range, "a range")?);
    }
    Ok(Some(Loaded { record, wanted: Wanted::from_objects(objects)?, pairs }))
}

async fn record(connection: &mut SqliteConnection, row: Row) -> Result<ClusterRecord, StoreError> {
    let blocks: Vec<String> = sqlx::query_scalar(
        "SELECT block FROM blocks WHERE cluster = ? AND port IS NOT NULL ORDER BY position, block",
    )
    .bind(&row.id)
    .fetch_all(connection)
    .await?;
    Ok(ClusterRecord {
        id: parsed("clusters.id", &row.id, "a UUID")?,
        name: row.name,
        project: row.project,
        network: row.network,
        pod_range: parsed("clusters.pod_range", &row.pod_range, "a range")?,
        blocks: blocks.iter().map(|b| parsed("blocks.block", b, "a range")).collect::<Result<_, _>>()?,
        deleting: row.deleting != 0,
        revision: row.revision.unsigned_abs(),
        lease_transitions: row.lease_transitions.unsigned_abs(),
    })
}
