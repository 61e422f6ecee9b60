//! The operator's configuration: one TOML file.

mod device;
mod error;
mod keystone;
mod limits;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnetwork::IpNetwork;
use serde::Deserialize;

pub use device::{Bigip, Device, DriverKind};
pub use error::ConfigError;
use error::{read, value};
pub use keystone::Keystone;
pub use limits::Limits;
pub use network::{Network, Nodes, Vip};

use crate::{
    decide::{
        checks::{self, PortRange},
        quota::{Quota, Quotas},
        ranges::is_canonical,
    },
    store::Database,
};

/// A configuration that works once its values are the site's own; every key stands in it. It is made from the types
/// here and their documentation.
pub const EXAMPLE: &str = include_str!("../example.toml");

/// Where the configuration is unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/ake/api.toml";

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port of the API (HTTPS). Nodes must reach it, and their source address must arrive unchanged: it decides
    /// whose bundle a node gets.
    #[cfg_attr(test, schemars(with = "String"))]
    pub listen: SocketAddr,
    /// Address and port of `/metrics` (plain HTTP), for the operator alone: projects are named there; none without it.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub metrics_listen: Option<SocketAddr>,
    /// Where the wanted state is kept: a file of SQLite, or, for several instances, MariaDB's
    /// `mysql://USER@HOST/DATABASE`. With `?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE` by TLS alone, with `?socket=FILE`
    /// by a socket.
    pub database: String,
    /// File that holds the password of MariaDB's user.
    pub database_password_file: Option<PathBuf>,
    /// Every write is a line of JSON here. The file is opened anew on SIGHUP.
    pub audit_log: PathBuf,
    /// How often, in seconds, balancers and address pairs are compared with what is wanted, besides after every change.
    #[serde(default = "five_minutes")]
    pub reconcile_seconds: u64,
    /// How many objects on a balancer, or ports in Neutron, that carry AKE's mark may be removed in one sweep because no row
    /// of the database has known them for a period. With more of them nothing is removed, and the log and a metric say so;
    /// 0 removes nothing ever. A balancer, and a range of VIPs, must belong to one installation of AKE.
    #[serde(default = "twenty")]
    pub orphan_budget: usize,
    /// Ports of members that checks may ask, besides those of the listeners in front of them: single ones, and
    /// ranges as `first-last`.
    #[serde(default = "checks::admitted")]
    pub check_ports: Vec<PortRange>,
    /// The certificate that clients see. Its files are read anew when they change, and on SIGHUP.
    pub tls: Tls,
    /// Who we are in OpenStack, and how tokens of others are looked up.
    pub keystone: Keystone,
    /// How often anybody may ask, counted by each instance for itself; beyond that the answer is 429 with `Retry-After`.
    #[serde(default)]
    pub limits: Limits,
    /// How much of each a project may have; -1 for no limit. Instances that share a database need the same.
    #[serde(default)]
    pub quota: Quota,
    /// Other quotas for certain projects, by id; what is not named is as in `[quota]`.
    #[serde(default)]
    pub project_quota: BTreeMap<String, Quota>,
    /// A network that clusters may be on; repeat for more.
    #[serde(rename = "network")]
    pub networks: Vec<Network>,
    /// The balancers. The files that are named here are read anew when they change, and on SIGHUP.
    pub device: Device,
}

/// A certificate.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and those between it and its root.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

fn five_minutes() -> u64 {
    300
}

fn twenty() -> usize {
    20
}

impl Config {
    /// Reads and checks a configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read("--config", path)?;
        let config = Self::parse(path, &text)?;
        for (key, path) in config.files() {
            read(key, path)?;
        }
        Ok(config)
    }

    /// The same for a text, without looking at the files that it names.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| ConfigError::Syntax { path: path.to_owned(), reason: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    /// How often devices are compared.
    #[must_use]
    pub fn period(&self) -> Duration {
        Duration::from_secs(self.reconcile_seconds)
    }

    /// The service user's password.
    pub fn password(&self) -> Result<String, ConfigError> {
        self.keystone.secret()
    }

    /// How much each project may have.
    #[must_use]
    pub fn quotas(&self) -> Quotas {
        Quotas { general: self.quota.clone(), projects: self.project_quota.clone() }
    }

    /// The database, with its password.
    pub fn database(&self) -> Result<Database, ConfigError> {
        let database = self.check_database()?;
        match &self.database_password_file {
            None => Ok(database),
            Some(path) => Ok(database.with_password(read("database_password_file", path)?.trim_end())),
        }
    }

    /// The files that it names, by their keys.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = vec![("tls.certificate", self.tls.certificate.as_path()), ("tls.key", &self.tls.key)];
        files.extend(self.device.files());
        files.extend(self.keystone.password_file.as_deref().map(|path| ("keystone.password_file", path)));
        files.extend(self.database_password_file.as_deref().map(|path| ("database_password_file", path)));
        files.extend(self.keystone.ca.as_deref().map(|path| ("keystone.ca", path)));
        files
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.reconcile_seconds == 0 {
            return Err(value("reconcile_seconds", 0, "1 or more"));
        }
        self.check_database()?;
        self.keystone.check()?;
        self.limits.check()?;
        if let Some((key, limit)) = self.quotas().wrong() {
            return Err(value(&key, limit, "-1 for no limit, or 0 or more"));
        }
        if self.networks.is_empty() {
            return Err(value("network", "none", "one [[network]] at least"));
        }
        let mut names = BTreeSet::new();
        for (i, network) in self.networks.iter().enumerate() {
            network.check(&format!("network[{i}]"))?;
            if !names.insert(&network.network) {
                return Err(value(&format!("network[{i}].network"), &network.network, "each network once"));
            }
        }
        self.device.check()
    }

    fn check_database(&self) -> Result<Database, ConfigError> {
        let database = Database::parse(&self.database)
            .map_err(|e| value("database", format!("{:?}", self.database), e.0))?;
        match (&self.database_password_file, &database) {
            (Some(path), Database::Sqlite(_)) => Err(value(
                "database_password_file",
                path.display(),
                "none, because a file of SQLite has no password",
            )),
            (Some(_), _) if database.password().is_some() => {
                Err(value("database, database_password_file", "both", "a password in one of the two"))
            }
            _ => Ok(database),
        }
    }
}

fn canonical(key: &str, range: IpNetwork) -> Result<(), ConfigError> {
    if is_canonical(range) {
        return Ok(());
    }
    Err(value(key, range, format!("no bits behind the prefix: {}/{}", range.network(), range.prefix())))
}

#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;
