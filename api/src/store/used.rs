//! How much of each resource clusters have, kept beside what they want, so that a project's sum costs a row for each
//! of its clusters; and the quota, which is asked where what a cluster wants is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;
use sqlx::AnyConnection;

use super::{Store, StoreError, parsed};
use crate::decide::{
    quota::{Quotas, Resource, Usage},
    wanted::ClusterRecord,
};

#[derive(sqlx::FromRow)]
struct Row {
    project: String,
    addresses: i64,
    pools: i64,
    members: i64,
    load_balancers: i64,
    listeners: i64,
    retained: i64,
}

/// What an instance of an older version registered has not been counted yet.
const COLUMNS: &str = "SELECT c.project, COALESCE(u.addresses, 0) AS addresses, COALESCE(u.pools, 0) AS pools, \
    COALESCE(u.members, 0) AS members, COALESCE(u.load_balancers, 0) AS load_balancers, \
    COALESCE(u.listeners, 0) AS listeners, COALESCE(u.retained, 0) AS retained \
    FROM clusters c LEFT JOIN used u ON u.cluster = c.id";

impl From<&Row> for Usage {
    fn from(row: &Row) -> Self {
        let mut usage = Self::default();
        for (resource, number) in [
            (Resource::Clusters, 1),
            (Resource::Addresses, row.addresses),
            (Resource::Pools, row.pools),
            (Resource::Members, row.members),
            (Resource::LoadBalancers, row.load_balancers),
            (Resource::Listeners, row.listeners),
            (Resource::Retained, row.retained),
        ] {
            usage.add(resource, number.unsigned_abs());
        }
        usage
    }
}

impl Store {
    /// The same database, in which no project comes to more than this.
    #[must_use]
    pub fn with_quotas(self, quotas: Quotas) -> Self {
        Self { quotas: Some(Arc::new(quotas)), ..self }
    }

    /// What a project has.
    pub async fn usage(&self, project: &str) -> Result<Usage, StoreError> {
        used(&mut *self.pool.acquire().await?, project, None).await
    }

    /// What each project has that has anything.
    pub async fn usages(&self) -> Result<BTreeMap<String, Usage>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let rows: Vec<Row> = sqlx::query_as(COLUMNS).fetch_all(&mut *connection).await?;
        let mut projects: BTreeMap<String, Usage> = BTreeMap::new();
        for row in &rows {
            let sum = projects.remove(&row.project).unwrap_or_default();
            projects.insert(row.project.clone(), [sum, row.into()].into_iter().sum());
        }
        for (project, usage) in outliving(&mut connection).await? {
            let sum = projects.remove(&project).unwrap_or_default();
            projects.insert(project, [sum, usage].into_iter().sum());
        }
        Ok(projects)
    }

    /// Whether a cluster may come to have so much, as far as can be told now; [`Store::save`] tells for good.
    pub async fn admits(
        &self,
        cluster: &ClusterRecord,
        before: &Usage,
        after: &Usage,
    ) -> Result<(), StoreError> {
        self.judge(&mut *self.pool.acquire().await?, cluster, before, after).await
    }

    async fn judge(
        &self,
        connection: &mut AnyConnection,
        cluster: &ClusterRecord,
        before: &Usage,
        after: &Usage,
    ) -> Result<(), StoreError> {
        let Some(quotas) = &self.quotas else { return Ok(()) };
        let others = used(connection, &cluster.project, Some(cluster.id)).await?;
        quotas.admit(&cluster.project, &others, before, after).map_err(StoreError::Quota)
    }

    /// Refuses what a project may not have, and keeps what a cluster has now. The transaction must have raised the version:
    /// from then on nobody else can add to what the project has.
    pub(super) async fn take(
        &self,
        connection: &mut AnyConnection,
        cluster: &ClusterRecord,
        before: &Usage,
        after: &Usage,
    ) -> Result<(), StoreError> {
        if before == after {
            return Ok(());
        }
        self.judge(&mut *connection, cluster, before, after).await?;
        keep(connection, cluster.id, after).await
    }
}

/// Each address that outlived its cluster, with its project. One that a cluster has adopted since counts there, too, as
/// one of its addresses; and once more as retained if that cluster shall keep it, which is not needed.
async fn outliving(connection: &mut AnyConnection) -> Result<Vec<(String, Usage)>, StoreError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT address, project FROM retained").fetch_all(&mut *connection).await?;
    if rows.is_empty() {
        return Ok(vec![]);
    }
    let adopted: Vec<String> = sqlx::query_scalar("SELECT block FROM blocks WHERE origin = 'retained'")
        .fetch_all(&mut *connection)
        .await?;
    let adopted: BTreeSet<String> = adopted.into_iter().collect();
    let mut projects = Vec::new();
    for (address, project) in rows {
        let address: IpAddr = parsed("retained.address", &address, "an address")?;
        let mut usage = Usage::default();
        usage.add(Resource::Retained, 1);
        if !adopted.contains(&IpNetwork::from(address).to_string()) {
            usage.add(Resource::Addresses, 1);
        }
        projects.push((project, usage));
    }
    Ok(projects)
}

/// What a project has, without one of its clusters.
async fn used(
    connection: &mut AnyConnection,
    project: &str,
    without: Option<ClusterId>,
) -> Result<Usage, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(&format!("{COLUMNS} WHERE c.project = ? AND c.id <> ?"))
        .bind(project)
        .bind(without.map(|cluster| cluster.to_string()).unwrap_or_default())
        .fetch_all(&mut *connection)
        .await?;
    let own = outliving(connection).await?.into_iter().filter(|(owner, _)| owner == project);
    Ok(rows.iter().map(Usage::from).chain(own.map(|(_, usage)| usage)).sum())
}

/// Keeps what a cluster has.
pub(super) async fn keep(
    connection: &mut AnyConnection,
    cluster: ClusterId,
    usage: &Usage,
) -> Result<(), StoreError> {
    let count = |resource| i64::try_from(usage.get(resource)).unwrap_or(i64::MAX);
    sqlx::query(
        "REPLACE INTO used (cluster, addresses, pools, members, load_balancers, listeners, retained) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(cluster.to_string())
    .bind(count(Resource::Addresses))
    .bind(count(Resource::Pools))
    .bind(count(Resource::Members))
    .bind(count(Resource::LoadBalancers))
    .bind(count(Resource::Listeners))
    .bind(count(Resource::Retained))
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
impl Store {
    /// All connections that there are: as long as somebody has them, the database answers nobody else.
    pub(crate) async fn all_connections_for_tests(&self) -> Vec<sqlx::pool::PoolConnection<sqlx::Any>> {
        let mut taken = Vec::new();
        for _ in 0..self.pool.options().get_max_connections() {
            taken.push(self.pool.acquire().await.expect("a connection"));
        }
        taken
    }
}
