//! Does one step.

use std::path::Path;

use super::{
    cni,
    guard::{self, Guard},
    observe,
    plan::Step,
};
use crate::agent::{
    files::{self, File},
    netlink::{self, Netlink},
};

/// Why a look came to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be seen what is.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// A route could not be changed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The guard rules could not be put in force.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// The CNI configuration could not be written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A kernel setting could not be set.
    #[error("set {name}: {source}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Does it.
pub async fn apply(step: &Step, netlink: &Netlink, guard: &mut Guard, cni: &Path) -> Result<(), Error> {
    match step {
        Step::Set(name, value) => std::fs::write(format!("/proc/sys/{name}"), value)
            .map_err(|source| Error::Setting { name, source })?,
        Step::Guard(table) => guard.apply(table).await?,
        Step::Route(route) => netlink.put_route(route).await?,
        Step::RemoveRoute(route) => netlink.remove_route(route).await?,
        Step::Cni(text) => files::write(cni, &File::public(cni::FILE, text))?,
    }
    Ok(())
}
