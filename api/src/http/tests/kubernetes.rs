//! Two Kubernetes that take themselves for one cluster, and the owner's word for which it is.

use std::{sync::atomic::Ordering, time::Duration};

use axum::http::Method;
use serde_json::{Value, json};

use super::{DEMO, House, Said, TOKEN, cluster, message};
use crate::store::{Change, Database, Store};

const FIRST: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const SECOND: &str = "aaaaaaaa-0000-0000-0000-000000000002";

/// A batch of whoever speaks for this Kubernetes.
async fn batch(house: &House, kubernetes: &str, writes: Value) -> Said {
    led(house, kubernetes, 1, writes).await
}

/// The same, of a leader after so many others.
async fn led(house: &House, kubernetes: &str, lease_transitions: u64, writes: Value) -> Said {
    let mut batch = json!({"lease_transitions": lease_transitions, "writes": writes});
    if !kubernetes.is_empty() {
        batch["kubernetes"] = json!(kubernetes);
    }
    house.post(&cluster("/batch"), batch).await
}

async fn known(house: &House) -> Value {
    house.get(&cluster("")).await.body["cluster"]["kubernetes"].clone()
}

/// An address and a load balancer for a Service.
fn service() -> Value {
    json!([{"write": "put-address", "name": "svc-1", "request": {}},
           {"write": "put-pool", "name": "nodes", "request": {"members": {"w0": {"address": "192.168.77.20"}}}},
           {"write": "put-load-balancer", "name": "svc-1", "request": {"address": "svc-1",
            "listeners": [{"protocol": "TCP", "port": 80, "pool": "nodes"}]}}])
}

fn end_of_service() -> Value {
    json!([{"write": "delete-load-balancer", "name": "svc-1"}, {"write": "delete-address", "name": "svc-1"}])
}

#[tokio::test]
async fn the_first_kubernetes_is_the_cluster_and_another_one_takes_nothing_away() {
    let house = House::with_api().await;
    assert_eq!(batch(&house, "", json!([])).await.status, 200, "as long as there is none");
    let (before, balancer) = (house.get(&cluster("")).await, house.balancer.writes());
    let said = batch(&house, FIRST, json!([])).await;
    assert_eq!(
        (said.status.as_u16(), &said.body["cluster"]["kubernetes"]),
        (200, &json!(FIRST)),
        "{}",
        said.body
    );
    assert_ne!(said.etag, before.etag, "whoever planned from before plans anew");
    assert_eq!(house.balancer.writes(), balancer, "no balancer has to know");
    assert_eq!(batch(&house, FIRST, json!([])).await.etag, said.etag, "it is said once");
    assert_eq!(batch(&house, FIRST, service()).await.status, 200);

    let before = house.get(&cluster("")).await.body;
    for (other, words) in
        [(SECOND, &[FIRST, SECOND, "svc-1", "cluster-id"][..]), ("", &[FIRST, "names none"])]
    {
        for writes in [json!([]), end_of_service()] {
            let said = batch(&house, other, writes).await;
            let code = (said.status.as_u16(), &said.body["code"], &said.body["field"]);
            assert_eq!(code, (409, &json!("other-kubernetes"), &json!("kubernetes")), "{}", said.body);
            assert!(words.iter().all(|word| message(&said).contains(word)), "{}", said.body);
        }
    }
    assert_eq!(house.get(&cluster("")).await.body, before);
    // Heat is of no Kubernetes.
    assert_eq!(house.put(&cluster("/addresses/mine"), json!({})).await.status, 200);
    assert_eq!(batch(&house, FIRST, end_of_service()).await.status, 200);
}

#[tokio::test]
async fn one_that_was_made_anew_is_let_in_once_nothing_of_services_is_left() {
    let house = House::with_api().await;
    assert_eq!(batch(&house, FIRST, service()).await.status, 200);
    assert_eq!(batch(&house, SECOND, json!([])).await.status, 409);
    assert_eq!(batch(&house, FIRST, end_of_service()).await.status, 200);
    assert_eq!(batch(&house, "", json!([])).await.status, 409, "one that names none is not another one");
    assert_eq!(batch(&house, SECOND, service()).await.status, 200);
    assert_eq!(known(&house).await, SECOND);
    assert_eq!(batch(&house, FIRST, end_of_service()).await.body["code"], "other-kubernetes");
}

#[tokio::test]
async fn the_owner_says_which_it_is_and_a_credential_of_the_cluster_does_not() {
    let house = House::with_api().await;
    assert_eq!(batch(&house, FIRST, service()).await.status, 200);
    let path = cluster("/kubernetes");
    let credential = "alice:demo:member:cred=c1";
    let said = house.say(credential, Method::PUT, &path, json!({"uid": SECOND})).await;
    assert_eq!((said.status.as_u16(), &said.body["code"]), (403, &json!("forbidden")), "{}", said.body);
    assert_eq!(known(&house).await, FIRST);

    let before = house.get(&cluster("")).await;
    let said = house.say(TOKEN, Method::PUT, &path, json!({"uid": SECOND})).await;
    assert_eq!(
        (said.status.as_u16(), &said.body["cluster"]["kubernetes"]),
        (200, &json!(SECOND)),
        "{}",
        said.body
    );
    assert_ne!(said.etag, before.etag);
    assert_eq!(batch(&house, FIRST, json!([])).await.status, 409);
    let old = house.say_with(
        "192.0.2.9",
        TOKEN,
        Method::PUT,
        &path,
        json!({"uid": FIRST}),
        &[("If-Match", "\"0\"")],
    );
    let old = old.await;
    assert_eq!((old.status.as_u16(), &old.body["code"]), (412, &json!("stale")), "{}", old.body);
    assert_eq!(known(&house).await, SECOND);
    assert_eq!(batch(&house, SECOND, end_of_service()).await.status, 200);

    assert_eq!(house.put(&path, json!({})).await.status, 422, "nobody is named by mistake");
    assert_eq!(house.put(&path, json!({"uid": null})).await.status, 200);
    assert_eq!(known(&house).await, Value::Null);
    assert_eq!(batch(&house, "", json!([])).await.status, 200);
    assert_eq!(batch(&house, FIRST, json!([])).await.body["cluster"]["kubernetes"], FIRST);

    assert_eq!(house.post(&cluster("/deleting"), json!({})).await.status, 200);
    let said = house.put(&path, json!({"uid": SECOND})).await;
    assert_eq!((said.status.as_u16(), &said.body["code"]), (409, &json!("deleting")), "{}", said.body);
    assert_eq!(known(&house).await, FIRST);
}

#[tokio::test]
async fn another_kubernetes_hears_that_it_is_one_whatever_its_lease_says() {
    let house = House::with_api().await;
    assert_eq!(led(&house, FIRST, 5, service()).await.status, 200);
    for transitions in [1, 5, 9] {
        let said = led(&house, SECOND, transitions, json!([])).await;
        assert_eq!(said.body["code"], "other-kubernetes", "{transitions} {}", said.body);
    }
    assert_eq!(led(&house, FIRST, 1, json!([])).await.body["code"], "deposed");
}

/// Another instance takes the word of another Kubernetes while this one waits for Neutron.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_and_is_another_one_by_now_is_refused() {
    let house = House::with_api().await;
    house.neutron.slow.store(true, Ordering::SeqCst);
    // One more than a block has.
    let many: Vec<Value> =
        (0..16).map(|n| json!({"write": "put-address", "name": format!("svc-{n}"), "request": {}})).collect();
    let meanwhile = async {
        while !house.neutron.waits.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let store = Store::open(&Database::Sqlite(house.folder.path().join("api.sqlite"))).await.unwrap();
        let loaded = store.load(DEMO.parse().unwrap()).await.unwrap().unwrap();
        let mut wanted = loaded.wanted.clone();
        wanted.addresses.insert("svc-of-second".to_owned(), "203.0.113.30".parse().unwrap());
        let kubernetes = Some(SECOND.parse().unwrap());
        let change = Change { wanted: Some(&wanted), kubernetes, ..Change::default() };
        assert!(store.save(&loaded, change).await.unwrap());
        house.neutron.slow.store(false, Ordering::SeqCst);
    };
    let (said, ()) = tokio::join!(batch(&house, FIRST, json!(many)), meanwhile);
    let code = (said.status.as_u16(), &said.body["code"], &said.body["field"]);
    assert_eq!(code, (409, &json!("other-kubernetes"), &json!("kubernetes")), "{}", said.body);
    let state = house.get(&cluster("")).await.body;
    assert_eq!(state["cluster"]["kubernetes"], SECOND);
    assert_eq!(state["addresses"].as_object().unwrap().len(), 2, "{}", state["addresses"]);
}
