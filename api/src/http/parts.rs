//! One function per path and method: those of what a cluster owns.

use std::sync::Arc;

use ake_api_client::{
    Address, AddressRequest, ClusterId, LoadBalancer, LoadBalancerRequest, Member, MemberRequest, NodePort,
    NodePortRequest, Pool, PoolRequest, Write,
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{
    App,
    guard::{Guarded, if_none_match},
    handlers::{Shared, Tagged, Who, seen_or, tagged, to_the_end},
    read::{Asked, Body, Named},
};
use crate::{
    decide::access::Caller,
    device::View,
    refusal::Refusal,
    service::{Guards, answers},
    store::Loaded,
};

/// One and two names behind the cluster's id.
type Name = Named<(ClusterId, String)>;
type TwoNames = Named<(ClusterId, String, String)>;

async fn read<T: Serialize>(
    app: &App,
    caller: &Caller,
    id: ClusterId,
    headers: &HeaderMap,
    show: impl FnOnce(&Loaded, &View) -> Result<T, Refusal>,
) -> Result<Response, Refusal> {
    let seen = if_none_match(headers);
    app.service.part(caller, id, seen.as_deref(), show).await.map(seen_or)
}

async fn write<T>(
    app: Arc<App>,
    caller: Arc<Caller>,
    id: ClusterId,
    guards: Guards,
    write: Write,
    show: impl FnOnce(&Loaded, &View) -> Result<T, Refusal>,
) -> Tagged<T> {
    let work = async move { app.service.write(&caller, id, &guards, &[write]).await };
    let written = to_the_end(work).await?;
    Ok(tagged((show(&written.loaded, &written.view)?, written.tag)))
}

async fn remove(
    app: Arc<App>,
    caller: Arc<Caller>,
    id: ClusterId,
    guards: Guards,
    deletion: Write,
) -> Result<StatusCode, Refusal> {
    write(app, caller, id, guards, deletion, |_, _| Ok(())).await.map(|_| StatusCode::NO_CONTENT)
}

pub(super) async fn get_address(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    read(&app, &caller, id, &headers, |loaded, _| answers::address(loaded, &name)).await
}

pub(super) async fn put_address(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    Guarded(guards): Guarded,
    Body(request): Body<AddressRequest>,
) -> Tagged<Address> {
    let put = Write::PutAddress { name: name.clone(), request };
    write(app, caller, id, guards, put, |loaded, _| answers::address(loaded, &name)).await
}

pub(super) async fn delete_address(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    Guarded(guards): Guarded,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, guards, Write::DeleteAddress { name }).await
}

pub(super) async fn get_pool(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    read(&app, &caller, id, &headers, |loaded, view| answers::pool(loaded, view, &name)).await
}

pub(super) async fn put_pool(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    Guarded(guards): Guarded,
    Body(request): Body<PoolRequest>,
) -> Tagged<Pool> {
    let put = Write::PutPool { name: name.clone(), request };
    write(app, caller, id, guards, put, |loaded, view| answers::pool(loaded, view, &name)).await
}

pub(super) async fn delete_pool(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    Guarded(guards): Guarded,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, guards, Write::DeletePool { name }).await
}

pub(super) async fn get_member(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, pool, name)): TwoNames,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    read(&app, &caller, id, &headers, |loaded, view| answers::member(loaded, view, &pool, &name)).await
}

pub(super) async fn put_member(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, pool, name)): TwoNames,
    Guarded(guards): Guarded,
    Body(request): Body<MemberRequest>,
) -> Tagged<Member> {
    let put = Write::PutMember { pool: pool.clone(), name: name.clone(), request };
    write(app, caller, id, guards, put, |loaded, view| answers::member(loaded, view, &pool, &name)).await
}

pub(super) async fn delete_member(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, pool, name)): TwoNames,
    Guarded(guards): Guarded,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, guards, Write::DeleteMember { pool, name }).await
}

pub(super) async fn get_load_balancer(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    read(&app, &caller, id, &headers, |loaded, view| answers::load_balancer(loaded, view, &name)).await
}

pub(super) async fn put_load_balancer(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    Guarded(guards): Guarded,
    Body(request): Body<LoadBalancerRequest>,
) -> Tagged<LoadBalancer> {
    let put = Write::PutLoadBalancer { name: name.clone(), request };
    write(app, caller, id, guards, put, |loaded, view| answers::load_balancer(loaded, view, &name)).await
}

pub(super) async fn delete_load_balancer(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, name)): Name,
    Guarded(guards): Guarded,
) -> Result<StatusCode, Refusal> {
    remove(app, caller, id, guards, Write::DeleteLoadBalancer { name }).await
}

pub(super) async fn get_node_port(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, port)): Name,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let show = |loaded: &Loaded, _: &View| {
        if loaded.wanted.node_ports.contains_key(&port) {
            Ok(answers::node_port(loaded, &port))
        } else {
            Err(Refusal::not_found("node port", &port))
        }
    };
    read(&app, &caller, id, &headers, show).await
}

pub(super) async fn put_node_port(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, port)): Name,
    Guarded(guards): Guarded,
    Body(request): Body<NodePortRequest>,
) -> Tagged<NodePort> {
    let put = Write::PutNodePort { port: port.clone(), request };
    write(app, caller, id, guards, put, |loaded, _| Ok(answers::node_port(loaded, &port))).await
}

/// Whose wish is taken back.
#[derive(Deserialize)]
pub(super) struct Asker {
    asker: Option<String>,
}

pub(super) async fn delete_node_port(
    State(app): Shared,
    Extension(caller): Who,
    Named((id, port)): Name,
    Asked(Asker { asker }): Asked<Asker>,
    Guarded(guards): Guarded,
) -> Result<StatusCode, Refusal> {
    let asker =
        asker.ok_or_else(|| Refusal::invalid("asker", "none", "expected ?asker=NAME, whose wish it is"))?;
    remove(app, caller, id, guards, Write::DeleteNodePort { port, asker }).await
}
