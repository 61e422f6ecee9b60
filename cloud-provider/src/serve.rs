//! `/healthz`, `/livez`, `/readyz` and `/metrics` over HTTPS.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{flags::Flags, metrics};

/// Longest wait for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why it cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not to be had.
    #[error(
        "--bind-address and --secure-port = {address}: expected an address that can be listened on: {reason}"
    )]
    Listen {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The certificate is none.
    #[error("{flag} = {path:?}: expected a PEM file: {reason}")]
    File {
        /// Which one.
        flag: &'static str,
        /// Where.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Certificate and key cannot be used.
    #[error("certificate of the secure port: {0}")]
    Certificate(String),
}

/// What the paths tell.
#[derive(Debug, Clone, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
}

impl Health {
    /// From now on `/readyz` says so.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }
}

/// Listens; serves until the runtime ends.
pub async fn serve(flags: &Flags, health: Health) -> Result<(), ServeError> {
    if flags.secure_port == 0 {
        return Ok(());
    }
    let address = SocketAddr::new(flags.bind_address, flags.secure_port);
    let acceptor = TlsAcceptor::from(Arc::new(tls(flags)?));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| ServeError::Listen { address, reason: e.to_string() })?;
    let router = Router::new()
        .route("/healthz", get(async || alive("healthz")))
        .route("/livez", get(async || alive("livez")))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(health);
    tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                // Out of file descriptors, most likely.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
                    return;
                };
                let service = router.layer(axum::Extension(ConnectInfo(peer)));
                let service = TowerToHyperService::new(service);
                let connection = auto::Builder::new(TokioExecutor::new());
                if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
            });
        }
    });
    Ok(())
}

fn alive(kind: &str) -> &'static str {
    metrics::health_checked(kind, true);
    "ok"
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    let ready = health.ready.load(Ordering::Acquire);
    metrics::health_checked("readyz", ready);
    if ready {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the Lease or for the cloud")
    }
}

async fn show_metrics(
    axum::Extension(ConnectInfo(peer)): axum::Extension<ConnectInfo<SocketAddr>>,
) -> (StatusCode, String) {
    if peer.ip().to_canonical().is_loopback() {
        (StatusCode::OK, metrics::render())
    } else {
        (StatusCode::FORBIDDEN, format!("{peer}: expected a client on this machine\n"))
    }
}

fn tls(flags: &Flags) -> Result<rustls::ServerConfig, ServeError> {
    let bad = |e: rustls::Error| ServeError::Certificate(e.to_string());
    let (certificates, key) = match (&flags.tls_cert_file, &flags.tls_private_key_file) {
        (Some(certificate), Some(key)) => {
            let file = |flag, path: &std::path::Path, reason: String| ServeError::File {
                flag,
                path: path.display().to_string(),
                reason,
            };
            let certificates: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
            let certificates =
                certificates.map_err(|e| file("--tls-cert-file", certificate, e.to_string()))?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| file("--tls-private-key-file", key, e.to_string()))?;
            (certificates, key)
        }
        _ => {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
                .map_err(|e| ServeError::Certificate(e.to_string()))?;
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            (vec![made.cert.der().clone()], key)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(bad)
}
