//! The API on the wire: routes, who may pass, and the trail of what was written.

mod audit;
mod gate;
mod handlers;
mod read;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, Uri},
    middleware,
    response::IntoResponse,
    routing::{get, post, put},
};
use serde_json::json;

pub use audit::Audit;

use crate::{auth::Authenticator, metrics::Metrics, refusal::Refusal, service::Service};

/// Largest body of a request: a batch for a cluster of some thousand nodes.
const LARGEST_BODY: usize = 8 * 1024 * 1024;
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
    let clusters = Router::new()
        .route("/clusters", get(handlers::list))
        .route(
            "/clusters/{cluster}",
            get(handlers::get).put(handlers::register).delete(handlers::delete_cluster),
        )
        .route("/clusters/{cluster}/deleting", post(handlers::mark_deleting))
        .route(
            "/clusters/{cluster}/addresses/{name}",
            put(handlers::put_address).delete(handlers::delete_address),
        )
        .route("/clusters/{cluster}/pools/{name}", put(handlers::put_pool).delete(handlers::delete_pool))
        .route(
            "/clusters/{cluster}/pools/{pool}/members/{name}",
            put(handlers::put_member).delete(handlers::delete_member),
        )
        .route(
            "/clusters/{cluster}/load-balancers/{name}",
            put(handlers::put_load_balancer).delete(handlers::delete_load_balancer),
        )
        .route(
            "/clusters/{cluster}/node-ports/{port}",
            put(handlers::put_node_port).delete(handlers::delete_node_port),
        )
        .route("/clusters/{cluster}/bundles/{role}", put(handlers::put_bundle))
        .route("/clusters/{cluster}/batch", post(handlers::batch))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), gate::authenticate));
    let claims = Router::new().route("/claims/{claim}", post(handlers::claim));
    Router::new()
        .nest("/v1", clusters.merge(claims))
        .route("/", get(versions))
        .route("/v1", get(versions))
        .route("/v1/", get(versions))
        .route("/healthz", get(health))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), gate::watch))
        .with_state(app)
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

async fn health(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    app.service.store.version().await?;
    Ok("ok\n")
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::not_found("path", uri.path())
}

async fn unknown_method(method: Method, uri: Uri) -> impl IntoResponse {
    let refusal = Refusal::new(
        crate::refusal::Kind::Invalid,
        format!("{method} {}: this path does not take this method", uri.path()),
    );
    let mut response = refusal.into_response();
    *response.status_mut() = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

#[cfg(test)]
mod tests;
