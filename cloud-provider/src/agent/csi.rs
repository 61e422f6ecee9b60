//! `ake-node-agent csi`: the CSI node service, on sockets that systemd holds.

use std::{collections::BTreeMap, os::unix::net::UnixListener, path::PathBuf};

use listenfd::ListenFd;
use tokio_util::sync::CancellationToken;

use crate::volumes::node::{self, NodeIdentity, Sockets};

/// `FileDescriptorName=` of kubelet's calls.
const CALLS: &str = "csi";

/// `FileDescriptorName=` of the registration.
const REGISTRATION: &str = "registration";

/// Why the service cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not started by systemd's sockets.
    #[error(
        "no socket named {name} from systemd (have: {have}); start ake-node-agent-csi.service with its .socket units"
    )]
    Socket {
        /// What is missing.
        name: &'static str,
        /// What there is.
        have: String,
    },
    /// A socket cannot be used.
    #[error("socket {name}: {source}")]
    Unusable {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not known which server this is.
    #[error("server id: {path}: {source}")]
    Server {
        /// Where cloud-init keeps it.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Serving ended.
    #[error(transparent)]
    Serve(#[from] node::ServeError),
}

/// Where cloud-init keeps what it knows.
#[derive(Debug, Clone)]
pub struct Options {
    /// The id of the server.
    pub instance_id: PathBuf,
    /// What else was on the config drive.
    pub instance_data: PathBuf,
    /// How many volumes kubelet may place here.
    pub max_volumes: Option<u16>,
}

/// Serves until told to stop.
pub async fn run(options: &Options, stop: CancellationToken) -> Result<(), Error> {
    let server_id = std::fs::read_to_string(&options.instance_id)
        .map_err(|source| Error::Server { path: options.instance_id.display().to_string(), source })?;
    let zone = std::fs::read_to_string(&options.instance_data).ok().and_then(|text| zone(&text));
    let mut inherited = inherited();
    let mut take = |name: &'static str| {
        let have = inherited.keys().cloned().collect::<Vec<_>>().join(", ");
        let socket = inherited.remove(name).ok_or(Error::Socket { name, have })?;
        let unusable = |source| Error::Unusable { name, source };
        socket.set_nonblocking(true).map_err(unusable)?;
        tokio::net::UnixListener::from_std(socket).map_err(unusable)
    };
    let sockets = Sockets { csi: take(CALLS)?, registration: take(REGISTRATION)? };
    let node =
        NodeIdentity { server_id: server_id.trim().to_owned(), zone, max_volumes: options.max_volumes };
    tracing::info!(server = node.server_id, zone = node.zone.as_deref().unwrap_or("none"), "serving");
    Ok(node::serve(sockets, node, stop).await?)
}

/// The sockets that systemd handed over, by their names.
fn inherited() -> BTreeMap<String, UnixListener> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut sockets = ListenFd::from_env();
    let mut found = BTreeMap::new();
    for (number, name) in names.split(':').enumerate().take(sockets.len()) {
        if let Ok(Some(socket)) = sockets.take_unix_listener(number) {
            found.insert(name.to_owned(), socket);
        }
    }
    found
}

/// The availability zone of cloud-init's instance data.
fn zone(text: &str) -> Option<String> {
    let data: serde_json::Value = serde_json::from_str(text).ok()?;
    ["/v1/availability_zone", "/ds/meta_data/availability_zone"]
        .iter()
        .filter_map(|pointer| data.pointer(pointer)?.as_str())
        .find(|zone| !zone.is_empty())
        .map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_the_config_drives() {
        assert_eq!(zone(r#"{"v1":{"availability_zone":"nova"}}"#).as_deref(), Some("nova"));
        let deep = r#"{"v1":{"availability_zone":null},"ds":{"meta_data":{"availability_zone":"b"}}}"#;
        assert_eq!(zone(deep).as_deref(), Some("b"));
        assert_eq!(zone("{}"), None);
    }

    #[tokio::test]
    async fn without_systemd_it_is_said_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let id = folder.path().join("instance-id");
        std::fs::write(&id, "0f").unwrap();
        let options =
            Options { instance_id: id, instance_data: folder.path().join("none"), max_volumes: None };
        let error = run(&options, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.contains("csi") && error.contains(".socket"), "{error}");
    }
}
