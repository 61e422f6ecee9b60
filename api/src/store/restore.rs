//! Puts back what was found of a lost database.

use lb_driver::model::Version;
use sqlx::AnyConnection;

use super::{Store, StoreError, clusters::replace, retained, used};
use crate::decide::{facts::Retained, quota::Usage, remains::Found};

impl Store {
    /// Keeps what was found, all or nothing, in an epoch above the one that balancers hold.
    pub async fn restore(
        &self,
        found: &[Found],
        kept: &[Retained],
        held: Version,
    ) -> Result<Version, StoreError> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            sqlx::query("UPDATE device SET epoch = ?, number = ?, changes = changes + 1 WHERE one = 1")
                .bind(number(held.epoch).saturating_add(1))
                .bind(number(held.number).saturating_add(1))
                .execute(&mut *transaction)
                .await?;
            for one in found {
                restore(&mut transaction, one).await?;
            }
            for one in kept {
                retained::insert(&mut transaction, one).await?;
            }
            Ok(transaction.commit().await?)
        })
        .await?;
        self.version().await
    }
}

async fn restore(connection: &mut AnyConnection, found: &Found) -> Result<(), StoreError> {
    let record = &found.loaded.record;
    let id = record.id.to_string();
    sqlx::query("INSERT INTO clusters (id, name, project, network, pod_range, pod_range_v6) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(&id)
        .bind(&record.name)
        .bind(&record.project)
        .bind(&record.network)
        .bind(record.pod_range.to_string())
        .bind(record.pod_range_v6.map(|range| range.to_string()))
        .execute(&mut *connection)
        .await?;
    for (position, block) in (0_i64..).zip(&found.blocks) {
        sqlx::query(
            "INSERT INTO blocks (block, cluster, position, network, subnet, port, settled, origin) \
             VALUES (?, ?, ?, ?, ?, ?, 1, ?)",
        )
        .bind(block.block.to_string())
        .bind(&id)
        .bind(position)
        .bind(&block.network)
        .bind(&block.subnet)
        .bind(block.port.as_deref())
        .bind(block.origin.word())
        .execute(&mut *connection)
        .await?;
    }
    replace(connection, record.id, &Default::default(), &found.loaded.wanted.to_objects()?).await?;
    // what was there is no project's to be refused
    used::keep(connection, record.id, &Usage::of(&found.loaded.wanted)).await?;
    for (port, pairs) in &found.loaded.pairs {
        for pair in pairs {
            sqlx::query("INSERT INTO pairs (cluster, port, pair) VALUES (?, ?, ?)")
                .bind(&id)
                .bind(port)
                .bind(pair.to_string())
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}
