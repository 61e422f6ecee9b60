//! What is refused, to whom, and in which words.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{House, OTHER, PORT, cluster, message, registration};

#[tokio::test]
async fn another_project_sees_nothing() {
    let house = House::registered().await;
    for (method, path) in [
        (Method::GET, cluster("")),
        (Method::PUT, cluster("")),
        (Method::DELETE, cluster("")),
        (Method::POST, cluster("/deleting")),
        (Method::PUT, cluster("/addresses/x")),
    ] {
        let body = if method == Method::PUT && path == cluster("") { registration() } else { json!({}) };
        let said = house.say("eve:evil:admin", method.clone(), &path, body).await;
        assert_eq!(said.status, 404, "{method} {path} {}", said.body);
    }
    assert_eq!(house.say("eve:evil:member", Method::GET, "/v1/clusters", Value::Null).await.body, json!([]));
    assert_eq!(house.get("/v1/clusters").await.body.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn who_may_not_is_told_why() {
    let house = House::registered().await;
    for (token, method, status, word) in [
        ("", Method::GET, 401, "X-Auth-Token"),
        ("unknown", Method::GET, 401, "Keystone does not take it"),
        ("alice::member", Method::GET, 403, "project"),
        ("alice:demo:reader", Method::GET, 200, ""),
        ("alice:demo:reader", Method::PUT, 403, "roles"),
        ("alice:demo:member:cred=c1:rules", Method::GET, 200, ""),
        ("alice:demo:member:cred=c1:rules", Method::PUT, 403, "no access rule for PUT /v1/clusters/"),
        ("alice:demo:member:trust", Method::PUT, 200, ""),
    ] {
        let body = if method == Method::PUT { registration() } else { Value::Null };
        let said = house.say(token, method, &cluster(""), body).await;
        assert_eq!(said.status, status, "{token} {}", said.body);
        assert!(message(&said).contains(word), "{}", said.body);
    }
}

#[tokio::test]
async fn an_application_credential_has_one_cluster() {
    let house = House::registered().await;
    let other = format!("/v1/clusters/{OTHER}");
    assert_eq!(house.put(&other, json!({"name": "b", "network": "provider"})).await.status, 200);
    let token = "alice:demo:member:cred=c1";
    let get = async |path: &str| house.say(token, Method::GET, path, Value::Null).await;
    assert_eq!(get("/v1/clusters/33333333-3333-3333-3333-333333333333").await.status, 404);
    assert_eq!(get(&other).await.status, 200);
    let said = get(&cluster("")).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    assert_eq!(get("/v1/clusters").await.body[0]["id"], OTHER);
    assert_eq!(house.get(&cluster("")).await.status, 200, "an ordinary login reaches both");
}

#[tokio::test]
async fn mistakes_in_requests_are_named() {
    let house = House::registered().await;
    for (path, body, status, words) in [
        (
            "",
            json!({"name": "demo", "network": "nowhere"}),
            422,
            &["network: nowhere", "net-1 (provider)"][..],
        ),
        ("", json!({"name": "demo", "network": "net-1", "size": 3}), 422, &["size", "unknown field"]),
        ("/addresses/api", json!({"address": "203.0.113.77"}), 422, &["203.0.113.77", "203.0.113.16/28"]),
        ("/addresses/UP", json!({}), 422, &["UP", "a-z"]),
        ("/pools/p", json!({"checks": [{"type": "tcp", "port": 70000}]}), 422, &["70000"]),
        (
            "/pools/p",
            json!({"checks": [{"type": "vip", "address": "none", "port": 80}]}),
            422,
            &["checks.address", "none"],
        ),
        ("/pools/p/members/m", json!({"address": "192.168.77.20"}), 404, &["pool p"]),
        ("/load-balancers/l", json!({"address": "none", "listeners": []}), 422, &["listeners"]),
        ("/node-ports/x", json!({"asker": "heat"}), 422, &["x", "UUID"]),
    ] {
        let said = house.put(&cluster(path), body).await;
        assert_eq!(said.status, status, "{path} {}", said.body);
        for word in words {
            assert!(message(&said).contains(word), "{} lacks {word}", said.body);
        }
    }
    let said = house.put("/v1/clusters/demo", registration()).await;
    assert!(said.status == 422 && message(&said).contains("UUID"), "{}", said.body);
    assert_eq!(house.get("/v2/clusters").await.status, 404);
    assert_eq!(house.post(&cluster(""), json!({})).await.status, 405);
}

#[tokio::test]
async fn bodies_that_are_none_are_named() {
    let house = House::registered().await;
    let path = cluster("/addresses/api");
    let put = async |media: &str, body: Value| {
        let headers = [("content-type", media)];
        house.say_with("192.0.2.9", super::TOKEN, Method::PUT, &path, body, &headers).await
    };
    let said = put("application/x-www-form-urlencoded", json!({})).await;
    assert_eq!((said.status.as_u16(), &said.body["code"]), (415, &json!("unsupported-media-type")));
    assert!(message(&said).contains("expected application/json"), "{}", said.body);
    let said = put("application/json", json!("x".repeat(17 << 20))).await;
    assert_eq!((said.status.as_u16(), &said.body["code"]), (413, &json!("too-large")));
    assert!(message(&said).contains("16 MiB"), "{}", said.body);
    assert_eq!(put("application/json; charset=utf-8", json!({})).await.status, 200);
    let writes = vec![json!({"write": "delete-pool", "name": "x"}); 10_001];
    let said = house.post(&cluster("/batch"), json!({"lease_transitions": 1, "writes": writes})).await;
    assert!(said.status == 422 && message(&said).contains("at most 10000"), "{}", said.body);
}

#[tokio::test]
async fn an_answer_can_be_found_in_the_trail() {
    let house = House::registered().await;
    let id = "req-5f5e2a0c-4d1c-4d3e-9a59-0d3a5c8f1b11";
    for given in [id, "req-none", "x\" y"] {
        let headers = [("x-openstack-request-id", given)];
        house
            .say_with("192.0.2.9", super::TOKEN, Method::PUT, &cluster("/addresses/a"), json!({}), &headers)
            .await;
    }
    let text = std::fs::read_to_string(house.folder.path().join("audit.jsonl")).unwrap();
    let lines = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ids: Vec<String> = lines.map(|line| line["request"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids[0], id);
    assert!(
        ids[1..].iter().all(|own| own.starts_with("req-") && own != id && own.len() == id.len()),
        "{ids:?}"
    );
}

#[tokio::test]
async fn an_address_that_somebody_else_has_costs_its_block_only() {
    let house = House::new().await;
    house
        .neutron
        .ports
        .lock()
        .unwrap()
        .push(json!({"id": "x", "network_id": "vips-1", "device_owner": "", "device_id": "",
        "fixed_ips": [{"ip_address": "203.0.113.20"}]}));
    let said = house.put(&cluster(""), registration()).await;
    assert_eq!(said.body["cluster"]["vip_blocks"][0], "203.0.113.32/28", "{}", said.body);
}

#[tokio::test]
async fn an_exhausted_range_is_explained_and_leaves_nothing() {
    let house = House::with(|text| text.replace("last = \"203.0.113.239\"", "last = \"203.0.113.31\"")).await;
    assert_eq!(house.put(&cluster(""), registration()).await.status, 200);
    let said = house.put(&format!("/v1/clusters/{OTHER}"), json!({"name": "b", "network": "net-1"})).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::CONFLICT, &json!("exhausted")));
    for word in ["203.0.113.16-203.0.113.31", "/28", "1 of 1"] {
        assert!(message(&said).contains(word), "{}", said.body);
    }
    assert_eq!(house.get(&format!("/v1/clusters/{OTHER}")).await.status, 404);
    assert_eq!(house.neutron.reserved(), 2);
}

#[tokio::test]
async fn a_subnet_that_neutron_does_not_know_is_named_and_leaves_nothing() {
    for (from, to, words) in [
        ("subnet = \"ake-vips-v4\"", "subnet = \"nowhere\"", "subnet = nowhere: Neutron knows none"),
        // one of the other family that is not there gives back what was reserved for the first
        ("subnet = \"ake-vips-v6\"", "subnet = \"nowhere-v6\"", "subnet = nowhere-v6: Neutron knows none"),
        ("network = \"ake-vips\"", "network = \"gone\"", "network = gone: Neutron knows none"),
    ] {
        let house = House::with(|text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
        .await;
        let said = house.put(&cluster(""), registration()).await;
        assert_eq!(
            (said.status, &said.body["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable"))
        );
        let said = message(&said);
        assert!(said.contains(words) && said.contains("the operator's configuration of ake-api"), "{said}");
        assert_eq!(house.get(&cluster("")).await.status, 404, "{to}");
        assert_eq!((house.neutron.reserved(), house.neutron.retained().len()), (0, 0), "{to}");
    }
}

#[tokio::test]
async fn a_full_block_is_followed_by_another_and_ports_get_its_pair() {
    let house = House::registered().await;
    house
        .put(&cluster(&format!("/node-ports/{PORT}")), json!({"asker": "controller", "vip_blocks": true}))
        .await;
    for n in 0..17 {
        let said = house.put(&cluster(&format!("/addresses/a{n}")), json!({})).await;
        assert_eq!(said.status, 200, "{}", said.body);
    }
    let blocks = house.get(&cluster("")).await.body["cluster"]["vip_blocks"].clone();
    assert_eq!(blocks, json!(["203.0.113.16/28", "2001:db8:113::10/124", "203.0.113.32/28"]));
    assert!(house.neutron.pairs(PORT).contains(&"203.0.113.32/28".to_owned()));
}
