//! The wanted state in SQL. Every function is one transaction.

mod blocks;
mod bundles;
mod clusters;

use std::{path::Path, time::Duration};

use lb_driver::model::Version;
use sqlx::{
    Connection, Executor, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

pub use blocks::BlockRecord;
pub use bundles::BundleRecord;
pub use clusters::{Change, Loaded};

use crate::{decide::wanted::UnreadableObject, refusal::Refusal};

/// The steps from an empty database to today's.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/0001_begin.sql")];

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// What is kept cannot be read.
    #[error("database: {0}")]
    Object(#[from] UnreadableObject),
    /// A column cannot be read.
    #[error("database: {column} = {value:?}: expected {expected}")]
    Column {
        /// Which one.
        column: &'static str,
        /// What stands there.
        value: String,
        /// What should.
        expected: &'static str,
    },
    /// A later version of this program wrote it.
    #[error("database: schema {found}: this version of ake-api knows up to {known}; run the newer one")]
    Newer {
        /// What it has.
        found: usize,
        /// What we know.
        known: usize,
    },
    /// Somebody else changed the cluster at the same time.
    #[error("cluster {0}: changed by another request at the same time; ask again")]
    Race(ake_api_client::ClusterId),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the database failed");
        Self::unavailable(error.to_string())
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens it, makes it if it is not there, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::connect(options(path).create_if_missing(true)).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens it for reading alone; it must be there.
    pub async fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        Self::connect(options(path).read_only(true)).await
    }

    async fn connect(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await?;
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        let Some(missing) = MIGRATIONS.get(found..) else {
            return Err(StoreError::Newer { found, known: MIGRATIONS.len() });
        };
        for step in missing {
            transaction.execute(*step).await?;
        }
        transaction.execute(format!("PRAGMA user_version = {}", MIGRATIONS.len()).as_str()).await?;
        Ok(transaction.commit().await?)
    }

    /// The version of the whole wanted state.
    pub async fn version(&self) -> Result<Version, StoreError> {
        let (epoch, number): (i64, i64) =
            sqlx::query_as("SELECT epoch, number FROM device WHERE one = 1").fetch_one(&self.pool).await?;
        Ok(Version { epoch: epoch.unsigned_abs(), number: number.unsigned_abs() })
    }

    /// Raises the version, where nothing else has changed.
    pub async fn next_version(&self) -> Result<Version, StoreError> {
        raise_version(&mut *self.pool.acquire().await?).await?;
        self.version().await
    }

    /// Begins a new epoch above `held`: what the operator says when the database is right and the device is not.
    pub async fn begin_epoch_above(&self, held: Version) -> Result<Version, StoreError> {
        let epoch = i64::try_from(held.epoch).unwrap_or(i64::MAX).saturating_add(1);
        sqlx::query("UPDATE device SET epoch = MAX(epoch, ?), number = number + 1 WHERE one = 1")
            .bind(epoch)
            .execute(&self.pool)
            .await?;
        self.version().await
    }

    /// Closes all connections, so that the write-ahead log is put away.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
}

async fn raise_version(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE device SET number = number + 1 WHERE one = 1").execute(connection).await.map(drop)
}

fn parsed<T: std::str::FromStr>(
    column: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, StoreError> {
    value.parse().map_err(|_| StoreError::Column { column, value: value.to_owned(), expected })
}

#[cfg(test)]
mod tests;
