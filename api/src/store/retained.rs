//! Addresses that outlived their clusters, and are projects' own.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use sqlx::AnyConnection;

use super::{Store, StoreError, parsed, raise_changes};
use crate::decide::facts::Retained;

#[derive(sqlx::FromRow)]
struct Row {
    address: String,
    project: String,
    name: String,
    about: Option<String>,
    port: Option<String>,
    network: String,
    subnet: String,
    going: i64,
}

const COLUMNS: &str = "SELECT address, project, name, about, port, network, subnet, going FROM retained";

/// What came of the wish to give an address back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// It is on its way: nobody can adopt it any more.
    Going(Retained),
    /// A cluster has adopted it.
    Adopted,
    /// The project has retained none such.
    Missing,
}

impl Store {
    /// All retained addresses, or those of a project.
    pub async fn retained(&self, project: Option<&str>) -> Result<Vec<Retained>, StoreError> {
        let text = match project {
            None => format!("{COLUMNS} ORDER BY address"),
            Some(_) => format!("{COLUMNS} WHERE project = ? ORDER BY address"),
        };
        let query = sqlx::query_as(&text);
        let query = project.into_iter().fold(query, sqlx::query::QueryAs::bind);
        let rows: Vec<Row> = query.fetch_all(&self.pool).await?;
        rows.into_iter().map(record).collect()
    }

    /// Begins to give back a retained address that no cluster has adopted.
    pub async fn begin_release(&self, project: &str, address: IpAddr) -> Result<Release, StoreError> {
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            raise_changes(&mut transaction).await?;
            let row: Option<Row> = sqlx::query_as(&format!("{COLUMNS} WHERE address = ? AND project = ?"))
                .bind(address.to_string())
                .bind(project)
                .fetch_optional(&mut *transaction)
                .await?;
            let Some(row) = row else { return Ok(Release::Missing) };
            let blocks: Vec<String> =
                sqlx::query_scalar("SELECT block FROM blocks").fetch_all(&mut *transaction).await?;
            for block in blocks {
                let block: IpNetwork = parsed("blocks.block", &block, "a range")?;
                if block.contains(address) {
                    return Ok(Release::Adopted);
                }
            }
            sqlx::query("UPDATE retained SET going = 1 WHERE address = ?")
                .bind(address.to_string())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(Release::Going(Retained { going: true, ..record(row)? }))
        })
        .await
    }

    /// Forgets an address that was given back.
    pub async fn end_release(&self, address: IpAddr) -> Result<(), StoreError> {
        self.retried(|| async {
            sqlx::query("DELETE FROM retained WHERE address = ? AND going = 1")
                .bind(address.to_string())
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}

/// All of them, each with whether it can be adopted.
pub(super) async fn addresses(connection: &mut AnyConnection) -> Result<Vec<(IpAddr, bool)>, StoreError> {
    let all: Vec<(String, i64)> =
        sqlx::query_as("SELECT address, going FROM retained").fetch_all(&mut *connection).await?;
    let read = |(address, going): (String, i64)| {
        Ok((parsed("retained.address", &address, "an address")?, going == 0))
    };
    all.into_iter().map(read).collect()
}

pub(super) async fn insert(connection: &mut AnyConnection, one: &Retained) -> Result<(), StoreError> {
    sqlx::query(
        "REPLACE INTO retained (address, project, name, about, port, network, subnet, going) \
         VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
    )
    .bind(one.address.to_string())
    .bind(&one.project)
    .bind(&one.name)
    .bind(one.about.as_deref())
    .bind(one.port.as_deref())
    .bind(&one.network)
    .bind(&one.subnet)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
impl Store {
    /// As [`Store::save`] keeps them of a cluster that goes.
    pub(super) async fn retain(&self, addresses: &[Retained]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        raise_changes(&mut transaction).await?;
        for one in addresses {
            insert(&mut transaction, one).await?;
        }
        Ok(transaction.commit().await?)
    }
}

fn record(row: Row) -> Result<Retained, StoreError> {
    Ok(Retained {
        address: parsed("retained.address", &row.address, "an address")?,
        project: row.project,
        name: row.name,
        about: row.about,
        port: row.port,
        network: row.network,
        subnet: row.subnet,
        going: row.going != 0,
    })
}
