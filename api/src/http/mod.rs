//! The API on the wire: routes, who may pass, and the trail of what was written.

mod audit;
mod gate;
mod guard;
mod handlers;
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
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, Uri},
    middleware,
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};

pub use audit::Audit;

use routes::Health;

use crate::{
    auth::Authenticator,
    metrics::Metrics,
    refusal::{Kind, Refusal},
    service::Service,
};

/// Largest body of a request: a batch for a cluster of some thousand nodes.
const LARGEST_BODY: usize = 16 * 1024 * 1024;
/// How long an answer may take; what was begun goes on.
const PATIENCE: Duration = Duration::from_secs(28);

/// What handlers share.
pub struct App {
    /// Does the work.
    pub service: Arc<Service>,
    /// Knows callers.
    pub authenticator: Authenticator,
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
        .merge(open)
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
pub fn metrics_router(metrics: Metrics) -> Router {
    let text = move || {
        let metrics = metrics.clone();
        async move { metrics.text().map_err(|e| Refusal::unavailable(e.to_string())) }
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

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::not_found("path", uri.path())
}

async fn unknown_method(method: Method, uri: Uri) -> Refusal {
    let message = format!("{method} {}: this path does not take this method", uri.path());
    Refusal::new(Kind::Method, message)
}

#[cfg(test)]
mod tests;
