//! Every operation that is described, tried by those who may not: other projects, credentials of other clusters,
//! leaders that were deposed, writers with an old plan, and anybody on a cluster that goes away.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{DEMO, House, OTHER, PORT, Said, TOKEN, cluster, described::operations, registration};

/// A request of each operation on a cluster's objects that an owner would be granted.
fn requests(id: &str) -> Vec<(Method, String, Value)> {
    // of those that name no cluster, every one has its own test
    let (guarded, rest): (Vec<_>, Vec<_>) = operations()
        .filter(|(_, _, operation)| operation["security"] != json!([]))
        .partition(|(_, path, _)| path.starts_with("/v1/clusters/"));
    let rest: Vec<_> = rest.into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let known = ["GET /v1/addresses", "DELETE /v1/addresses/{address}", "GET /v1/clusters", "GET /v1/quota"];
    assert_eq!(rest, known, "a new operation needs a test of its own with two tenants");
    let mut requests: Vec<_> = guarded
        .into_iter()
        .map(|(method, template, _)| {
            let body = match (method.as_str(), template.trim_start_matches("/v1/clusters/{cluster}")) {
                ("GET" | "DELETE", _) => Value::Null,
                ("PUT", "") => registration(),
                ("POST", "/deleting") => json!({}),
                ("POST", "/batch") => json!({"lease_transitions": 9, "kubernetes": OTHER, "writes": [
                    {"write": "put-address", "name": "batched", "request": {}}]}),
                ("PUT", "/kubernetes") => json!({"uid": OTHER}),
                ("PUT", "/bundles/{role}") => json!({"claim": "b".repeat(43), "ciphertext": "c2VhbGVk"}),
                ("PUT", "/addresses/{name}") => json!({}),
                ("PUT", "/pools/{name}") => json!({"members": {"m0": {"address": "192.168.77.20"}}}),
                ("PUT", "/pools/{pool}/members/{name}") => json!({"address": "192.168.77.20", "weight": 7}),
                ("PUT", "/load-balancers/{name}") => json!({"address": "api",
                    "listeners": [{"protocol": "TCP", "port": 6443, "pool": "masters"}]}),
                ("PUT", "/node-ports/{port}") => json!({"asker": "heat", "vip_blocks": true}),
                other => panic!("{other:?}: a new operation needs a request here"),
            };
            let (kind, name) = if template.contains("pools") { ("pools", "masters") } else { ("", "api") };
            let name = if template.contains("members") { "m0" } else { name };
            let path = template.replace("{cluster}", id).replace("{name}", name).replace("{role}", "worker");
            let path = path.replace("{pool}", if kind == "pools" { "masters" } else { "" });
            let query =
                if method == Method::DELETE && template.ends_with("{port}") { "?asker=heat" } else { "" };
            (method, path.replace("{port}", PORT) + query, body)
        })
        .collect();
    // whole clusters go last, so that the others meet one
    requests.sort_by_key(|(method, path, _)| *method == Method::DELETE && path.ends_with(id));
    requests.push((Method::GET, format!("/v1/clusters/{id}?wait=1"), Value::Null));
    requests
}

/// All that can be seen of a cluster, and what was written elsewhere.
async fn everything(house: &House) -> (Value, usize, usize) {
    (house.get(&cluster("")).await.body, house.neutron.writes(), house.balancer.writes())
}

async fn tried(
    house: &House,
    token: &str,
    headers: &[(&str, &str)],
    which: impl Fn(&Method) -> bool,
    judge: impl Fn(&Method, &str, &Said),
) {
    let before = everything(house).await;
    for (method, path, body) in requests(DEMO).into_iter().filter(|(method, ..)| which(method)) {
        let said = house.say_with("192.0.2.9", token, method.clone(), &path, body, headers).await;
        judge(&method, &path, &said);
        assert_eq!(everything(house).await, before, "{method} {path} changed something");
    }
}

#[tokio::test]
async fn another_project_meets_nothing_whatever_it_tries() {
    let house = House::with_api().await;
    let theirs =
        house.say("eve:evil:admin", Method::PUT, &format!("/v1/clusters/{OTHER}"), registration()).await;
    assert_eq!(theirs.status, 200);
    tried(
        &house,
        "eve:evil:admin",
        &[],
        |_| true,
        |method, path, said| {
            assert_eq!(said.status, 404, "{method} {path} {}", said.body);
            let text = said.body.to_string();
            for word in ["203.0.113", "10.240.", "192.168.77", "masters"] {
                assert!(!text.contains(word), "{method} {path} tells {word}: {text}");
            }
        },
    )
    .await;
    let quota = house.say("eve:evil:admin", Method::GET, "/v1/quota", Value::Null).await.body;
    assert_eq!((&quota["project"], &quota["quotas"]["clusters"]["used"]), (&json!("evil"), &json!(1)));
    assert_eq!(quota["quotas"]["members"]["used"], 0, "{quota}");
    let list = house.say("eve:evil:admin", Method::GET, "/v1/clusters", Value::Null).await;
    assert_eq!(list.body.as_array().unwrap().len(), 1);
    assert_eq!(list.body[0]["id"], OTHER);
}

#[tokio::test]
async fn a_credential_of_one_cluster_meets_no_other_and_learns_not_which_there_are() {
    let house = House::with_api().await;
    let other = format!("/v1/clusters/{OTHER}");
    assert_eq!(house.put(&other, json!({"name": "b", "network": "net-1"})).await.status, 200);
    let bound = "alice:demo:member:cred=c1";
    assert_eq!(house.say(bound, Method::GET, &other, Value::Null).await.status, 200);
    tried(
        &house,
        bound,
        &[],
        |_| true,
        |method, path, said| {
            let code = (&said.body["code"], said.status.as_u16());
            assert_eq!(code, (&json!("forbidden"), 403), "{method} {path} {}", said.body);
        },
    )
    .await;
    let there = house.say(bound, Method::GET, &cluster(""), Value::Null).await.body;
    let missing = "33333333-3333-3333-3333-333333333333";
    let said = house.say(bound, Method::GET, &format!("/v1/clusters/{missing}"), Value::Null).await;
    assert_eq!(said.status, 403);
    assert_eq!(said.body.to_string().replace(missing, DEMO), there.to_string(), "both are told alike");
    assert_eq!(
        house.say(bound, Method::GET, "/v1/clusters", Value::Null).await.body.as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing_by_any_path() {
    let house = House::with_api().await;
    let batch = json!({"lease_transitions": 10, "writes": []});
    assert_eq!(house.post(&cluster("/batch"), batch).await.status, 200);
    tried(
        &house,
        TOKEN,
        &[("AKE-Lease-Transitions", "9")],
        |method| method != Method::GET,
        |method, path, said| {
            assert_eq!(
                (said.status.as_u16(), &said.body["code"]),
                (412, &json!("deposed")),
                "{method} {path}"
            );
        },
    )
    .await;
    let said = house
        .say_with(
            "192.0.2.9",
            TOKEN,
            Method::DELETE,
            &cluster("/pools/x"),
            Value::Null,
            &[("AKE-Lease-Transitions", "many")],
        )
        .await;
    assert!(
        said.status == 422 && super::message(&said).contains("AKE-Lease-Transitions: many"),
        "{}",
        said.body
    );
    let said = house
        .say_with(
            "192.0.2.9",
            TOKEN,
            Method::PUT,
            &cluster("/addresses/new"),
            json!({}),
            &[("AKE-Lease-Transitions", "11")],
        )
        .await;
    assert_eq!(said.status, 200, "a newer one is let in, and counts from now on");
    assert_eq!(house.get(&cluster("")).await.body["lease_transitions"], 11);
}

#[tokio::test]
async fn an_old_plan_writes_nothing_by_any_path() {
    let house = House::with_api().await;
    tried(
        &house,
        TOKEN,
        &[("If-Match", "\"1.0-0.0\"")],
        |method| method != Method::GET,
        |method, path, said| {
            assert_eq!((said.status.as_u16(), &said.body["code"]), (412, &json!("stale")), "{method} {path}");
        },
    )
    .await;
    let tag = house.get(&cluster("")).await.etag;
    let said = house
        .say_with(
            "192.0.2.9",
            TOKEN,
            Method::PUT,
            &cluster("/addresses/new"),
            json!({}),
            &[("If-Match", &tag)],
        )
        .await;
    assert_eq!(said.status, 200);
    assert!(said.etag.starts_with('"') && said.etag != tag, "{} {tag}", said.etag);
}

#[tokio::test]
async fn a_cluster_that_goes_away_takes_nothing_new() {
    let house = House::with_api().await;
    assert_eq!(house.post(&cluster("/deleting"), json!({})).await.status, 200);
    let adds = |method: &Method| *method == Method::PUT;
    tried(&house, TOKEN, &[], adds, |method, path, said| {
        assert_eq!((said.status.as_u16(), &said.body["code"]), (409, &json!("deleting")), "{method} {path}");
    })
    .await;
    let before = everything(&house).await;
    let (_, path, body) = requests(DEMO).into_iter().find(|(_, path, _)| path.ends_with("/batch")).unwrap();
    assert_eq!(house.post(&path, body).await.body["code"], "deleting");
    assert_eq!(everything(&house).await, before);
}

#[tokio::test]
async fn the_owner_is_granted_each_of_these_requests() {
    let house = House::with_api().await;
    let order = |method: &Method| match method.as_str() {
        "GET" => 0,
        "PUT" => 1,
        "POST" => 2,
        _ => 3,
    };
    let mut requests = requests(DEMO);
    requests.sort_by_key(|(method, path, _)| {
        let whole = path.ends_with(DEMO) || path.ends_with("/deleting");
        // what others stand on goes after them
        (
            order(method).min(if whole { 9 } else { 3 }),
            whole,
            !path.contains("load-bal"),
            !path.contains("node-ports"),
            path.contains("addresses"),
        )
    });
    for (method, path, body) in requests {
        if method == Method::DELETE && path.ends_with(DEMO) {
            house.neutron.change(PORT, |port| port["device_id"] = json!(""));
        }
        let said = house.say(TOKEN, method.clone(), &path, body).await;
        assert!(said.status.is_success(), "{method} {path} {} {}", said.status, said.body);
    }
    assert_eq!(house.get(&cluster("")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn health_tells_nothing_of_anybody() {
    let house = House::with_api().await;
    for path in ["/healthz", "/readyz"] {
        let said = house.say("", Method::GET, path, Value::Null).await;
        assert_eq!((said.status, &said.body), (StatusCode::OK, &json!({"status": "ok"})));
    }
    house.service.store.close().await;
    let said = house.say("", Method::GET, "/readyz", Value::Null).await;
    assert_eq!(said.status, 503);
    assert_eq!(said.body, json!({"code": "unavailable", "message": "the database does not answer"}));
    assert_eq!(house.say("", Method::GET, "/healthz", Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_member_is_a_server_of_the_project_on_the_clusters_network() {
    let house = House::with_api().await;
    house.neutron.add("theirs", "evil", "192.168.77.30", "server-9", &[]);
    house.neutron.add("idle", "demo", "192.168.77.31", "", &[]);
    for (address, words) in [
        ("192.168.77.30", "there is none"),
        ("192.168.77.99", "there is none"),
        ("203.0.113.16", "there is none"),
        ("192.168.77.31", "belongs to no server yet"),
    ] {
        let member = json!({"address": address});
        for (path, body) in [
            ("/pools/masters/members/m1", member.clone()),
            ("/pools/masters", json!({"members": {"m1": member}})),
        ] {
            let said = house.put(&cluster(path), body).await;
            assert_eq!(
                (said.status.as_u16(), &said.body["field"]),
                (422, &json!("address")),
                "{}",
                said.body
            );
            assert!(super::message(&said).contains(words), "{}", said.body);
        }
    }
}
