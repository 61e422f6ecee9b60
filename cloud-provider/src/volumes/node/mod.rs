//! The CSI node service: finds, formats and mounts disks for kubelet.

mod disk;
mod identity;
mod mounts;
mod registration;
mod run;
mod service;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::proto::{
    csi::{identity_server::IdentityServer, node_server::NodeServer},
    registration::registration_server::RegistrationServer,
};

/// Where kubelet calls us.
pub const SOCKET: &str = "/var/lib/kubelet/plugins/cinder.csi.openstack.org/csi.sock";

/// Where kubelet learns of us. kubelet forgets the driver when this file goes or is made anew, so it belongs to
/// a socket unit and not to this program. kubelet's gRPC client makes the escaped path the HTTP/2 authority, which
/// h2 refuses as malformed unless there is an `@` in it.
pub const REGISTRATION_SOCKET: &str =
    "/var/lib/kubelet/plugins_registry/ake@cinder.csi.openstack.org-reg.sock";

/// Which node this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// UUID of its server.
    pub server_id: String,
    /// The availability zone that it is in. Without one, volumes have no topology.
    pub zone: Option<String>,
    /// Most volumes that it takes; unlimited if absent.
    pub max_volumes: Option<u16>,
}

/// The sockets that systemd holds for us.
#[derive(Debug)]
pub struct Sockets {
    /// At [`SOCKET`].
    pub csi: UnixListener,
    /// At [`REGISTRATION_SOCKET`].
    pub registration: UnixListener,
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket failed.
    #[error("serving CSI: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves both sockets until `stop`.
pub async fn serve(sockets: Sockets, node: NodeIdentity, stop: CancellationToken) -> Result<(), ServeError> {
    tracing::info!(server = node.server_id, zone = node.zone, "serving CSI");
    let csi = Server::builder()
        .add_service(IdentityServer::new(identity::Identity { has_zone: node.zone.is_some() }))
        .add_service(NodeServer::new(service::Node::new(node)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(sockets.csi), stop.clone().cancelled_owned());
    let registration = Server::builder()
        .add_service(RegistrationServer::new(registration::Registration))
        .serve_with_incoming_shutdown(UnixListenerStream::new(sockets.registration), stop.cancelled_owned());
    tokio::try_join!(csi, registration)?;
    Ok(())
}

#[cfg(test)]
mod tests;
