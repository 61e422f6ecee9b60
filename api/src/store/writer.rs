//! The row that says which instance writes to the devices.

use super::{Store, StoreError};
use crate::decide::election::Post;

#[derive(sqlx::FromRow)]
struct Row {
    holder: String,
    beat: i64,
    epoch: i64,
    number: i64,
    changes: i64,
}

/// What changed last, and who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Who writes to the devices.
    pub post: Post,
    /// Counts the states of the whole.
    pub number: u64,
    /// Counts what callers can see and devices need not know.
    pub changes: u64,
}

impl Store {
    /// Whether other instances may use this database as well.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.flavour == super::Flavour::MariaDb
    }

    /// Who writes, and what changed last.
    pub async fn pulse(&self) -> Result<Pulse, StoreError> {
        let row: Row = sqlx::query_as(
            "SELECT w.holder, w.beat, d.epoch, d.number, d.changes FROM writer w, device d \
             WHERE w.one = 1 AND d.one = 1",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Pulse {
            post: Post { holder: row.holder, beat: row.beat.unsigned_abs(), epoch: row.epoch.unsigned_abs() },
            number: row.number.unsigned_abs(),
            changes: row.changes.unsigned_abs(),
        })
    }

    /// Gives another sign of life. False if the post is somebody else's by now.
    pub async fn beat(&self, seen: &Post) -> Result<bool, StoreError> {
        self.retried(|| async {
            let updated =
                sqlx::query("UPDATE writer SET beat = beat + 1 WHERE one = 1 AND holder = ? AND beat = ?")
                    .bind(&seen.holder)
                    .bind(i64::try_from(seen.beat).unwrap_or(i64::MAX))
                    .execute(&self.pool)
                    .await?;
            Ok(updated.rows_affected() == 1)
        })
        .await
    }

    /// Takes the post, and begins an epoch, if the post is as it was seen. False if somebody was faster.
    pub async fn take_post(&self, seen: &Post, holder: &str) -> Result<bool, StoreError> {
        self.retried(|| async {
            let mut transaction = self.begin().await?;
            sqlx::query("UPDATE device SET epoch = epoch + 1 WHERE one = 1")
                .execute(&mut *transaction)
                .await?;
            let updated = sqlx::query(
                "UPDATE writer SET holder = ?, beat = beat + 1 WHERE one = 1 AND holder = ? AND beat = ?",
            )
            .bind(holder)
            .bind(&seen.holder)
            .bind(i64::try_from(seen.beat).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
            if updated.rows_affected() == 0 {
                return Ok(false);
            }
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Leaves the post, so that another instance need not wait.
    pub async fn leave_post(&self, holder: &str) -> Result<(), StoreError> {
        self.retried(|| async {
            sqlx::query("UPDATE writer SET holder = '', beat = beat + 1 WHERE one = 1 AND holder = ?")
                .bind(holder)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}
