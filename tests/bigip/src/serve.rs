//! The stand-in's port: TLS with a certificate of its own.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
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

impl Served {
    /// Lets a device listen; port 0 stands for any that is free.
    pub async fn start(device: Device, listen: SocketAddr) -> anyhow::Result<Self> {
        let host = listen.ip().to_string();
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(vec![host, "localhost".to_owned()])?;
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "stand-in of a BIG-IP");
        let certificate = parameters.self_signed(&key)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), device));
        Ok(Self { url: format!("https://{address}"), ca: certificate.pem(), task })
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
