//! What can go wrong with the database, and what that means for whoever asked.

use std::path::PathBuf;

use sqlx::error::DatabaseError;

use crate::{decide::wanted::UnreadableObject, refusal::Refusal};

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others write at the same time, and this attempt lost; it was undone whole.
    #[error("database: busy: {0}")]
    Busy(#[source] sqlx::Error),
    /// There is no room for what should be written; it was undone whole, and reads go on.
    #[error("database: no room left on its disk ({0}): nothing was written; writes go on once there is room")]
    Full(#[source] sqlx::Error),
    /// Something that may be there once is there already.
    #[error("database: taken already: {0}")]
    Taken(#[source] sqlx::Error),
    /// It is damaged, or no database of ours.
    #[error(
        "database: damaged, or not a database of ake-api: {0}; put back a copy, or begin with an empty one and run `ake-api rebuild`"
    )]
    Damaged(#[source] sqlx::Error),
    /// It cannot be reached, or said no.
    #[error("database: {0}")]
    Sql(#[source] sqlx::Error),
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
    /// It is opened for reading alone, and an earlier version of this program wrote it.
    #[error(
        "database: schema {found}: this version of ake-api needs {known}; `ake-api serve` brings it up to date"
    )]
    Older {
        /// What it has.
        found: usize,
        /// What we need.
        known: usize,
    },
    /// The path of its file does not serve.
    #[error("database = {path:?}: {reason}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The project would have more than it may.
    #[error("{0}")]
    Quota(Refusal),
    /// Somebody else changed the cluster at the same time.
    #[error("cluster {0}: changed by another request at the same time; ask again")]
    Race(ake_api_client::ClusterId),
}

impl StoreError {
    /// Whether the same attempt, made again, may succeed at once.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(said) => kind(said.as_ref()),
            _ => Kind::Other,
        };
        match kind {
            Kind::Busy => Self::Busy(error),
            Kind::Full => Self::Full(error),
            Kind::Taken => Self::Taken(error),
            Kind::Damaged => Self::Damaged(error),
            Kind::Other => Self::Sql(error),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if let StoreError::Quota(refusal) = error {
            return refusal;
        }
        tracing::error!(%error, "the database failed");
        Self::unavailable(error.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Busy,
    Full,
    Taken,
    Damaged,
    Other,
}

fn kind(said: &dyn DatabaseError) -> Kind {
    if said.is_unique_violation() {
        return Kind::Taken;
    }
    if let Some(mysql) = said.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return of_mariadb(mysql.number());
    }
    said.code().and_then(|code| code.parse().ok()).map_or(Kind::Other, of_sqlite)
}

/// By the numbers of <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
fn of_mariadb(number: u16) -> Kind {
    match number {
        // a record changed since it was read, lock wait timeout, deadlock
        1020 | 1205 | 1213 => Kind::Busy,
        // disk full, no space for the table, record file full
        1021 | 1114 | 1135 => Kind::Full,
        // a table crashed, or its file is not one
        1033 | 1034 | 1194 | 1195 => Kind::Damaged,
        _ => Kind::Other,
    }
}

/// By the result codes of <https://www.sqlite.org/rescode.html>; the low byte is the primary one.
fn of_sqlite(code: i32) -> Kind {
    /// `SQLITE_IOERR_SHMSIZE`: the index of the write-ahead log cannot grow.
    const SHARED_MEMORY_SIZE: i32 = 4874;
    match (code, code & 0xff) {
        (SHARED_MEMORY_SIZE, _) | (_, 13) => Kind::Full,
        (_, 5 | 6) => Kind::Busy,
        (_, 11 | 26) => Kind::Damaged,
        _ => Kind::Other,
    }
}
