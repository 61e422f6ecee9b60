//! A quota of ake-api: who meets it is told, and nobody else is held up. The ake-api here is the model behind HTTP, with
//! the answer that the real one gives; its own tests (`api/src/http/tests/quota.rs`) hold the real one to it.

use std::sync::{Arc, Mutex};

use ake_api_client::{Batch, Client, ClusterState, Problem};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};

use super::{
    super::{batch::Writer, plan::plan, step::Owner, step::Step},
    model::{key, service, take_write, world},
};
use crate::cluster::Leadership;

/// The API server's own load balancer, and three Services'.
const LIMIT: usize = 4;

async fn batch(State(kept): State<Arc<Mutex<ClusterState>>>, Json(batch): Json<Batch>) -> Response {
    let mut kept = kept.lock().unwrap();
    let mut next = kept.clone();
    batch.writes.iter().for_each(|write| take_write(&mut next, write));
    let (used, wanted) = (kept.load_balancers.len(), next.load_balancers.len());
    if wanted > LIMIT {
        let message = format!(
            "quota load_balancers: {used} of {LIMIT} in use by project p, and {} more asked for",
            wanted - used
        );
        let problem = Problem { code: "quota".into(), message, field: Some("load_balancers".into()) };
        return (StatusCode::FORBIDDEN, Json(problem)).into_response();
    }
    *kept = next.clone();
    ([(header::ETAG, "\"1\"")], Json(next)).into_response()
}

#[tokio::test]
async fn each_service_that_meets_a_quota_is_told_and_the_others_go_on() {
    let mut world = world();
    let kept = Arc::new(Mutex::new(world.state.clone()));
    assert_eq!(world.state.load_balancers.len(), 1, "the API server's");
    for n in 0..7 {
        world.services.insert(key(&format!("s{n}")), service(&format!("u{n}")));
    }
    let router =
        Router::new().route("/v1/clusters/{cluster}/batch", post(batch)).with_state(Arc::clone(&kept));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let api = Client::new(&url, None, Some(Box::new("token".to_owned()))).unwrap();
    let leadership = Leadership::alone();
    let writer = Writer {
        api: &api,
        cluster: world.state.cluster.id,
        kubernetes: world.kubernetes,
        leadership: &leadership,
    };
    let writes = plan(&world).steps.into_iter().filter(|step| matches!(step, Step::Write { .. }));
    let (mut state, mut etag) = (world.state.clone(), "\"1\"".to_owned());
    let outcome = writer.write(&mut state, writes.collect(), &mut etag).await;

    assert!(outcome.ended.is_none(), "{:?}", outcome.ended);
    assert_eq!(state.load_balancers.len(), LIMIT);
    assert_eq!(kept.lock().unwrap().load_balancers, state.load_balancers);
    assert_eq!(outcome.failed.len(), 4);
    for (owner, error) in &outcome.failed {
        let Owner::Service(uid) = owner else { panic!("{owner:?}") };
        assert!(!state.addresses.contains_key(&format!("svc-{uid}")), "{uid} has nothing");
        // what an Event on the Service says: the step, and ake-api's own words
        let text = error.to_string();
        let words = "quota load_balancers: 4 of 4 in use by project p, and 1 more asked for";
        assert!(text.ends_with(words) && text.contains(&format!("svc-{uid}")), "{text}");
    }
}
