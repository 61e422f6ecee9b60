//! The schema, step by step, in the words of either database.

use sqlx::{AnyConnection, Executor};

use super::{Flavour, Store, StoreError};

/// SQLite's steps from an empty database to today's.
const SQLITE: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_begin.sql"),
    include_str!("../../migrations/sqlite/0002_like_mariadb.sql"),
    include_str!("../../migrations/sqlite/0003_pods_v6.sql"),
    include_str!("../../migrations/sqlite/0004_used.sql"),
    include_str!("../../migrations/sqlite/0005_retained.sql"),
    include_str!("../../migrations/sqlite/0006_kubernetes.sql"),
];

/// MariaDB's.
const MARIADB: &[&str] = &[
    include_str!("../../migrations/mariadb/0001_begin.sql"),
    include_str!("../../migrations/mariadb/0002_pods_v6.sql"),
    include_str!("../../migrations/mariadb/0003_used.sql"),
    include_str!("../../migrations/mariadb/0004_retained.sql"),
    include_str!("../../migrations/mariadb/0005_kubernetes.sql"),
];

/// Held while the schema changes: instances that start together wait for one another.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('ake-api-schema-', DATABASE()), 60)";
const UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('ake-api-schema-', DATABASE()))";

impl Store {
    /// Brings the schema up to date.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        match self.flavour {
            Flavour::Sqlite => {
                let mut transaction = self.begin().await?;
                let found = version_of_sqlite(&mut transaction).await?;
                for step in missing(SQLITE, found)? {
                    transaction.execute(*step).await?;
                }
                if found < SQLITE.len() {
                    transaction.execute(format!("PRAGMA user_version = {}", SQLITE.len()).as_str()).await?;
                }
                Ok(transaction.commit().await?)
            }
            Flavour::MariaDb => {
                let mut connection = self.pool.acquire().await?;
                connection.execute(LOCK).await?;
                let done = migrate_mariadb(&mut connection).await;
                connection.execute(UNLOCK).await?;
                done
            }
        }
    }

    /// Refuses a schema that is not today's.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let (found, steps) = match self.flavour {
            Flavour::Sqlite => (version_of_sqlite(&mut connection).await?, SQLITE),
            Flavour::MariaDb => (version_of_mariadb(&mut connection).await?, MARIADB),
        };
        if missing(steps, found)?.is_empty() {
            return Ok(());
        }
        Err(StoreError::Older { found, known: steps.len() })
    }
}

async fn migrate_mariadb(connection: &mut AnyConnection) -> Result<(), StoreError> {
    connection
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY) ENGINE = InnoDB",
        )
        .await?;
    let found = version_of_mariadb(connection).await?;
    for (number, step) in (found + 1..).zip(missing(MARIADB, found)?) {
        connection.execute(*step).await?;
        connection
            .execute(format!("INSERT INTO schema_version (version) VALUES ({number})").as_str())
            .await?;
    }
    Ok(())
}

async fn version_of_sqlite(connection: &mut AnyConnection) -> Result<usize, StoreError> {
    let found: i64 =
        sqlx::query_scalar("SELECT user_version FROM pragma_user_version").fetch_one(connection).await?;
    Ok(usize::try_from(found).unwrap_or(usize::MAX))
}

async fn version_of_mariadb(connection: &mut AnyConnection) -> Result<usize, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT MAX(version) FROM schema_version").fetch_one(connection).await?;
    Ok(usize::try_from(found.unwrap_or_default()).unwrap_or(usize::MAX))
}

fn missing(steps: &'static [&'static str], found: usize) -> Result<&'static [&'static str], StoreError> {
    steps.get(found..).ok_or(StoreError::Newer { found, known: steps.len() })
}
