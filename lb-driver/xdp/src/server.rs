//! The API over mutual TLS, and the same without writing on a local socket.

use std::{
    fs,
    future::{Future, ready},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use lb_driver::vendor::xdp::wire;
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Tls,
    engine::{Engine, PutError},
    sync::{self, Batch},
};

/// Path that answers whether packets may be sent here.
pub const ALIVE: &str = "/v1/alive";
/// A state of 10,000 Services is about 10 MB.
const LARGEST_BODY: usize = 64 << 20;
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 256;

/// Why certificates do not serve.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {file:?}: {problem}")]
pub struct TlsError {
    key: &'static str,
    file: String,
    problem: String,
}

/// Reads the certificates. Whoever shows none signed by `client_ca` gets no connection.
pub fn tls(settings: &Tls) -> Result<ServerConfig, TlsError> {
    let error =
        |key, file: &Path, problem: String| TlsError { key, file: file.display().to_string(), problem };
    let certificates = |key, file: &Path| {
        let read = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| error(key, file, format!("expected certificates as PEM: {e}")))?;
        if read.is_empty() {
            return Err(error(key, file, "expected at least one certificate as PEM".to_owned()));
        }
        Ok(read)
    };
    let own = certificates("tls.certificate", &settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|e| error("tls.key", &settings.key, format!("expected a private key as PEM: {e}")))?;
    let mut authorities = RootCertStore::empty();
    for authority in certificates("tls.client_ca", &settings.client_ca)? {
        authorities.add(authority).map_err(|e| error("tls.client_ca", &settings.client_ca, e.to_string()))?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone())
        .build()
        .map_err(|e| error("tls.client_ca", &settings.client_ca, e.to_string()))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| error("tls.certificate", &settings.certificate, e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own, key)
        .map_err(|e| error("tls.certificate", &settings.certificate, format!("with tls.key: {e}")))
}

/// The API; without `writing`, only what reads, and the flows, which are nobody's but the host's.
pub fn router(engine: Arc<Engine>, writing: bool) -> Router {
    let state = if writing { get(get_state).put(put_state) } else { get(get_state) };
    let flows = if writing { post(hear) } else { get(get_flows) };
    Router::new()
        .route(sync::FLOWS, flows)
        .route(wire::STATE, state)
        .route(wire::STATUS, get(get_status))
        .route(ALIVE, get(get_alive))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(engine)
}

async fn get_alive(State(engine): State<Arc<Engine>>) -> Response {
    match engine.alive() {
        true => StatusCode::NO_CONTENT.into_response(),
        false => problem(StatusCode::SERVICE_UNAVAILABLE, "no state is in force".to_owned()),
    }
}

async fn get_state(State(engine): State<Arc<Engine>>) -> Response {
    match engine.state() {
        Some(document) => Json(document).into_response(),
        None => problem(StatusCode::NOT_FOUND, "no state yet".to_owned()),
    }
}

async fn put_state(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    let document: wire::Document = match serde_json::from_slice(&body) {
        Ok(document) => document,
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the state: {error}")),
    };
    let put = tokio::task::spawn_blocking(move || engine.put(&document)).await;
    let error = match put {
        Ok(Ok(applied)) => return Json(applied).into_response(),
        Ok(Err(error)) => error,
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    tracing::warn!(%error, "state refused");
    let (status, held) = match &error {
        PutError::Stale { held, .. } | PutError::Differs(held) => (StatusCode::CONFLICT, Some(*held)),
        PutError::Invalid(_) | PutError::Full(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
        PutError::Store(_) | PutError::Maps(_) | PutError::Probe(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, None)
        }
    };
    (status, Json(wire::Problem { message: error.to_string(), held })).into_response()
}

/// What a request for the status has seen, and how long it waits for more.
#[derive(Deserialize)]
struct News {
    seen: Option<u64>,
    #[serde(default)]
    wait: u64,
}

/// What the other instance of a pair says of flows.
async fn hear(State(engine): State<Arc<Engine>>, body: Bytes) -> Response {
    let batch = match Batch::decode(&body) {
        Ok(batch) => batch,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match tokio::task::spawn_blocking(move || engine.hear(&batch)).await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn get_flows(State(engine): State<Arc<Engine>>) -> Response {
    match tokio::task::spawn_blocking(move || engine.flows()).await {
        Ok(Ok(flows)) => Json(flows).into_response(),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn get_status(State(engine): State<Arc<Engine>>, Query(News { seen, wait }): Query<News>) -> Response {
    if let Some(seen) = seen {
        engine.news(seen, Duration::from_secs(wait.min(wire::LONGEST_WAIT))).await;
    }
    match tokio::task::spawn_blocking(move || engine.status()).await {
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn problem(status: StatusCode, message: String) -> Response {
    (status, Json(wire::Problem { message, held: None })).into_response()
}

/// Serves over mutual TLS until `stop`, and until what was asked before is answered.
pub async fn serve_tls(listener: TcpListener, tls: ServerConfig, router: Router, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let handshake = |(stream, peer): (TcpStream, SocketAddr)| {
        let accepted = timeout(HANDSHAKE, acceptor.accept(stream));
        async move {
            match accepted.await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => tracing::info!(%peer, %error, "no TLS"),
                Err(_) => tracing::info!(%peer, "no TLS within {HANDSHAKE:?}"),
            }
            None
        }
    };
    serve(|| listener.accept(), handshake, router, stop).await;
}

/// Serves plain HTTP until `stop`, and until what was asked before is answered.
pub async fn serve_plain(listener: TcpListener, router: Router, stop: CancellationToken) {
    serve(|| listener.accept(), |(stream, _)| ready(Some(stream)), router, stop).await;
}

/// Serves on a local socket until `stop`, and until what was asked before is answered.
pub async fn serve_local(listener: UnixListener, router: Router, stop: CancellationToken) {
    serve(|| listener.accept(), |(stream, _)| ready(Some(stream)), router, stop).await;
}

/// Serves whom `accept` lets in and `handshake` makes a stream of.
async fn serve<S, A, H, T>(
    accept: impl Fn() -> A,
    handshake: impl Fn(S) -> H,
    router: Router,
    stop: CancellationToken,
) where
    A: Future<Output = io::Result<S>>,
    H: Future<Output = Option<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let open = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some(Ok(permit)) = stop.run_until_cancelled(room.clone().acquire_owned()).await {
        let Some(accepted) = stop.run_until_cancelled(accept()).await else { break };
        let Some(accepted) = accepted_or_wait(accepted).await else { continue };
        let (handshake, router) = (handshake(accepted), router.clone());
        let (watcher, stop) = (open.watcher(), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some(Some(stream)) = stop.run_until_cancelled(handshake).await {
                connection(stream, router, watcher).await;
            }
        });
    }
    open.shutdown().await;
}

/// Binds a local socket that only its owner may use, in place of one that a crash left.
pub fn bind_local(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accepted_or_wait<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Too many open files, most of the time: the next try would fail as well.
            tracing::warn!(%error, "accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    watcher: Watcher,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, "connection");
    }
}
