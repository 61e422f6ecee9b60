//! Clusters as their rows have them.

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;
use serde_json::Value;
use sqlx::AnyConnection;

use super::Loaded;
use crate::{
    decide::wanted::{ClusterRecord, UnreadableObject, Wanted},
    store::{StoreError, parsed},
};

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: String,
    name: String,
    project: String,
    network: String,
    pod_range: String,
    pod_range_v6: Option<String>,
    deleting: i64,
    revision: i64,
    lease_transitions: i64,
    kubernetes: Option<String>,
}

pub(super) const COLUMNS: &str = "SELECT id, name, project, network, pod_range, pod_range_v6, deleting, revision, lease_transitions, kubernetes FROM clusters";

pub(super) async fn load(
    connection: &mut AnyConnection,
    cluster: ClusterId,
) -> Result<Option<Loaded>, StoreError> {
    let id = cluster.to_string();
    let row: Option<Row> =
        sqlx::query_as(&format!("{COLUMNS} WHERE id = ?")).bind(&id).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(None) };
    let record = record(connection, row).await?;
    let objects: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT path, body FROM objects WHERE cluster = ?")
        .bind(&id)
        .fetch_all(&mut *connection)
        .await?;
    let objects = objects
        .into_iter()
        .map(|(path, body)| match serde_json::from_slice::<Value>(&body) {
            Ok(body) => Ok((path, body)),
            Err(e) => Err(UnreadableObject { path, reason: e.to_string() }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT port, pair FROM pairs WHERE cluster = ?")
        .bind(&id)
        .fetch_all(&mut *connection)
        .await?;
    let mut pairs: BTreeMap<String, BTreeSet<IpNetwork>> = BTreeMap::new();
    for (port, pair) in rows {
        pairs.entry(port).or_default().insert(parsed("pairs.pair", &pair, "a range")?);
    }
    Ok(Some(Loaded { record, wanted: Wanted::from_objects(objects)?, pairs }))
}

pub(super) async fn record(connection: &mut AnyConnection, row: Row) -> Result<ClusterRecord, StoreError> {
    let blocks: Vec<String> = sqlx::query_scalar(
        "SELECT block FROM blocks WHERE cluster = ? AND settled = 1 ORDER BY position, block",
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
        pod_range_v6: row
            .pod_range_v6
            .map(|range| parsed("clusters.pod_range_v6", &range, "a range"))
            .transpose()?,
        blocks: blocks.iter().map(|b| parsed("blocks.block", b, "a range")).collect::<Result<_, _>>()?,
        deleting: row.deleting != 0,
        revision: row.revision.unsigned_abs(),
        lease_transitions: row.lease_transitions.unsigned_abs(),
        kubernetes: row.kubernetes.map(|uid| parsed("clusters.kubernetes", &uid, "a UUID")).transpose()?,
    })
}
