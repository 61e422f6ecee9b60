//! The balancers' part of the configuration.

use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{ConfigError, canonical, read, value};

/// The drivers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// AKE's own balancer, `ake-xdp`.
    Xdp,
    /// F5's BIG-IP, by iControl REST.
    Bigip,
}

/// The balancers.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What they are: xdp (ake-xdp) or bigip (F5's BIG-IP; docs/guides/bigip.md).
    pub driver: DriverKind,
    /// Their APIs, `https://host:port`. Each ake-xdp gets the same state; of BIG-IPs, name one, or both units of a pair.
    pub endpoints: Vec<String>,
    /// PEM file of the authority of their certificates.
    pub ca: PathBuf,
    /// PEM file of the certificate that an ake-xdp is shown.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// User that we log in to a BIG-IP as, in place of certificate and key.
    pub username: Option<String>,
    /// File that holds that user's password.
    pub password_file: Option<PathBuf>,
    /// Before a project's id in the name of the project's partition on a BIG-IP; `ake-` unless said otherwise.
    pub partition_prefix: Option<String>,
    /// A BIG-IP's traffic group that has the VIPs, by full path; `/Common/traffic-group-1` unless said otherwise.
    pub traffic_group: Option<String>,
    /// A BIG-IP's device group that is synced after every write, by full path; none for one unit, and for a group that
    /// syncs by itself.
    pub sync_group: Option<String>,
    /// Where their health checks come from: what the nodes' security groups must admit.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub check_sources: Vec<IpNetwork>,
}

/// What is told a BIG-IP alone.
pub struct Bigip<'a> {
    /// User that we log in as.
    pub username: &'a str,
    /// The user's password.
    pub password: String,
    /// Before a project's id.
    pub partition_prefix: &'a str,
    /// Traffic group of the VIPs.
    pub traffic_group: &'a str,
    /// Device group that is synced.
    pub sync_group: Option<&'a str>,
}

/// One that the driver needs.
fn needed<'a, T: ?Sized>(key: &str, given: Option<&'a T>, expected: &str) -> Result<&'a T, ConfigError> {
    given.ok_or_else(|| value(key, "nothing", expected))
}

impl Device {
    /// The certificate and key that an ake-xdp is shown.
    pub fn identity(&self) -> Result<(&Path, &Path), ConfigError> {
        let expected = "a PEM file, as driver = \"xdp\" shows one";
        Ok((
            needed("device.certificate", self.certificate.as_deref(), expected)?,
            needed("device.key", self.key.as_deref(), expected)?,
        ))
    }

    /// What a BIG-IP is told; its user's password is read.
    pub fn bigip(&self) -> Result<Bigip<'_>, ConfigError> {
        let (username, file) = self.login()?;
        let password = read("device.password_file", file)?.trim_end().to_owned();
        if password.is_empty() {
            return Err(value("device.password_file", file.display(), "a file that holds a password"));
        }
        Ok(Bigip {
            username,
            password,
            partition_prefix: self.partition_prefix.as_deref().unwrap_or("ake-"),
            traffic_group: self.traffic_group.as_deref().unwrap_or("/Common/traffic-group-1"),
            sync_group: self.sync_group.as_deref(),
        })
    }

    fn login(&self) -> Result<(&str, &Path), ConfigError> {
        let user = "the user that driver = \"bigip\" logs in as";
        let file = "the file of its user's password, as driver = \"bigip\" logs in";
        Ok((
            needed("device.username", self.username.as_deref(), user)?,
            needed("device.password_file", self.password_file.as_deref(), file)?,
        ))
    }

    /// The files that it names, by key.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [
            ("device.ca", Some(&self.ca)),
            ("device.certificate", self.certificate.as_ref()),
            ("device.key", self.key.as_ref()),
            ("device.password_file", self.password_file.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, path)| Some((key, path?.as_path())))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.endpoints.is_empty() {
            return Err(value("device.endpoints", "[]", "one URL at least"));
        }
        if let Some(endpoint) = self.endpoints.iter().find(|endpoint| !endpoint.starts_with("https://")) {
            return Err(value("device.endpoints", endpoint, "https://host:port"));
        }
        self.check_kind()?;
        if self.check_sources.is_empty() {
            let expected = "the balancers' addresses on the nodes' network";
            return Err(value("device.check_sources", "[]", expected));
        }
        self.check_sources.iter().try_for_each(|range| canonical("device.check_sources", *range))
    }

    /// Keys of the one driver, and none of the other's: who sets one expects it to count.
    fn check_kind(&self) -> Result<(), ConfigError> {
        let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let (foreign, expected) = match self.driver {
            DriverKind::Xdp => {
                self.identity()?;
                let foreign = vec![
                    ("device.username", self.username.clone()),
                    ("device.password_file", shown(&self.password_file)),
                    ("device.partition_prefix", self.partition_prefix.clone()),
                    ("device.traffic_group", self.traffic_group.clone()),
                    ("device.sync_group", self.sync_group.clone()),
                ];
                (foreign, "none: it is of driver = \"bigip\"")
            }
            DriverKind::Bigip => {
                self.login()?;
                if self.endpoints.len() > 2 {
                    let expected = "one BIG-IP, or both units of a pair";
                    return Err(value("device.endpoints", format!("{:?}", self.endpoints), expected));
                }
                let foreign =
                    vec![("device.certificate", shown(&self.certificate)), ("device.key", shown(&self.key))];
                (foreign, "none: driver = \"bigip\" shows no certificate, it logs in")
            }
        };
        match foreign.into_iter().find_map(|(key, set)| Some((key, set?))) {
            Some((key, set)) => Err(value(key, set, expected)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
