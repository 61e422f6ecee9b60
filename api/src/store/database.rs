//! Which database: a file of SQLite, or MariaDB by URL.

use std::{fmt, path::PathBuf};

use url::Url;

use super::StoreError;

/// Where the wanted state is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A database of MariaDB, for several instances. The URL may hold a password.
    MariaDb(Url),
}

/// Why a text names no database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct NoDatabase(pub String);

impl Database {
    /// Reads what the operator wrote: a path, or the URL of a database.
    pub fn parse(text: &str) -> Result<Self, NoDatabase> {
        let wrong = |why: &str| NoDatabase(format!("a path, or mysql://USER@HOST[:PORT]/DATABASE; {why}"));
        let is_url = ["mysql://", "mariadb://"].iter().any(|scheme| text.starts_with(scheme));
        if !is_url {
            return match (text.is_empty(), text.contains("://")) {
                (true, _) => Err(wrong("it is empty")),
                (_, true) => Err(wrong("it is a URL of another kind")),
                _ => Ok(Self::Sqlite(PathBuf::from(text))),
            };
        }
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        if url.username().is_empty() {
            return Err(wrong("it names no user"));
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(wrong("it names no database"));
        }
        Ok(Self::MariaDb(url))
    }

    /// The same, with a password that stands in a file. A file of SQLite has none.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        match self {
            Self::MariaDb(mut url) => {
                // only a URL without a host takes no password, and those name none
                let _ = url.set_password(Some(password));
                Self::MariaDb(url)
            }
            file @ Self::Sqlite(_) => file,
        }
    }

    /// The password that stands in the URL.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        match self {
            Self::MariaDb(url) => url.password(),
            Self::Sqlite(_) => None,
        }
    }

    /// What sqlx opens. SQLite's file must be there unless it may be `made`.
    pub(super) fn url(&self, access: Access) -> Result<String, StoreError> {
        match self {
            Self::MariaDb(url) => Ok(url.to_string()),
            Self::Sqlite(path) => {
                let unusable = |reason: String| StoreError::Path { path: path.clone(), reason };
                let absolute = std::path::absolute(path).map_err(|e| unusable(e.to_string()))?;
                let file = Url::from_file_path(&absolute).map_err(|()| unusable("not a path".to_owned()))?;
                Ok(format!("sqlite://{}?mode={}", file.path(), access.mode()))
            }
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::MariaDb(url) => {
                let mut shown = url.clone();
                if shown.password().is_some() {
                    // it had one, so it can have another
                    let _ = shown.set_password(Some("..."));
                }
                shown.fmt(f)
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What will be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read and write; made where it is not there.
    Make,
    /// Read.
    Read,
}

impl Access {
    fn mode(self) -> &'static str {
        match self {
            Self::Make => "rwc",
            Self::Read => "ro",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_url_are_told_apart() {
        for (text, expected) in [
            ("/var/lib/ake/api.sqlite", Ok("/var/lib/ake/api.sqlite")),
            ("api.sqlite", Ok("api.sqlite")),
            ("mysql://ake@db.example.org/ake", Ok("mysql://ake@db.example.org/ake")),
            ("mysql://ake:secret@db.example.org:3307/ake", Ok("mysql://ake:...@db.example.org:3307/ake")),
            ("mariadb://ake@localhost/ake?socket=/run/s", Ok("mariadb://ake@localhost/ake?socket=/run/s")),
            ("", Err("it is empty")),
            ("postgres://ake@db/ake", Err("another kind")),
            ("mysql://db.example.org/ake", Err("no user")),
            ("mysql://ake@db.example.org/", Err("no database")),
            ("mysql://ake@db:x/ake", Err("port")),
        ] {
            match (Database::parse(text), expected) {
                (Ok(database), Ok(shown)) => assert_eq!(database.to_string(), shown),
                (Err(e), Err(word)) => assert!(e.to_string().contains(word), "{text}: {e}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let database = Database::parse("mysql://ake@db/ake").unwrap().with_password("s/e?c@ret");
        assert_eq!(format!("{database} {database:?}"), "mysql://ake:...@db/ake mysql://ake:...@db/ake");
        assert!(database.url(Access::Make).unwrap().contains("s%2Fe%3Fc%40ret"));
    }

    #[test]
    fn a_strange_path_arrives_whole() {
        let url = Database::Sqlite("/var/lib/a b/100%?#.sqlite".into()).url(Access::Read).unwrap();
        assert_eq!(url, "sqlite:///var/lib/a%20b/100%25%3F%23.sqlite?mode=ro");
    }
}
