//! What every request passes: who asks, may they, and the trail behind them.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, Peer, audit::Entry};
use crate::{
    decide::access::{self, Caller},
    refusal::{Kind, Refusal},
};

/// Who asked: left with the answer for the trail.
#[derive(Clone)]
struct Asked(Arc<Caller>);

/// Finds out who asks and whether they may.
pub(super) async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let token = request.headers().get("X-Auth-Token").and_then(|token| token.to_str().ok());
    let caller = match caller(&app, peer(&request), token.unwrap_or_default().to_owned()).await {
        Ok(caller) => caller,
        Err(refusal) => return with_challenge(refusal),
    };
    let asked = Asked(Arc::clone(&caller));
    let admitted = app
        .limits
        .project(&caller.project)
        .and_then(|()| caller.admit(request.method().as_str(), request.uri().path()));
    let mut response = match admitted {
        Err(refusal) => refusal.into_response(),
        Ok(()) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    response.extensions_mut().insert(asked);
    response
}

/// Where a request came from.
fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_canonical())
}

/// Counts a request of whom nobody knows.
pub(super) fn stranger(app: &App, request: &Request) -> Result<(), Refusal> {
    app.limits.stranger(peer(request))
}

/// Counts a request that needs no token.
pub(super) async fn count_stranger(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match stranger(&app, &request) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    }
}

/// Who holds a token. A token that is not known yet costs Keystone a call, and counts as its sender's.
async fn caller(app: &App, peer: Option<IpAddr>, token: String) -> Result<Arc<Caller>, Refusal> {
    if let Some(caller) = app.authenticator.remembered(&token) {
        return Ok(caller);
    }
    app.limits.stranger(peer)?;
    if token.is_empty() {
        return Err(Refusal::new(
            Kind::Unauthorized,
            "X-Auth-Token: none given; expected a token of Keystone",
        ));
    }
    app.authenticator.ask(&token).await
}

/// The header by which OpenStack's services name a request.
const REQUEST_ID: &str = "x-openstack-request-id";

/// The request's own id, as `req-UUID`: the one that it came with, if it is one, so that a trail can be followed from
/// service to service.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let given =
        given.filter(|id| id.strip_prefix("req-").is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()));
    given.map_or_else(|| format!("req-{}", uuid::Uuid::new_v4()), ToOwned::to_owned)
}

fn with_challenge(refusal: Refusal) -> Response {
    let unauthorized = refusal.kind == Kind::Unauthorized;
    let mut response = refusal.into_response();
    if unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Keystone"));
    }
    response
}

/// Counts and logs every request, and writes the trail of those that are writes.
pub(super) async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", |path| path.as_str()).to_owned();
    // a claim is a secret
    let is_claim = request.uri().path().starts_with("/v1/claims");
    let path = if is_claim { "/v1/claims/{claim}".to_owned() } else { request.uri().path().to_owned() };
    let peer = peer(&request);
    let id = request_id(&request);
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    app.metrics.answered(method.as_str(), &route, status, elapsed);
    let caller = response.extensions().get::<Asked>().map(|asked| Arc::clone(&asked.0));
    let refusal = response.extensions().get::<Refusal>();
    if let Some(refusal) = refusal {
        app.metrics.refused(refusal.kind.code());
    }
    let project = caller.as_ref().map_or("", |caller| caller.project.as_str());
    tracing::info!(request = id, %method, path, status, project, millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), reason = refusal.map(|r| r.message.as_str()), "request");
    // who asks too often does not fill the trail's disk
    if !access::is_read(method.as_str()) && status != StatusCode::TOO_MANY_REQUESTS.as_u16() {
        let entry = Entry {
            request: &id,
            peer,
            caller: caller.as_deref(),
            method: method.as_str(),
            path: &path,
            status,
            reason: refusal.map(|refusal| refusal.message.as_str()),
        };
        app.audit.write(&entry);
    }
    response
}
