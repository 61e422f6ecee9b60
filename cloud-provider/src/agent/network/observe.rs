//! What this node's network is like now. Only reads.

use std::{io, path::Path};

use super::{
    cni,
    guard::{self, Guard},
};
use crate::agent::{
    config::NodeConfig,
    netlink::{self, Netlink, Route, Uplink},
};

/// What nodes of clusters with IPv6 need besides: an address that routers announce is lost by it, a fixed one is not.
const FORWARDS_V6: (&str, &str) = ("net/ipv6/conf/all/forwarding", "1");

/// Kernel settings that a node needs.
pub fn settings(config: &NodeConfig) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    SETTINGS.into_iter().chain(config.has_ipv6().then_some(FORWARDS_V6))
}

/// Kernel settings that direct server return and forwarding stand on, as the image sets them.
const SETTINGS: [(&str, &str); 5] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/ipv4/conf/all/send_redirects", "0"),
];

/// Why it cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not tell.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// nft did not tell.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// A file could not be read.
    #[error("read {path}: {source}")]
    File {
        /// Of the file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Everything that a plan looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The link with the default route.
    pub uplink: Option<Uplink>,
    /// Our routes.
    pub routes: Vec<Route>,
    /// The CNI configuration, if there is one.
    pub cni: Option<String>,
    /// The guard table that is in force, if it is as it was applied.
    pub guard: Option<String>,
    /// Kernel settings whose value is another one, with that value.
    pub settings: Vec<(&'static str, String)>,
}

/// Looks.
pub async fn observe(
    netlink: &Netlink,
    guard: &Guard,
    cni: &Path,
    config: &NodeConfig,
) -> Result<Observed, Error> {
    let mut differing = vec![];
    for (name, wanted) in settings(config) {
        let path = format!("/proc/sys/{name}");
        let found = std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
        if found.trim() != wanted {
            differing.push((name, found.trim().to_owned()));
        }
    }
    Ok(Observed {
        uplink: netlink.uplink(config.vip).await?,
        routes: netlink.routes().await?,
        cni: read(&cni.join(cni::FILE))?,
        guard: guard.in_force().await?,
        settings: differing,
    })
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.display().to_string(), source }),
    }
}
