//! Clusters and what they want.

mod rows;

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::{ClusterId, KubernetesId};
use ipnetwork::IpNetwork;
use rows::{COLUMNS, Row, load, record};
use serde_json::Value;
use sqlx::AnyConnection;

use super::{Store, StoreError, parsed, raise_changes, raise_version, retained};
use crate::{
    decide::{
        facts::Retained,
        quota::Usage,
        wanted::{ClusterRecord, Wanted},
    },
    refusal::Refusal,
};

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
    /// The writer's count of Lease transitions, where it has one.
    pub lease_transitions: Option<u64>,
    /// The Kubernetes that the writer speaks for, where it does for one: the cluster's from now on.
    pub kubernetes: Option<KubernetesId>,
    /// Addresses that are the project's from now on, whatever becomes of the cluster.
    pub retained: &'a [Retained],
}

/// A cluster's pod range, and that of IPv6.
pub type PodRanges = (IpNetwork, Option<IpNetwork>);

impl Store {
    /// All clusters, or those of a project, without what they want.
    pub async fn clusters(&self, project: Option<&str>) -> Result<Vec<ClusterRecord>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let text = match project {
            None => format!("{COLUMNS} ORDER BY id"),
            Some(_) => format!("{COLUMNS} WHERE project = ? ORDER BY id"),
        };
        let query = sqlx::query_as(&text);
        let query = project.into_iter().fold(query, sqlx::query::QueryAs::bind);
        let rows: Vec<Row> = query.fetch_all(&mut *transaction).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            records.push(record(&mut transaction, row).await?);
        }
        Ok(records)
    }

    /// One cluster with all that it wants.
    pub async fn load(&self, cluster: ClusterId) -> Result<Option<Loaded>, StoreError> {
        load(&mut *self.pool.begin().await?, cluster).await
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
        let mut transaction = self.pool.begin().await?;
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

    /// Keeps a new cluster, still without blocks. Its pod ranges are chosen, of what the clusters of its network have
    /// left, while nobody else can choose.
    pub async fn register(
        &self,
        cluster: &ClusterRecord,
        choose: impl Fn(&[IpNetwork]) -> Result<PodRanges, Refusal>,
    ) -> Result<Result<PodRanges, Refusal>, StoreError> {
        let done = self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_version(&mut transaction).await?;
            let taken: Vec<(String, Option<String>)> =
                sqlx::query_as("SELECT pod_range, pod_range_v6 FROM clusters WHERE network = ?")
                    .bind(&cluster.network)
                    .fetch_all(&mut *transaction)
                    .await?;
            let taken: Vec<IpNetwork> = taken
                .into_iter()
                .flat_map(|(range, v6)| [Some(range), v6])
                .flatten()
                .map(|range| parsed("clusters.pod_range", &range, "a range"))
                .collect::<Result<_, _>>()?;
            let chosen = match choose(&taken) {
                Ok(chosen) => chosen,
                Err(refusal) => return Ok(Err(refusal)),
            };
            sqlx::query(
                "INSERT INTO clusters (id, name, project, network, pod_range, pod_range_v6) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(cluster.id.to_string())
            .bind(&cluster.name)
            .bind(&cluster.project)
            .bind(&cluster.network)
            .bind(chosen.0.to_string())
            .bind(chosen.1.map(|range| range.to_string()))
            .execute(&mut *transaction)
            .await?;
            let has = Usage::of(&Wanted::default());
            self.take(&mut transaction, cluster, &Usage::default(), &has).await?;
            transaction.commit().await?;
            Ok(Ok(chosen))
        });
        match done.await {
            Err(StoreError::Taken(_)) => Err(StoreError::Race(cluster.id)),
            done => done,
        }
    }

    /// Keeps a new name.
    pub async fn rename(&self, cluster: ClusterId, name: &str) -> Result<(), StoreError> {
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_version(&mut transaction).await?;
            sqlx::query("UPDATE clusters SET name = ?, revision = revision + 1 WHERE id = ?")
                .bind(name)
                .bind(cluster.to_string())
                .execute(&mut *transaction)
                .await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Keeps a change, if nobody else changed the cluster since it was loaded. Whether anything was to be
    /// changed is the answer; if not, the revision stays.
    pub async fn save(&self, before: &Loaded, change: Change<'_>) -> Result<bool, StoreError> {
        let record = &before.record;
        let (old, new) = (before.wanted.to_objects()?, change.wanted.unwrap_or(&before.wanted).to_objects()?);
        let changed = old != new || (change.deleting && !record.deleting) || !change.retained.is_empty();
        let named = change.kubernetes.is_some_and(|writer| record.kubernetes != Some(writer));
        if !changed
            && !named
            && change.lease_transitions.is_none_or(|count| count <= record.lease_transitions)
        {
            return Ok(false);
        }
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            if changed {
                raise_version(&mut transaction).await?;
            } else if named {
                raise_changes(&mut transaction).await?;
            }
            advance(&mut transaction, record, changed || named, change).await?;
            for one in change.retained {
                retained::insert(&mut transaction, one).await?;
            }
            replace(&mut transaction, record.id, &old, &new).await?;
            if changed {
                let wanted = change.wanted.unwrap_or(&before.wanted);
                let (had, has) = (Usage::of(&before.wanted), Usage::of(wanted));
                self.take(&mut transaction, record, &had, &has).await?;
                drop_unused_adoptions(&mut transaction, record.id, wanted).await?;
            }
            transaction.commit().await?;
            Ok(changed || named)
        })
        .await
    }

    /// Keeps which Kubernetes writes for a cluster, or that any may be the next, if nobody else changed the cluster since it was
    /// loaded.
    pub async fn save_kubernetes(
        &self,
        before: &ClusterRecord,
        kubernetes: Option<KubernetesId>,
    ) -> Result<(), StoreError> {
        let revision = i64::try_from(before.revision).unwrap_or(i64::MAX);
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_changes(&mut transaction).await?;
            let updated = sqlx::query(
                "UPDATE clusters SET revision = revision + 1, kubernetes = ? WHERE id = ? AND revision = ?",
            )
            .bind(kubernetes.map(|uid| uid.to_string()))
            .bind(before.id.to_string())
            .bind(revision)
            .execute(&mut *transaction)
            .await?;
            if updated.rows_affected() == 0 {
                return Err(StoreError::Race(before.id));
            }
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Keeps which address pairs of a port are ours.
    pub async fn save_pairs(
        &self,
        cluster: ClusterId,
        port: &str,
        ours: &BTreeSet<IpNetwork>,
    ) -> Result<(), StoreError> {
        let id = cluster.to_string();
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_changes(&mut transaction).await?;
            sqlx::query("DELETE FROM pairs WHERE cluster = ? AND port = ?")
                .bind(&id)
                .bind(port)
                .execute(&mut *transaction)
                .await?;
            for pair in ours {
                sqlx::query("INSERT INTO pairs (cluster, port, pair) VALUES (?, ?, ?)")
                    .bind(&id)
                    .bind(port)
                    .bind(pair.to_string())
                    .execute(&mut *transaction)
                    .await?;
            }
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Forgets a cluster and all that hangs on it.
    pub async fn forget(&self, cluster: ClusterId) -> Result<(), StoreError> {
        let id = cluster.to_string();
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_version(&mut transaction).await?;
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
            Ok(transaction.commit().await?)
        })
        .await
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
        let done = self.retried(|| async {
            sqlx::query("INSERT INTO credentials (credential, cluster) VALUES (?, ?)")
                .bind(credential)
                .bind(cluster.to_string())
                .execute(&self.pool)
                .await?;
            Ok(())
        });
        match done.await {
            Err(StoreError::Taken(_)) => Ok(()),
            done => done,
        }
    }
}

/// Takes the cluster's row to its next revision, if it still is at the one that was loaded.
async fn advance(
    connection: &mut AnyConnection,
    record: &ClusterRecord,
    changed: bool,
    change: Change<'_>,
) -> Result<(), StoreError> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let transitions = count(change.lease_transitions.unwrap_or_default());
    let deleting = i64::from(change.deleting);
    let updated = sqlx::query(
        "UPDATE clusters SET revision = revision + ?, \
         deleting = CASE WHEN deleting < ? THEN ? ELSE deleting END, \
         lease_transitions = CASE WHEN lease_transitions < ? THEN ? ELSE lease_transitions END, \
         kubernetes = COALESCE(?, kubernetes) \
         WHERE id = ? AND revision = ? AND lease_transitions <= ?",
    )
    .bind(i64::from(changed))
    .bind(deleting)
    .bind(deleting)
    .bind(transitions)
    .bind(transitions)
    .bind(change.kubernetes.map(|writer| writer.to_string()))
    .bind(record.id.to_string())
    .bind(count(record.revision))
    // a deposed writer does not pass, though its successor has changed nothing yet
    .bind(change.lease_transitions.map_or(i64::MAX, count))
    .execute(connection)
    .await?;
    if updated.rows_affected() == 0 { Err(StoreError::Race(record.id)) } else { Ok(()) }
}

/// An adopted address is the cluster's as long as it has a name.
async fn drop_unused_adoptions(
    connection: &mut AnyConnection,
    cluster: ClusterId,
    wanted: &Wanted,
) -> Result<(), StoreError> {
    let id = cluster.to_string();
    let adopted: Vec<String> = sqlx::query_scalar(
        "SELECT block FROM blocks WHERE cluster = ? AND origin IN ('adopted', 'retained') AND settled = 1",
    )
    .bind(&id)
    .fetch_all(&mut *connection)
    .await?;
    for block in adopted {
        let address: IpNetwork = parsed("blocks.block", &block, "a range")?;
        if !wanted.addresses.values().any(|named| address.contains(*named)) {
            sqlx::query("DELETE FROM blocks WHERE cluster = ? AND block = ?")
                .bind(&id)
                .bind(&block)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// Takes a cluster's documents from the old ones to the new ones.
pub(super) async fn replace(
    connection: &mut AnyConnection,
    cluster: ClusterId,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
) -> Result<(), StoreError> {
    let id = cluster.to_string();
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        sqlx::query("DELETE FROM objects WHERE cluster = ? AND path = ?")
            .bind(&id)
            .bind(path)
            .execute(&mut *connection)
            .await?;
    }
    for (path, body) in new.iter().filter(|(path, body)| old.get(*path) != Some(*body)) {
        sqlx::query("REPLACE INTO objects (cluster, path, body) VALUES (?, ?, ?)")
            .bind(&id)
            .bind(path)
            .bind(body.to_string().into_bytes())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
