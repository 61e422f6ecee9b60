//! The stand-in's port: TLS with a certificate of its own.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::device::{Device, Reply, Request};

/// A device that listens; it ends when this is dropped.
pub struct Served {
    /// `https://127.0.0.1:port`.
    pub url: String,
    /// The authority of its certificate, as PEM.
    pub ca: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for 127.0.0.1 and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, which is its own authority.
    pub certificate: String,
    key: String,
}

impl Identity {
    /// A new one, for this host.
    pub fn fresh(host: &str) -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(vec![host.to_owned(), "localhost".to_owned()])?;
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "stand-in of a BIG-IP");
        Ok(Self { certificate: parameters.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// The one that a folder keeps, made where it has none.
    pub fn kept(folder: &Path, host: &str) -> anyhow::Result<Self> {
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        if !key.exists() {
            let fresh = Self::fresh(host)?;
            std::fs::write(&certificate, &fresh.certificate)?;
            std::fs::write(&key, &fresh.key)?;
        }
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("{}: expected PEM", path.display()))
        };
        Ok(Self { certificate: read(&certificate)?, key: read(&key)? })
    }

    fn tls(&self) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(self.key.as_bytes())?,
            )?)
    }
}

impl Served {
    /// Lets a device listen, with a certificate of its own; port 0 stands for any that is free.
    pub async fn start(device: Device, listen: SocketAddr) -> anyhow::Result<Self> {
        let identity = Identity::fresh(&listen.ip().to_string())?;
        Self::start_as(device, listen, &identity).await
    }

    /// The same with this certificate.
    pub async fn start_as(device: Device, listen: SocketAddr, identity: &Identity) -> anyhow::Result<Self> {
        let config = identity.tls()?;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), device));
        Ok(Self { url: format!("https://{address}"), ca: identity.certificate.clone(), task })
    }

    /// Waits for as long as it listens.
    pub async fn wait(mut self) {
        // it ends with the process
        let _ = (&mut self.task).await;
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, device: Device) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // answers are small and come one by one
        let _ = stream.set_nodelay(true);
        let (acceptor, device) = (acceptor.clone(), device.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(device.clone(), request));
            // a connection that ends is its client's affair
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ends without an answer")
    }
}

impl std::error::Error for Gone {}

async fn answer(device: Device, request: hyper::Request<Incoming>) -> Result<Response<Full<Bytes>>, Gone> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Gone)?.to_bytes().to_vec();
    let request = Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    let (status, text) = match device.answer(&request) {
        Reply::Answer(status, text) => (status, text),
        Reply::Late(delay, status, text) => {
            tokio::time::sleep(delay).await;
            (status, text)
        }
        Reply::Lost => return Err(Gone),
    };
    let kind = if text.starts_with('<') { "text/html" } else { "application/json; charset=UTF-8" };
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(Full::new(Bytes::from(text)))
        .map_err(|_| Gone)
}
