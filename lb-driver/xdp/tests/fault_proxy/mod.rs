//! Stands between a driver and the real program, and lets happen on the way what [`Fault`] names. It imitates
//! nothing of the balancer: what it passes on is the program's own, and what it says itself is a refusal or a 503 as
//! any front may say it; the conformance suite without a fault holds it to that.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use lb_driver::conformance::Fault;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A proxy at work; it ends with its runtime.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    writes: u64,
    /// With the number of writes at its injection.
    fault: Option<(Fault, u64)>,
    /// Of the connections that are open.
    open: CancellationToken,
}

/// What becomes of a request.
enum Way {
    Through,
    Cut,
    ThroughAndCut,
    Answer(StatusCode),
    OtherForm,
}

impl Proxy {
    /// One that listens on an address of this thread's namespace, and asks `upstream`.
    pub(crate) async fn start(upstream: String, client: reqwest::Client, tls: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { upstream, client, inner: Mutex::default() });
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&shared)));
        Self { address, shared }
    }

    pub(crate) fn inject(&self, fault: Option<Fault>) {
        let mut inner = self.shared.lock();
        inner.fault = fault.map(|fault| (fault, inner.writes));
    }

    /// Ends the connections that are open.
    pub(crate) async fn disconnect(&self) {
        std::mem::take(&mut self.shared.lock().open).cancel();
        // their ends take notice
        tokio::task::yield_now().await;
    }

    pub(crate) fn writes(&self) -> u64 {
        self.shared.lock().writes
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        let open = shared.lock().open.clone();
        tokio::spawn(open.run_until_cancelled_owned(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let serve = hyper::service::service_fn(move |request| Arc::clone(&shared).serve(request));
            let _ =
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), serve).await;
        }));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// What becomes of the next request.
    fn way(&self, method: &Method) -> Way {
        let mut inner = self.lock();
        let is_write = *method != Method::GET;
        let number = inner.fault.map_or(0, |(_, since)| inner.writes - since) as usize;
        inner.writes += u64::from(is_write);
        match inner.fault.map(|(fault, _)| fault) {
            Some(Fault::Stops { after }) if number >= after => Way::Cut,
            Some(Fault::OtherForm) if !is_write => Way::OtherForm,
            Some(Fault::Refused { write }) if is_write && number == write => {
                Way::Answer(StatusCode::UNPROCESSABLE_ENTITY)
            }
            Some(Fault::Busy { write }) if is_write && number == write => {
                Way::Answer(StatusCode::SERVICE_UNAVAILABLE)
            }
            Some(Fault::AnswerLost { write }) if is_write && number == write => Way::ThroughAndCut,
            _ => Way::Through,
        }
    }

    async fn serve<B>(self: Arc<Self>, request: Request<B>) -> io::Result<Response<Body>>
    where
        B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let way = self.way(request.method());
        let cut = || io::Error::other("cut");
        match way {
            Way::Cut => return Err(cut()),
            Way::Answer(status) => {
                let problem = json!({"message": "the front says no"}).to_string();
                return Ok(Response::builder()
                    .status(status)
                    .header("Retry-After", "1")
                    .body(problem.into())
                    .unwrap());
            }
            _ => {}
        }
        let (head, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        let url = format!("{}{}", self.upstream, head.uri);
        let answer = self.client.request(head.method, url).headers(head.headers).body(body).send().await;
        let answer = answer.map_err(|_| cut())?;
        let status = answer.status();
        let mut body = answer.bytes().await.map_err(|_| cut())?;
        match way {
            Way::ThroughAndCut => return Err(cut()),
            Way::OtherForm if status.is_success() => body = other_form(&body),
            _ => {}
        }
        Ok(Response::builder().status(status).body(body.into()).unwrap())
    }
}

/// The same in another order, with other letters, and with defaults in full.
fn other_form(body: &Bytes) -> Bytes {
    let mut document: Value = serde_json::from_slice(body).unwrap();
    turn(&mut document);
    for pool in items(&mut document, "pools") {
        default(pool, "checks", json!([]));
        for member in items(pool, "members") {
            if member.get("weight").is_some() {
                default(member, "draining", json!(false));
                default(member, "mac", json!(null));
            }
            if let Some(mac) = member["mac"].as_str().map(str::to_uppercase) {
                member["mac"] = json!(mac);
            }
            if let Some(address) = member["address"].as_str().filter(|text| text.contains("::")) {
                let address: std::net::Ipv6Addr = address.parse().unwrap();
                let long = address.segments().map(|part| format!("{part:04X}")).join(":");
                member["address"] = json!(long);
            }
        }
    }
    for balancer in items(&mut document, "load_balancers") {
        if balancer.get("affinity").is_some() {
            default(balancer, "source_ranges", json!([]));
        }
    }
    document.to_string().into()
}

fn items<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

fn default(value: &mut Value, key: &str, filled: Value) {
    let map = value.as_object_mut().unwrap();
    map.entry(key.to_owned()).or_insert(filled);
}

/// Every list the other way round.
fn turn(value: &mut Value) {
    match value {
        Value::Array(all) => {
            all.reverse();
            all.iter_mut().for_each(turn);
        }
        Value::Object(all) => all.values_mut().for_each(turn),
        _ => {}
    }
}
