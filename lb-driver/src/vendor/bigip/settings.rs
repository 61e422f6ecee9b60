//! How a BIG-IP is reached, and what is the operator's to choose.

use std::time::Duration;

use reqwest::{Certificate, Client};

use super::{derive::Style, unit::Unit};
use crate::driver::DriverError;

/// How a BIG-IP is reached, and what is the operator's to choose.
#[derive(Clone)]
pub struct Settings {
    /// Management addresses, `https://host[:port]`: one, or both of a pair.
    pub urls: Vec<String>,
    /// User with the role Administrator, or Resource Administrator, on all partitions.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Certificates that the devices' own may be signed by, as PEM.
    pub ca: Vec<u8>,
    /// Before a project's id in the name of its partition; ends with a hyphen.
    pub partition_prefix: String,
    /// Which unit of a pair has the VIPs, by full path.
    pub traffic_group: String,
    /// The device group that a pair syncs; none where it syncs by itself.
    pub sync_group: Option<String>,
    /// Deadline of one request.
    pub timeout: Duration,
    /// How long an answer that says so is asked for again.
    pub patience: Duration,
}

/// The password is no part of it.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("urls", &self.urls)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

fn wrong(field: &'static str, problem: String) -> DriverError {
    DriverError::Settings { field, problem }
}

impl Settings {
    /// How objects are named.
    pub(super) fn style(&self) -> Result<Style, DriverError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let prefix = &self.partition_prefix;
        if !prefix.ends_with('-')
            || prefix.len() > 20
            || !prefix.starts_with(|c: char| c.is_ascii_alphabetic())
            || !prefix.chars().all(fits)
        {
            let expected = "expected a letter, then up to 18 of A-Z a-z 0-9 _ -, then a hyphen";
            return Err(wrong("partition_prefix", format!("{prefix:?}: {expected}")));
        }
        for (field, path) in
            [("traffic_group", Some(&self.traffic_group)), ("sync_group", self.sync_group.as_ref())]
        {
            if let Some(path) = path
                && !is_path(path)
            {
                return Err(wrong(field, format!("{path:?}: expected a full path, /Common/NAME")));
            }
        }
        Ok(Style { prefix: prefix.clone(), traffic_group: self.traffic_group.clone() })
    }

    /// The units, without a session.
    pub(super) fn units(&self) -> Result<Vec<Unit>, DriverError> {
        if !(1..=2).contains(&self.urls.len()) {
            let problem = format!("{} of them: expected one, or both of a pair", self.urls.len());
            return Err(wrong("endpoints", problem));
        }
        let client = self.client()?;
        let unit = |url: &String| {
            let parsed = reqwest::Url::parse(url).map_err(|e| wrong("endpoints", format!("{url:?}: {e}")))?;
            if parsed.scheme() != "https" || parsed.path() != "/" {
                return Err(wrong("endpoints", format!("{url:?}: expected https://host:port")));
            }
            Ok(Unit::new(url, client.clone(), &self.username, &self.password, self.patience))
        };
        self.urls.iter().map(unit).collect()
    }

    fn client(&self) -> Result<Client, DriverError> {
        let authorities = Certificate::from_pem_bundle(&self.ca)
            .map_err(|e| wrong("ca", format!("expected certificates as PEM: {e}")))?;
        if authorities.is_empty() {
            return Err(wrong("ca", "expected at least one certificate as PEM".to_owned()));
        }
        authorities
            .into_iter()
            .fold(Client::builder(), reqwest::ClientBuilder::add_root_certificate)
            .tls_built_in_root_certs(false)
            .use_rustls_tls()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(self.timeout)
            .build()
            .map_err(|e| wrong("ca", e.to_string()))
    }
}

/// `/folder/name`, without blanks.
fn is_path(path: &str) -> bool {
    let parts = path.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>());
    parts.is_some_and(|parts| parts.len() >= 2 && parts.iter().all(|part| !part.is_empty()))
        && !path.contains(char::is_whitespace)
}
