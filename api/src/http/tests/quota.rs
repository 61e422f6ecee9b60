//! What a project may have, which ports its checks may ask, and how often anybody may ask.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{House, OTHER, TOKEN, cluster, message, registration};

/// As the example, but so much of a resource.
async fn house_with(edits: &[(&str, &str)]) -> House {
    House::with(|text| {
        edits.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
    })
    .await
}

fn quota(used: u64, limit: u64) -> Value {
    json!({"used": used, "limit": limit})
}

#[tokio::test]
async fn what_is_beyond_the_quota_is_refused_with_its_numbers_and_costs_nothing() {
    let house = house_with(&[("addresses = 500", "addresses = 18"), ("clusters = 10", "clusters = 2")]).await;
    let other = format!("/v1/clusters/{OTHER}");
    for path in [cluster(""), other.clone()] {
        assert_eq!(house.put(&path, registration()).await.status, 200);
    }
    assert_eq!(house.put(&format!("{other}/addresses/a"), json!({})).await.status, 200);
    let many = |count: usize| {
        let put = |n| json!({"write": "put-address", "name": format!("a{n}"), "request": {}});
        json!({"lease_transitions": 0, "writes": (0..count).map(put).collect::<Vec<_>>()})
    };
    let blocks = house.neutron.reserved();
    let said = house.post(&cluster("/batch"), many(18)).await;
    assert_eq!((said.status.as_u16(), &said.body["code"]), (403, &json!("quota")), "{}", said.body);
    assert_eq!(said.body["field"], "addresses");
    for words in ["quota addresses: 1 of 18 in use by project demo", "18 more"] {
        assert!(message(&said).contains(words), "{}", said.body);
    }
    assert_eq!(house.neutron.reserved(), blocks, "no block is reserved for what is refused");
    assert_eq!(house.get(&cluster("")).await.body["addresses"], json!({}), "all of it or nothing");
    assert_eq!(house.post(&cluster("/batch"), many(17)).await.status, 200);
    let said = house.put(&cluster("/addresses/b"), json!({})).await;
    assert!(message(&said).contains("18 of 18"), "{}", said.body);
    let said = house.put(&cluster("/addresses/a0"), json!({})).await;
    assert_eq!(said.status, 200, "what is there may be written again: {}", said.body);
    let said = house.put("/v1/clusters/33333333-3333-3333-3333-333333333333", registration()).await;
    assert!(message(&said).contains("quota clusters: 2 of 2"), "{}", said.body);

    let said = house.get("/v1/quota").await;
    assert_eq!(said.body["project"], "demo");
    let quotas = &said.body["quotas"];
    assert_eq!((&quotas["addresses"], &quotas["clusters"]), (&quota(18, 18), &quota(2, 2)));
    house.service.measure_quotas().await.unwrap();
    let text = house.service.metrics.text().unwrap();
    for line in [
        r#"ake_api_quota_used{project="demo",quota="addresses"} 18"#,
        r#"ake_api_quota_limit{project="demo",quota="addresses"} 18"#,
        r#"ake_api_refusals_total{code="quota"} 3"#,
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    // what is given up can be taken by another cluster of the project, and the other way about
    assert_eq!(house.delete(&format!("{other}/addresses/a")).await.status, 204);
    assert_eq!(house.put(&cluster("/addresses/b"), json!({})).await.status, 200);
}

/// Whoever waits for metrics does not wait for as long as a write would.
#[tokio::test]
async fn metrics_are_shown_while_the_database_does_not_answer() {
    let house = House::registered().await;
    let _taken = house.service.store.all_connections_for_tests().await;
    let asked = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = tokio::select! {
        biased;
        measured = house.service.measure_quotas() => panic!("it ended first: {measured:?}"),
        answer = crate::http::metrics_router(Arc::clone(&house.service)).oneshot(asked) => answer.unwrap(),
    };
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn what_outlives_clusters_has_a_quota_of_its_own() {
    let house = house_with(&[("retained = 20", "retained = 2")]).await;
    assert_eq!(house.put(&cluster(""), registration()).await.status, 200);
    let keep = async |path: &str| house.put(path, json!({"retain": true})).await;
    for name in ["a", "b"] {
        assert_eq!(keep(&cluster(&format!("/addresses/{name}"))).await.status, 200);
    }
    assert_eq!(house.put(&cluster("/addresses/c"), json!({})).await.status, 200, "one that goes with it");
    let said = keep(&cluster("/addresses/c")).await;
    assert_eq!((said.status.as_u16(), &said.body["code"]), (403, &json!("quota")), "{}", said.body);
    assert!(message(&said).contains("quota retained: 2 of 2"), "{}", said.body);
    assert_eq!(house.delete(&cluster("")).await.status, 204, "what goes with a cluster needs no more room");

    // they count on as the project's
    let other = format!("/v1/clusters/{OTHER}");
    assert_eq!(house.put(&other, registration()).await.status, 200);
    let said = keep(&format!("{other}/addresses/d")).await;
    assert_eq!((said.status.as_u16(), &said.body["field"]), (403, &json!("retained")), "{}", said.body);
    assert_eq!(house.get("/v1/quota").await.body["quotas"]["retained"], quota(2, 2));
    assert_eq!(house.delete("/v1/addresses/203.0.113.16").await.status, 204);
    assert_eq!(keep(&format!("{other}/addresses/d")).await.status, 200);
}

#[tokio::test]
async fn a_quota_counts_one_project_and_may_be_its_own() {
    let rich = "[project_quota.rich]\nload_balancers = -1\n\n[project_quota.3f2a";
    let house =
        house_with(&[("load_balancers = 500", "load_balancers = 1"), ("[project_quota.3f2a", rich)]).await;
    for (project, more) in [("demo", false), ("rich", true), ("poor", false)] {
        let token = format!("alice:{project}:member");
        let id = uuid::Uuid::new_v4();
        let put = async |path: &str, body: Value| {
            house.say(&token, Method::PUT, &format!("/v1/clusters/{id}{path}"), body).await
        };
        assert_eq!(put("", registration()).await.status, 200);
        put("/addresses/a", json!({})).await;
        put("/pools/p", json!({})).await;
        for (port, expected) in [(80, true), (81, more)] {
            let listeners = json!([{"protocol": "TCP", "port": port, "pool": "p"}]);
            let body = json!({"address": "a", "listeners": listeners});
            let said = put(&format!("/load-balancers/l{port}"), body).await;
            assert_eq!(said.status == 200, expected, "{project} {}", said.body);
        }
        let said = house.say(&token, Method::GET, "/v1/quota", Value::Null).await;
        let had = &said.body["quotas"]["load_balancers"];
        assert_eq!(*had, if more { json!({"used": 2}) } else { quota(1, 1) }, "{}", said.body);
    }
}

#[tokio::test]
async fn checks_ask_ports_that_are_admitted_or_served() {
    let house = House::registered().await;
    let pool = |check: Value| json!({"checks": [check]});
    let put = async |body: Value| house.put(&cluster("/pools/p"), body).await;
    for (check, expected) in [
        (json!({"type": "http", "port": 10256, "path": "/healthz"}), true),
        (json!({"type": "http", "port": 31000, "path": "/healthz"}), true),
        (json!({"type": "http", "port": 10250, "path": "/pods"}), false),
        (json!({"type": "tcp", "port": 22}), false),
    ] {
        let said = put(pool(check.clone())).await;
        assert_eq!(said.status == 200, expected, "{check} {}", said.body);
        if !expected {
            assert_eq!((said.status.as_u16(), &said.body["field"]), (422, &json!("checks.port")));
            for words in ["pool p", "6443, 10256, 30000-32767"] {
                assert!(message(&said).contains(words), "{}", said.body);
            }
        }
    }
    // a port that a listener has is the tenant's own, if both come together
    let writes = json!({"lease_transitions": 0, "writes": [
        {"write": "put-address", "name": "a", "request": {}},
        {"write": "put-pool", "name": "p", "request": {"checks": [{"type": "tcp", "port": 22}, {"type": "vip", "address": "a", "port": 22}]}},
        {"write": "put-load-balancer", "name": "l", "request": {"address": "a",
            "listeners": [{"protocol": "TCP", "port": 22, "pool": "p"}]}},
    ]});
    assert_eq!(house.post(&cluster("/batch"), writes).await.status, 200);
    let moved = json!({"address": "a", "listeners": [{"protocol": "TCP", "port": 23, "pool": "p"}]});
    let said = house.put(&cluster("/load-balancers/l"), moved).await;
    assert!(said.status == 422 && message(&said).contains("checks.port: 22"), "{}", said.body);
}

/// What is told of a check is what the balancer says of it, never what a member answered.
#[tokio::test]
async fn nothing_that_a_member_answers_is_shown() {
    let house = House::with_api().await;
    let state = house.get(&cluster("")).await.body;
    let member = state["pools"]["masters"]["members"]["m0"].as_object().unwrap();
    let known = ["address", "draining", "healthy", "mac", "reason", "weight"];
    assert_eq!(member.keys().collect::<Vec<_>>(), known);
    assert_eq!(member["reason"], "connection refused");
}

async fn until_refused(house: &House, token: &str, peer: &str, path: &str) -> Option<Value> {
    for _ in 0..200 {
        let said = house.say_from(peer, token, Method::GET, path, Value::Null).await;
        if said.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(said.retry_after.is_some_and(|seconds| seconds >= 1), "{}", said.body);
            return Some(said.body);
        }
    }
    None
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait_and_others_are_not() {
    let house = house_with(&[
        ("project_per_second = 100", "project_per_second = 1"),
        ("project_burst = 1000", "project_burst = 20"),
        ("peer_per_second = 50", "peer_per_second = 1"),
        ("peer_burst = 500", "peer_burst = 20"),
    ])
    .await;
    let said = until_refused(&house, TOKEN, "192.0.2.9", "/v1/clusters").await.unwrap();
    assert_eq!(said["code"], "too-many-requests");
    assert!(said["message"].as_str().unwrap().starts_with("project demo: too many requests"), "{said}");
    let others = house.say("eve:evil:member", Method::GET, "/v1/clusters", Value::Null).await;
    assert_eq!(others.status, 200);

    // tokens that nobody knows, none at all, guessed claims and probes are the sender's
    for (peer, token, path) in [
        ("192.0.2.10", "unknown", "/v1/clusters"),
        ("192.0.2.11", "", "/v1/clusters"),
        ("192.0.2.12", "", "/v1/openapi.json"),
        ("2001:db8::12", "", "/readyz"),
        ("192.0.2.14", "", "/nowhere"),
    ] {
        let said = until_refused(&house, token, peer, path).await.unwrap();
        assert!(said["message"].as_str().unwrap().starts_with(&format!("address {peer}")), "{said}");
    }
    let claim = format!("/v1/claims/{}", "a".repeat(43));
    let lines = || std::fs::read_to_string(house.folder.path().join("audit.jsonl")).unwrap().lines().count();
    let mut refused = false;
    for _ in 0..200 {
        let before = lines();
        let said = house.say_from("192.0.2.13", "", Method::POST, &claim, json!({})).await;
        refused |= said.status == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(lines() - before, usize::from(said.status != StatusCode::TOO_MANY_REQUESTS));
    }
    assert!(refused);
    // a token that is known already is its project's, whoever else asks from the same address
    let known =
        house.say_from("192.0.2.13", "eve:evil:member", Method::GET, "/v1/clusters", Value::Null).await;
    assert_eq!(known.status, 200, "{}", known.body);
}
