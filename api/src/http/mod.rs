//! The API on the wire: routes, who may pass, and the trail of what was written.

mod audit;
mod gate;
mod guard;
mod handlers;
mod limit;
mod openapi;
mod parts;
mod read;
mod routes;

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, Uri},
    middleware,
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};

pub use audit::Audit;
pub use limit::Limits;

use routes::Health;

use crate::{
    auth::Authenticator,
    metrics::Metrics,
    refusal::{Kind, Refusal},
    service::Service,
};

/// Largest body of a request: a batch for a cluster of some thousand nodes.
const LARGEST_BODY: usize = 16 * 1024 * 1024;
/// How long the database may take when metrics are read. Whoever reads them waits longer.
const MEASURING: Duration = Duration::from_secs(2);
/// How long an answer may take; what was begun goes on.
const PATIENCE: Duration = Duration::from_secs(28);

/// What handlers share.
pub struct App {
    /// Does the work.
    pub service: Arc<Service>,
    /// Knows callers.
    pub authenticator: Authenticator,
    /// Knows how often anybody may ask.
    pub limits: Limits,
    /// Keeps the trail.
    pub audit: Audit,
    /// Counts.
    pub metrics: Metrics,
}

/// Where a request came from, as the accept loop saw it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    let (guarded, open, _) = routes::routes();
    guarded
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), gate::authenticate))
        .merge(open.route_layer(middleware::from_fn_with_state(Arc::clone(&app), gate::count_stranger)))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), gate::watch))
        .with_state(app)
}

/// The description of the API: an OpenAPI 3.1 document.
#[must_use]
pub fn description_of_all() -> Value {
    routes::routes().2
}

/// What Prometheus reads; served apart from the API.
pub fn metrics_router(service: Arc<Service>) -> Router {
    let text = move || {
        let service = Arc::clone(&service);
        async move {
            // the rest is shown all the same: it is asked for when things go wrong
            match tokio::time::timeout(MEASURING, service.measure_quotas()).await {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => {
                    tracing::warn!(%refusal, "what projects have of their quotas cannot be measured");
                }
                Err(_) => tracing::warn!("what projects have of their quotas is not known in time"),
            }
            service.metrics.text().map_err(|e| Refusal::unavailable(e.to_string()))
        }
    };
    Router::new().route("/metrics", get(text))
}

/// The versions that there are, as OpenStack's services list them.
async fn versions(uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    // HTTP/2 has the host in the request's URI, HTTP/1.1 in a header
    let header = headers.get("host").and_then(|host| host.to_str().ok());
    let host = uri.authority().map(|authority| authority.as_str()).or(header).unwrap_or("localhost");
    Json(json!({"versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "version": "1.0",
        "min_version": "1.0",
        "links": [{"rel": "self", "href": format!("https://{host}/v1/")}],
    }]}))
}

async fn description() -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(description_of_all);
    Json(&DOCUMENT)
}

async fn health(State(app): State<Arc<App>>) -> Result<Json<Health>, Refusal> {
    match app.service.store.version().await {
        Ok(_) => Ok(Json(Health { status: "ok" })),
        Err(error) => {
            // no token was asked for: whoever may read the log learns more
            tracing::error!(%error, "not ready");
            Err(Refusal::unavailable("the database does not answer"))
        }
    }
}

async fn unknown_path(State(app): State<Arc<App>>, request: Request) -> Refusal {
    let unknown = || Refusal::not_found("path", request.uri().path());
    gate::stranger(&app, &request).err().unwrap_or_else(unknown)
}

async fn unknown_method(State(app): State<Arc<App>>, request: Request) -> Refusal {
    let unknown = || {
        let (method, path) = (request.method(), request.uri().path());
        Refusal::new(Kind::Method, format!("{method} {path}: this path does not take this method"))
    };
    gate::stranger(&app, &request).err().unwrap_or_else(unknown)
}

#[cfg(test)]
mod tests;
