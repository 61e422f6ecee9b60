//! One function per path and method: those of whole clusters.

use std::{future::Future, sync::Arc, time::Duration};

use ake_api_client::{
    Batch, Bundle, BundleRequest, Cluster, ClusterId, ClusterRequest, ClusterState, KubernetesRequest,
    ProjectAddress, Quotas,
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    App, PATIENCE, Peer,
    guard::{Guarded, if_none_match},
    read::{Asked, Body, Named},
};
use crate::{decide::access::Caller, refusal::Refusal, service::News};

/// Longest that a request may wait for news, in seconds: less than any client's or proxy's patience.
pub(super) const LONGEST_WAIT: u64 = 25;

/// An answer with the ETag of the cluster's whole state.
pub(super) type Tagged<T> = Result<([(HeaderName, String); 1], Json<T>), Refusal>;
pub(super) type Shared = State<Arc<App>>;
pub(super) type Who = Extension<Arc<Caller>>;

/// Work goes on to its end even if whoever asked hangs up; who waits too long is told to ask again.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, tokio::spawn(work)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failed)) => Err(Refusal::unavailable(format!("ake-api failed inside: {failed}"))),
        Err(_) => Err(Refusal::unavailable(format!(
            "not done within {} s; the work goes on, ask again",
            PATIENCE.as_secs()
        ))),
    }
}

pub(super) fn tagged<T>((answer, tag): (T, String)) -> ([(HeaderName, String); 1], Json<T>) {
    ([(header::ETAG, tag)], Json(answer))
}

/// An answer to a read; none stands for what the asker has seen already.
pub(super) fn seen_or<T: Serialize>((answer, tag): (Option<T>, String)) -> Response {
    match answer {
        Some(answer) => tagged((answer, tag)).into_response(),
        None => (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response(),
    }
}

pub(super) async fn list(State(app): Shared, Extension(caller): Who) -> Result<Json<Vec<Cluster>>, Refusal> {
    app.service.list(&caller).await.map(Json)
}

pub(super) async fn addresses(
    State(app): Shared,
    Extension(caller): Who,
) -> Result<Json<Vec<ProjectAddress>>, Refusal> {
    app.service.addresses(&caller).await.map(Json)
}

pub(super) async fn release_address(
    State(app): Shared,
    Extension(caller): Who,
    Named(address): Named<String>,
) -> Result<StatusCode, Refusal> {
    let address =
        address.parse().map_err(|_| Refusal::invalid("address", &address, "expected an IP address"))?;
    to_the_end(async move { app.service.release_address(&caller, address).await })
        .await
        .map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn quota(State(app): Shared, Extension(caller): Who) -> Result<Json<Quotas>, Refusal> {
    app.service.quota(&caller).await.map(Json)
}

/// How long to wait for news.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<u64>,
}

pub(super) async fn get(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Asked(Wait { wait }): Asked<Wait>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let wait = wait.unwrap_or_default();
    if wait > LONGEST_WAIT {
        let expected = format!("expected at most {LONGEST_WAIT} seconds");
        return Err(Refusal::invalid("wait", wait, expected));
    }
    let news = News { seen: if_none_match(&headers), wait: Duration::from_secs(wait) };
    app.service.news(&caller, id, &news).await.map(seen_or)
}

pub(super) async fn register(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Guarded(guards): Guarded,
    Body(request): Body<ClusterRequest>,
) -> Tagged<ClusterState> {
    to_the_end(async move { app.service.register(&caller, id, &guards, &request).await }).await.map(tagged)
}

pub(super) async fn delete_cluster(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Guarded(guards): Guarded,
) -> Result<StatusCode, Refusal> {
    to_the_end(async move { app.service.delete(&caller, id, &guards).await })
        .await
        .map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn mark_deleting(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Guarded(guards): Guarded,
) -> Tagged<ClusterState> {
    to_the_end(async move { app.service.mark_deleting(&caller, id, &guards).await }).await.map(tagged)
}

pub(super) async fn put_bundle(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, role)): Named<(ClusterId, String)>,
    Guarded(guards): Guarded,
    Body(request): Body<BundleRequest>,
) -> Result<StatusCode, Refusal> {
    to_the_end(async move { app.service.put_bundle(&caller, id, &guards, &role, &request).await })
        .await
        .map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn put_kubernetes(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Guarded(guards): Guarded,
    Body(request): Body<KubernetesRequest>,
) -> Tagged<ClusterState> {
    to_the_end(async move { app.service.put_kubernetes(&caller, id, &guards, &request).await })
        .await
        .map(tagged)
}

pub(super) async fn batch(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Guarded(guards): Guarded,
    Body(batch): Body<Batch>,
) -> Tagged<ClusterState> {
    to_the_end(async move { app.service.batch(&caller, id, &guards, &batch).await }).await.map(tagged)
}

pub(super) async fn claim(
    State(app): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    Named(claim): Named<String>,
) -> Result<Json<Bundle>, Refusal> {
    to_the_end(async move { app.service.redeem(peer.ip(), &claim).await }).await.map(Json)
}
