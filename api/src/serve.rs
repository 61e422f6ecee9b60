//! Runs the service: listens, accepts, and ends in order.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use lb_driver::driver::Driver;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service as _, ServiceExt};

use crate::{
    auth::Authenticator,
    cloud::Cloud,
    config::{Config, Tls},
    device::{Devices, Election, Leadership, Orphans, Reconciler},
    feed::Feed,
    http::{self, App, Audit, Limits, Peer},
    metrics::Metrics,
    reload::{self, Reload},
    service::{Drift, Others, Service},
    store::Store,
};

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may wait for the head of its next request.
const NEXT_REQUEST: Duration = Duration::from_secs(75);
/// How long requests at work may take when the service ends.
const FAREWELL: Duration = Duration::from_secs(15);

/// What the operator tells a running service.
pub struct Signals {
    /// End, in order.
    pub stop: CancellationToken,
    /// Read certificates and open the audit log anew.
    pub reload: Arc<Notify>,
}

/// Runs until it is told to stop.
pub async fn serve(config: Config, signals: Signals) -> anyhow::Result<()> {
    let Signals { stop, reload } = signals;
    let config = Arc::new(config);
    let metrics = Metrics::new()?;
    let database = config.database()?;
    let store = Store::open(&database).await.with_context(|| format!("database = {database}"))?;
    let store = store.with_quotas(config.quotas());
    let audit = Audit::open(&config.audit_log)
        .with_context(|| format!("audit_log = {}", config.audit_log.display()))?;
    let tls = Arc::new(ArcSwap::from_pointee(tls(&config.tls)?));
    let renewed = reload::renewed(&config)?;
    let drivers: BTreeMap<String, Arc<dyn Driver>> =
        renewed.iter().map(|(url, driver)| (url.clone(), Arc::clone(driver) as Arc<dyn Driver>)).collect();
    let cloud = Arc::new(Cloud::new(&config)?);
    let devices = Devices::default();
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listen = {}", config.listen))?;
    let metrics_listener = match config.metrics_listen {
        Some(address) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("metrics_listen = {address}"))?)
        }
        None => None,
    };

    let tasks = TaskTracker::new();
    let (leadership, post) = if store.is_shared() {
        let me = format!("{} {}", config.listen, uuid::Uuid::new_v4());
        (Leadership::beside_others(), Some(me))
    } else {
        (Leadership::default(), None)
    };
    let reconciler = Reconciler {
        store: store.clone(),
        drivers,
        devices: devices.clone(),
        period: config.period(),
        metrics: metrics.clone(),
        leadership: leadership.clone(),
        orphans: Orphans::new(config.period(), config.orphan_budget),
    };
    if let Some(me) = post.clone() {
        let election = Election {
            store: store.clone(),
            me,
            leadership: leadership.clone(),
            devices: devices.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(to_the_last("the election of the writer", election.run(stop.clone()), stop.clone()));
    }
    tasks.spawn(to_the_last("the balancers' task", reconciler.run(stop.clone()), stop.clone()));
    let service = Arc::new(Service::new(
        Arc::clone(&config),
        store.clone(),
        Arc::clone(&cloud),
        devices.clone(),
        metrics.clone(),
    ));
    let drift = Drift { service: Arc::clone(&service), period: config.period(), leadership };
    tasks.spawn(to_the_last("the comparison with Neutron", drift.run(stop.clone()), stop.clone()));
    let others = Others { service: Arc::clone(&service) };
    tasks.spawn(others.run(stop.clone()));
    if let Some(listener) = metrics_listener {
        let (router, stop) = (http::metrics_router(Arc::clone(&service)), stop.clone());
        tasks.spawn(async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
            if let Err(error) = served.await {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
    }
    let keystone = &config.keystone;
    let authenticator = Authenticator::new(
        cloud,
        Duration::from_secs(keystone.token_cache_seconds),
        keystone.token_cache_entries,
    );
    let feed = devices.feed().clone();
    let limits = Limits::new(&config.limits);
    let app = Arc::new(App { service, authenticator, limits, audit, metrics });
    let reload = Reload {
        config: Arc::clone(&config),
        tls: Arc::clone(&tls),
        drivers: renewed,
        app: Arc::clone(&app),
        asked: reload,
    };
    tasks.spawn(to_the_last("the look at certificates", reload.run(stop.clone()), stop.clone()));
    let router = http::router(app);
    tracing::info!(listen = %config.listen, version = env!("CARGO_PKG_VERSION"), "ake-api is here");
    accept(listener, &tls, router, feed, stop.clone()).await;
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("some work did not end in time");
    }
    if let Some(me) = post {
        Election::leave(&store, &me).await;
    }
    store.close().await;
    tracing::info!("ake-api has ended");
    Ok(())
}

/// Runs a task that must last as long as the service: without it the service would answer and do nothing.
async fn to_the_last(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
    stop: CancellationToken,
) {
    let ended = tokio::spawn(task).await;
    if !stop.is_cancelled() {
        tracing::error!(
            task = name,
            error = ended.err().map(|e| e.to_string()),
            "ended too early; the service ends"
        );
        stop.cancel();
    }
}

/// Reads the certificate and its key.
pub fn tls(files: &Tls) -> anyhow::Result<ServerConfig> {
    let wrong = |key: &str, path: &std::path::Path, expected: &str| {
        format!("{key} = {}: expected {expected}", path.display())
    };
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| wrong("tls.certificate", &files.certificate, "PEM certificates"))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        wrong("tls.certificate", &files.certificate, "one certificate at least")
    );
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| wrong("tls.key", &files.key, "a private key as PEM"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| wrong("tls.key", &files.key, "the key of tls.certificate"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes connections until `stop`, then lets those at work end.
async fn accept(
    listener: TcpListener,
    tls: &ArcSwap<ServerConfig>,
    router: Router,
    feed: Feed,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // a connection that stands keeps the certificate that it began with
        let acceptor = TlsAcceptor::from(tls.load_full());
        tokio::spawn(connection(stream, peer, acceptor, router.clone(), graceful.watcher()));
    }
    drop(listener);
    // those who wait for news would wait on
    feed.end();
    if tokio::time::timeout(FAREWELL, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no TLS");
            return;
        }
        Err(_) => return,
    };
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let mut router = router.clone();
        async move {
            let request: Request = request.map(axum::body::Body::new);
            let ready: Result<_, Infallible> = <Router as ServiceExt<Request>>::ready(&mut router).await;
            match ready {
                Ok(router) => router.call(request).await,
                Err(never) => match never {},
            }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(NEXT_REQUEST);
    let serving =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    if let Err(error) = watcher.watch(serving).await {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}
