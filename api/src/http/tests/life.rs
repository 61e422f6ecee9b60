//! Bundles, and how a cluster goes.

use std::sync::atomic::Ordering;

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::{DEMO, House, PORT, cluster, message, registration};
use crate::{
    decide::wanted::ClusterRecord,
    store::{NewBlock, Origin},
};

#[tokio::test]
async fn a_bundle_goes_to_a_server_of_its_cluster_and_role_once() {
    let house = House::registered().await;
    let claim = "c".repeat(43);
    let put = json!({"claim": claim, "ciphertext": "c2VhbGVk"});
    assert_eq!(house.put(&cluster("/bundles/worker"), put.clone()).await.status, 204);
    let tags = [format!("ake-cluster={DEMO}")];
    house.neutron.add("p2", "demo", "192.168.77.21", "server-1", &[tags[0].as_str(), "ake-role=master"]);
    house.neutron.add("p3", "demo", "192.168.77.22", "", &[tags[0].as_str(), "ake-role=worker"]);
    house.neutron.add("p4", "evil", "192.168.77.23", "server-3", &[tags[0].as_str(), "ake-role=worker"]);
    let redeem = async |peer: &str, claim: &str| {
        house.say_from(peer, "", Method::POST, &format!("/v1/claims/{claim}"), json!({})).await
    };
    for (peer, wanted) in [
        ("192.168.77.21", 403),
        ("192.168.77.22", 503),
        ("192.168.77.23", 403),
        ("192.0.2.9", 403),
        ("::ffff:192.168.77.20", 200),
        ("192.168.77.20", 409),
    ] {
        let said = redeem(peer, &claim).await;
        assert_eq!(said.status, wanted, "{peer} {}", said.body);
    }
    assert_eq!(redeem("192.168.77.20", &"d".repeat(43)).await.status, 404);
    assert_eq!(house.put(&cluster("/bundles/worker"), put).await.status, 204);
    assert_eq!(redeem("192.168.77.20", &claim).await.status, 409, "the same bundle again resets nothing");
    let anew = json!({"claim": claim, "ciphertext": "YW5ldw=="});
    assert_eq!(house.put(&cluster("/bundles/worker"), anew).await.status, 204);
    let said = redeem("192.168.77.20", &claim).await;
    assert_eq!((said.status, &said.body["ciphertext"]), (StatusCode::OK, &json!("YW5ldw==")));
}

#[tokio::test]
async fn a_cluster_goes_in_two_steps_and_leaves_nothing() {
    let house = House::with_api().await;
    house.put(&cluster("/addresses/svc-1"), json!({})).await;
    house.put(&cluster("/pools/nodes"), json!({"members": {"w0": {"address": "192.168.77.20"}}})).await;
    let lb = json!({"address": "svc-1", "listeners": [{"protocol": "TCP", "port": 80, "pool": "nodes"}]});
    assert_eq!(house.put(&cluster("/load-balancers/svc-1"), lb).await.body["applied"], true);

    let said = house.post(&cluster("/deleting"), json!({})).await;
    assert_eq!(said.status, 200);
    assert_eq!(said.body["load_balancers"].as_object().unwrap().keys().collect::<Vec<_>>(), ["api"]);
    let said = house.put(&cluster("/addresses/new"), json!({})).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::CONFLICT, &json!("deleting")));
    assert_eq!(house.delete(&cluster("/load-balancers/svc-1")).await.status, 204);
    assert_eq!(house.delete(&cluster("/addresses/svc-1")).await.status, 204);

    let said = house.delete(&cluster("")).await;
    assert_eq!((said.status, &said.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert!(message(&said).contains(PORT), "{}", said.body);
    house.neutron.change(PORT, |port| {
        port["device_id"] = json!("");
        port["device_owner"] = json!("");
    });
    assert_eq!(house.delete(&cluster("")).await.status, 204);
    assert_eq!(house.delete(&cluster("")).await.status, 404);
    assert_eq!(house.neutron.reserved(), 0);
    assert!(house.neutron.pairs(PORT).is_empty());
    assert!(house.balancer.state.lock().unwrap().load_balancers.is_empty());
    assert_eq!(house.neutron.ports.lock().unwrap().len(), 1, "the tenant's own port stays");
    assert_eq!(house.put(&cluster(""), registration()).await.status, 200);
}

#[tokio::test]
async fn a_balancer_that_is_down_is_said_and_frees_nothing() {
    let house = House::with_api().await;
    house.balancer.down.store(true, Ordering::SeqCst);
    let lb = json!({"address": "api", "listeners": [{"protocol": "TCP", "port": 6444, "pool": "masters"}]});
    let said = house.put(&cluster("/load-balancers/api"), lb).await;
    assert_eq!((said.status, &said.body["applied"]), (StatusCode::OK, &json!(false)));
    assert!(said.body["reason"].as_str().unwrap().contains("it is down"), "{}", said.body);
    house.neutron.change(PORT, |port| port["device_id"] = json!(""));
    assert_eq!(house.delete(&cluster("")).await.status, 503);
    assert_eq!(house.neutron.reserved(), 2);
    house.balancer.down.store(false, Ordering::SeqCst);
    assert_eq!(house.delete(&cluster("")).await.status, 204);
}

#[tokio::test]
async fn a_lost_database_does_not_empty_the_balancer() {
    let house = House::with_api().await;
    let held = house.balancer.state.lock().unwrap().clone();
    let other = House::new().await;
    *other.balancer.state.lock().unwrap() = held.clone();
    let view =
        other.service.devices.wait(other.service.devices.signal(), std::time::Duration::from_secs(5)).await;
    let failure = view.devices["memory"].failure.clone().unwrap_or_default();
    assert!(failure.contains("take-over"), "{failure}");
    assert_eq!(*other.balancer.state.lock().unwrap(), held);
}

#[tokio::test]
async fn a_registration_that_broke_off_is_completed_with_the_port_that_was_made() {
    let house = House::new().await;
    let id = DEMO.parse().unwrap();
    let record = ClusterRecord::new(id, ["demo", "demo", "net-1"], "10.240.0.0/16".parse().unwrap());
    let new =
        NewBlock { cluster: id, network: "vips-1".into(), subnet: "sub-4".into(), origin: Origin::Neutron };
    let (range, wish) = (record.pod_range, "203.0.113.16/28".parse().unwrap());
    house.service.store.register(&record, |_| Ok((range, None))).await.unwrap().unwrap();
    let block = house.service.store.intend_block(&new, |_| Ok(wish)).await.unwrap().unwrap();
    house.service.cloud.reserve(&record, &block).await.unwrap();
    assert_eq!(
        house.get(&cluster("")).await.body["cluster"]["vip_blocks"],
        json!([]),
        "not its own before it is kept"
    );
    let said = house.put(&cluster(""), registration()).await;
    assert_eq!(
        said.body["cluster"]["vip_blocks"],
        json!(["203.0.113.16/28", "2001:db8:113::10/124"]),
        "{}",
        said.body
    );
    assert_eq!(house.neutron.reserved(), 2);
}
