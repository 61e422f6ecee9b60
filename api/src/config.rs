//! The operator's configuration: one TOML file.

mod error;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnetwork::IpNetwork;
use serde::Deserialize;

pub use error::ConfigError;
use error::{read, value};

use crate::{
    decide::{
        blocks::VipRange,
        ranges::{Span, is_canonical},
    },
    store::Database,
};

/// A configuration that works once its values are the site's own; every key stands in it.
pub const EXAMPLE: &str = include_str!("../example.toml");

/// Where the configuration is unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/ake/api.toml";

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port of the API.
    pub listen: SocketAddr,
    /// Address and port of `/metrics`; none without it.
    pub metrics_listen: Option<SocketAddr>,
    /// Where the wanted state is kept: a file of SQLite, or, for several instances, MariaDB's
    /// `mysql://USER@HOST/DATABASE`. With `?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE` by TLS alone, with `?socket=FILE`
    /// by a socket.
    pub database: String,
    /// File that holds the password of MariaDB's user.
    pub database_password_file: Option<PathBuf>,
    /// Every write is a line of JSON here.
    pub audit_log: PathBuf,
    /// How often devices and address pairs are compared with what is wanted, besides after every change.
    #[serde(default = "five_minutes")]
    pub reconcile_seconds: u64,
    /// The certificate that clients see.
    pub tls: Tls,
    /// Who we are in OpenStack.
    pub keystone: Keystone,
    /// The networks that clusters may be on.
    #[serde(rename = "network")]
    pub networks: Vec<Network>,
    /// The balancers.
    pub device: Device,
}

/// A certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and those between it and its root.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// The service user, and how tokens of others are looked up.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keystone {
    /// Keystone's URL.
    pub auth_url: String,
    /// The service user; role `service` in its project.
    pub username: String,
    /// Its password; rather use `password_file`.
    pub password: Option<String>,
    /// File that holds its password.
    pub password_file: Option<PathBuf>,
    /// Domain of the user.
    #[serde(default = "default_domain")]
    pub user_domain: String,
    /// The user's project, which owns the VIP network.
    #[serde(default = "service_project")]
    pub project: String,
    /// Domain of the project.
    #[serde(default = "default_domain")]
    pub project_domain: String,
    /// Region of the catalog's endpoints.
    pub region: Option<String>,
    /// PEM file of authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// How long what Keystone said of a token is believed; a revoked one works for so long.
    #[serde(default = "one_minute")]
    pub token_cache_seconds: u64,
    /// How many tokens are remembered.
    #[serde(default = "ten_thousand")]
    pub token_cache_entries: usize,
}

impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystone")
            .field("auth_url", &self.auth_url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A network that clusters may be on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Id or name of the Neutron network.
    pub network: String,
    /// Where the clusters' pod ranges are cut from. Networks that reach each other's nodes on one segment must not share it.
    pub pod_pool: IpNetwork,
    /// Prefix length of a cluster's pod range.
    pub pod_prefix: u8,
    /// Where the pod ranges for IPv6 are cut from; none if clusters are not dual stack.
    pub pod_pool_v6: Option<IpNetwork>,
    /// Prefix length of a cluster's pod range for IPv6: 48 to 64, of which each node gets a /64.
    pub pod_prefix_v6: Option<u8>,
    /// Where VIPs of its clusters come from: one range of a family.
    #[serde(rename = "vip")]
    pub vips: Vec<Vip>,
}

/// A range of VIPs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Id or name of the Neutron network on which blocks are reserved. Without it and `subnet` the range is known to
    /// AKE alone.
    pub network: Option<String>,
    /// Id or name of its subnet.
    pub subnet: Option<String>,
    /// First address that AKE may use.
    pub first: IpAddr,
    /// Last address that AKE may use.
    pub last: IpAddr,
    /// Prefix length of a cluster's block.
    pub block_prefix: u8,
}

impl Vip {
    /// The range.
    #[must_use]
    pub fn range(&self) -> VipRange {
        VipRange { first: self.first, last: self.last, prefix: self.block_prefix }
    }
}

/// The drivers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// AKE's own balancer, `ake-xdp`.
    Xdp,
}

/// The balancers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What they are.
    pub driver: DriverKind,
    /// Their APIs, `https://host:port`; all get the same state.
    pub endpoints: Vec<String>,
    /// PEM file of the authority of their certificates.
    pub ca: PathBuf,
    /// PEM file of the certificate that we show them.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Where their health checks come from: what the nodes' security groups must admit.
    pub check_sources: Vec<IpNetwork>,
}

fn five_minutes() -> u64 {
    300
}

fn one_minute() -> u64 {
    60
}

fn ten_thousand() -> usize {
    10_000
}

fn default_domain() -> String {
    "Default".to_owned()
}

fn service_project() -> String {
    "service".to_owned()
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
        match (&self.keystone.password, &self.keystone.password_file) {
            (Some(password), _) => Ok(password.clone()),
            (None, Some(path)) => Ok(read("keystone.password_file", path)?.trim_end().to_owned()),
            (None, None) => {
                Err(value("keystone.password_file", "nothing", "the file of the service user's password"))
            }
        }
    }

    /// The database, with its password.
    pub fn database(&self) -> Result<Database, ConfigError> {
        let database = self.check_database()?;
        match &self.database_password_file {
            None => Ok(database),
            Some(path) => Ok(database.with_password(read("database_password_file", path)?.trim_end())),
        }
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = vec![
            ("tls.certificate", self.tls.certificate.as_path()),
            ("tls.key", &self.tls.key),
            ("device.ca", &self.device.ca),
            ("device.certificate", &self.device.certificate),
            ("device.key", &self.device.key),
        ];
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
        self.check_keystone()?;
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
        if self.device.endpoints.is_empty() {
            return Err(value("device.endpoints", "[]", "one URL at least"));
        }
        for endpoint in &self.device.endpoints {
            if !endpoint.starts_with("https://") {
                return Err(value("device.endpoints", endpoint, "https://host:port"));
            }
        }
        if self.device.check_sources.is_empty() {
            return Err(value(
                "device.check_sources",
                "[]",
                "the balancers' addresses on the nodes' network",
            ));
        }
        self.device.check_sources.iter().try_for_each(|range| canonical("device.check_sources", *range))
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

    fn check_keystone(&self) -> Result<(), ConfigError> {
        let keystone = &self.keystone;
        if !keystone.auth_url.starts_with("https://") && !keystone.auth_url.starts_with("http://") {
            return Err(value("keystone.auth_url", &keystone.auth_url, "a URL"));
        }
        if keystone.password.is_some() == keystone.password_file.is_some() {
            let has = if keystone.password.is_some() { "both" } else { "neither" };
            return Err(value("keystone.password, keystone.password_file", has, "one of the two"));
        }
        if keystone.token_cache_entries == 0 {
            return Err(value("keystone.token_cache_entries", 0, "1 or more"));
        }
        Ok(())
    }
}

impl Network {
    fn check(&self, key: &str) -> Result<(), ConfigError> {
        canonical(&format!("{key}.pod_pool"), self.pod_pool)?;
        let bits = if self.pod_pool.is_ipv4() { 32 } else { 128 };
        if !(self.pod_pool.prefix()..=bits).contains(&self.pod_prefix) {
            return Err(value(
                &format!("{key}.pod_prefix"),
                self.pod_prefix,
                format!("{} (pod_pool's) to {bits}", self.pod_pool.prefix()),
            ));
        }
        self.check_v6(key)?;
        if self.vips.is_empty() {
            return Err(value(&format!("{key}.vip"), "none", "one [[network.vip]] at least"));
        }
        for (i, vip) in self.vips.iter().enumerate() {
            vip.check(&format!("{key}.vip[{i}]"))?;
            if self.vips.iter().take(i).any(|other| other.first.is_ipv4() == vip.first.is_ipv4()) {
                return Err(value(&format!("{key}.vip[{i}].first"), vip.first, "one range of each family"));
            }
        }
        Ok(())
    }
}

impl Network {
    fn check_v6(&self, key: &str) -> Result<(), ConfigError> {
        let (pool_key, prefix_key) = (format!("{key}.pod_pool_v6"), format!("{key}.pod_prefix_v6"));
        let (pool, prefix) = match (self.pod_pool_v6, self.pod_prefix_v6) {
            (None, None) => return Ok(()),
            (Some(pool), Some(prefix)) => (pool, prefix),
            (pool, _) => {
                let has = if pool.is_some() { "the first" } else { "the second" };
                return Err(value(&format!("{pool_key}, {prefix_key}"), has, "both or neither"));
            }
        };
        canonical(&pool_key, pool)?;
        if pool.is_ipv4() || self.pod_pool.is_ipv6() {
            return Err(value(&pool_key, pool, "a range of IPv6, beside a pod_pool of IPv4"));
        }
        let lowest = pool.prefix().max(48);
        if !(lowest..=64).contains(&prefix) {
            return Err(value(&prefix_key, prefix, format!("{lowest} to 64, and not below pod_pool_v6's")));
        }
        Ok(())
    }
}

impl Vip {
    fn check(&self, key: &str) -> Result<(), ConfigError> {
        if self.network.is_some() != self.subnet.is_some() {
            return Err(value(
                &format!("{key}.network, {key}.subnet"),
                "one of the two",
                "both, or neither for a plain range",
            ));
        }
        let Some(span) = Span::between(self.first, self.last) else {
            return Err(value(
                &format!("{key}.last"),
                self.last,
                format!("an address behind first, {}", self.first),
            ));
        };
        let (lowest, highest) = if self.first.is_ipv4() { (24, 32) } else { (120, 128) };
        if !(lowest..=highest).contains(&self.block_prefix) {
            return Err(value(
                &format!("{key}.block_prefix"),
                self.block_prefix,
                format!("{lowest} to {highest}"),
            ));
        }
        if span.blocks(self.block_prefix) == 0 {
            return Err(value(
                &format!("{key}.last"),
                self.last,
                format!("room for one aligned /{} from {} on", self.block_prefix, self.first),
            ));
        }
        Ok(())
    }
}

fn canonical(key: &str, range: IpNetwork) -> Result<(), ConfigError> {
    if is_canonical(range) {
        return Ok(());
    }
    Err(value(key, range, format!("no bits behind the prefix: {}/{}", range.network(), range.prefix())))
}

#[cfg(test)]
mod tests;
