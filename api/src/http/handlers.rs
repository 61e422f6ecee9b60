//! One function per path and method.

use std::{future::Future, sync::Arc, time::Duration};

use ake_api_client::{
    Address, AddressRequest, Batch, Bundle, BundleRequest, Cluster, ClusterId, ClusterRequest, ClusterState,
    LoadBalancer, LoadBalancerRequest, Member, MemberRequest, NodePort, NodePortRequest, Pool, PoolRequest,
    Write,
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    App, PATIENCE, Peer,
    read::{Asked, Body, Named, if_match, if_none_match},
};
use crate::{
    decide::access::Caller,
    refusal::Refusal,
    service::{Guards, News, Written, answers},
};

/// Longest that a request may wait for news, in seconds: less than any client's or proxy's patience.
const LONGEST_WAIT: u64 = 25;

type Answer<T> = Result<Json<T>, Refusal>;
type Tagged<T> = Result<([(HeaderName, String); 1], Json<T>), Refusal>;
type Shared = State<Arc<App>>;
type Who = Extension<Arc<Caller>>;

/// Work goes on to its end even if whoever asked hangs up; who waits too long is told to ask again.
async fn to_the_end<T: Send + 'static>(
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

fn tagged((state, tag): (ClusterState, String)) -> ([(HeaderName, String); 1], Json<ClusterState>) {
    ([(header::ETAG, tag)], Json(state))
}

async fn write(
    app: Arc<App>,
    caller: Arc<Caller>,
    id: ClusterId,
    headers: &HeaderMap,
    write: Write,
) -> Result<Written, Refusal> {
    let guards = Guards { if_match: if_match(headers), lease_transitions: None };
    to_the_end(async move { app.service.write(&caller, id, &guards, &[write]).await }).await
}

async fn remove(
    app: Arc<App>,
    caller: Arc<Caller>,
    id: ClusterId,
    headers: &HeaderMap,
    deletion: Write,
) -> Result<StatusCode, Refusal> {
    write(app, caller, id, headers, deletion).await.map(|_| StatusCode::NO_CONTENT)
}

pub(super) async fn list(State(app): Shared, Extension(caller): Who) -> Answer<Vec<Cluster>> {
    app.service.list(&caller).await.map(Json)
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
    Ok(match app.service.news(&caller, id, &news).await? {
        (Some(state), tag) => tagged((state, tag)).into_response(),
        (None, tag) => (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response(),
    })
}

pub(super) async fn register(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    Body(request): Body<ClusterRequest>,
) -> Tagged<ClusterState> {
    to_the_end(async move { app.service.register(&caller, id, &request).await }).await.map(tagged)
}

pub(super) async fn delete_cluster(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
) -> Result<StatusCode, Refusal> {
    to_the_end(async move { app.service.delete(&caller, id).await }).await.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn mark_deleting(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
) -> Tagged<ClusterState> {
    to_the_end(async move { app.service.mark_deleting(&caller, id).await }).await.map(tagged)
}

pub(super) async fn put_address(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Named<(ClusterId, String)>,
    headers: HeaderMap,
    Body(request): Body<AddressRequest>,
) -> Answer<Address> {
    let put = Write::PutAddress { name: name.clone(), request };
    let Written { loaded, .. } = write(app, caller, id, &headers, put).await?;
    answers::address(&loaded, &name).map(Json)
}

pub(super) async fn delete_address(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Named<(ClusterId, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, &headers, Write::DeleteAddress { name }).await
}

pub(super) async fn put_pool(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Named<(ClusterId, String)>,
    headers: HeaderMap,
    Body(request): Body<PoolRequest>,
) -> Answer<Pool> {
    let put = Write::PutPool { name: name.clone(), request };
    let Written { loaded, view, .. } = write(app, caller, id, &headers, put).await?;
    answers::pool(&loaded, &view, &name).map(Json)
}

pub(super) async fn delete_pool(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Named<(ClusterId, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, &headers, Write::DeletePool { name }).await
}

pub(super) async fn put_member(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, pool, name)): Named<(ClusterId, String, String)>,
    headers: HeaderMap,
    Body(request): Body<MemberRequest>,
) -> Answer<Member> {
    let put = Write::PutMember { pool: pool.clone(), name: name.clone(), request };
    let Written { loaded, view, .. } = write(app, caller, id, &headers, put).await?;
    answers::member(&loaded, &view, &pool, &name).map(Json)
}

pub(super) async fn delete_member(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, pool, name)): Named<(ClusterId, String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, &headers, Write::DeleteMember { pool, name }).await
}

pub(super) async fn put_load_balancer(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Named<(ClusterId, String)>,
    headers: HeaderMap,
    Body(request): Body<LoadBalancerRequest>,
) -> Answer<LoadBalancer> {
    let put = Write::PutLoadBalancer { name: name.clone(), request };
    let Written { loaded, view, .. } = write(app, caller, id, &headers, put).await?;
    answers::load_balancer(&loaded, &view, &name).map(Json)
}

pub(super) async fn delete_load_balancer(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Named<(ClusterId, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, &headers, Write::DeleteLoadBalancer { name }).await
}

pub(super) async fn put_node_port(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, port)): Named<(ClusterId, String)>,
    headers: HeaderMap,
    Body(request): Body<NodePortRequest>,
) -> Answer<NodePort> {
    let put = Write::PutNodePort { port: port.clone(), request };
    let Written { loaded, .. } = write(app, caller, id, &headers, put).await?;
    Ok(Json(answers::node_port(&loaded, &port)))
}

/// Whose wish is taken back.
#[derive(Deserialize)]
pub(super) struct Asker {
    asker: Option<String>,
}

pub(super) async fn delete_node_port(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, port)): Named<(ClusterId, String)>,
    Asked(Asker { asker }): Asked<Asker>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let asker =
        asker.ok_or_else(|| Refusal::invalid("asker", "none", "expected ?asker=NAME, whose wish it is"))?;
    remove(app, caller, id, &headers, Write::DeleteNodePort { port, asker }).await
}

pub(super) async fn put_bundle(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, role)): Named<(ClusterId, String)>,
    Body(request): Body<BundleRequest>,
) -> Result<StatusCode, Refusal> {
    to_the_end(async move { app.service.put_bundle(&caller, id, &role, &request).await })
        .await
        .map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn batch(
    State(app): Shared,
    Extension(caller): Who,
    Named(id): Named<ClusterId>,
    headers: HeaderMap,
    Body(batch): Body<Batch>,
) -> Tagged<ClusterState> {
    let if_match = if_match(&headers);
    to_the_end(async move { app.service.batch(&caller, id, &batch, if_match).await }).await.map(tagged)
}

pub(super) async fn claim(
    State(app): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    Named(claim): Named<String>,
) -> Answer<Bundle> {
    to_the_end(async move { app.service.redeem(peer.ip(), &claim).await }).await.map(Json)
}
