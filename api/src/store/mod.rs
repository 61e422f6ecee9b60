//! The wanted state in SQL: SQLite, or MariaDB for several instances. Every function is one transaction, and the
//! statements are the same for both.

mod blocks;
mod bundles;
mod clusters;
mod database;
mod error;
mod restore;
mod retained;
mod schema;
mod used;
mod writer;

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use lb_driver::model::Version;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Transaction, any::AnyPoolOptions};

pub use blocks::{BlockRecord, NewBlock, Origin};
pub use bundles::BundleRecord;
pub use clusters::{Change, Loaded, PodRanges};
pub use database::{Database, NoDatabase};
pub use error::StoreError;
pub use retained::Release;
pub use writer::Pulse;

use crate::decide::quota::Quotas;
use database::Access;

/// How long to wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a write that others got in the way of is made again.
const ATTEMPTS: usize = 8;

/// What every connection to SQLite begins with. The log is put away at 1,000 pages (4 MB), and cut to 16 MB after
/// it had to be larger.
const SQLITE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
    PRAGMA busy_timeout = 5000; PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 16777216;";
/// What every connection to MariaDB begins with: a snapshot per transaction, and no long waits for locks.
const MARIADB: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
    SET SESSION innodb_lock_wait_timeout = 5";

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Sqlite,
    MariaDb,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    flavour: Flavour,
    /// Without any, everybody may have anything.
    quotas: Option<Arc<Quotas>>,
}

impl Store {
    /// Opens it, makes SQLite's file if it is not there, and brings the schema up to date.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let store = Self::connect(database, Access::Make).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens it for reading alone; it must be there, with today's schema.
    pub async fn open_to_read(database: &Database) -> Result<Self, StoreError> {
        let store = Self::connect(database, Access::Read).await?;
        store.check_schema().await?;
        Ok(store)
    }

    async fn connect(database: &Database, access: Access) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let (flavour, connections, first) = match database {
            Database::Sqlite(_) => (Flavour::Sqlite, 4, SQLITE),
            Database::MariaDb(_) => (Flavour::MariaDb, 10, MARIADB),
        };
        let url = database.url(access)?;
        // a pool would only say that none came in time; one by itself says why
        let mut probe = AnyConnection::connect(&url).await?;
        probe.execute(first).await?;
        probe.close().await?;
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                Box::pin(async move { connection.execute(first).await.map(drop) })
            })
            .connect(&url)
            .await?;
        Ok(Self { pool, flavour, quotas: None })
    }

    /// Begins a transaction that will write.
    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(match self.flavour {
            // one that reads first and writes then could lose its place to another
            Flavour::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Flavour::MariaDb => self.pool.begin().await?,
        })
    }

    /// Makes a write, and makes it again where others got in its way: a deadlock, a lock that did not come. Such
    /// an attempt was undone whole.
    async fn retried<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let pace = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(5))
            .with_max_delay(Duration::from_millis(500))
            .with_max_times(ATTEMPTS)
            .with_jitter();
        attempt
            .retry(pace)
            .when(StoreError::may_pass)
            .notify(|error, wait| tracing::debug!(%error, ?wait, "a write is made again"))
            .await
    }

    /// The version of the whole wanted state.
    pub async fn version(&self) -> Result<Version, StoreError> {
        let (epoch, number): (i64, i64) =
            sqlx::query_as("SELECT epoch, number FROM device WHERE one = 1").fetch_one(&self.pool).await?;
        Ok(Version { epoch: epoch.unsigned_abs(), number: number.unsigned_abs() })
    }

    /// Raises the version, where nothing else has changed.
    pub async fn next_version(&self) -> Result<Version, StoreError> {
        self.retried(|| async { Ok(raise_version(&mut *self.pool.acquire().await?).await?) }).await?;
        self.version().await
    }

    /// Begins a new epoch above `held`: what the operator says when the database is right and the device is not.
    pub async fn begin_epoch_above(&self, held: Version) -> Result<Version, StoreError> {
        let epoch = i64::try_from(held.epoch).unwrap_or(i64::MAX).saturating_add(1);
        self.retried(|| async {
            sqlx::query(
                "UPDATE device SET epoch = CASE WHEN epoch < ? THEN ? ELSE epoch END, number = number + 1 \
                 WHERE one = 1",
            )
            .bind(epoch)
            .bind(epoch)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await?;
        self.version().await
    }

    /// Closes all connections, so that the write-ahead log is put away.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn raise_version(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE device SET number = number + 1 WHERE one = 1").execute(connection).await.map(drop)
}

/// Says that something changed that callers can see and devices need not know.
async fn raise_changes(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE device SET changes = changes + 1 WHERE one = 1").execute(connection).await.map(drop)
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
