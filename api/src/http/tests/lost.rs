//! The database is lost: what is found again.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::Method;
use lb_driver::driver::Driver;
use serde_json::{Value, json};

use super::{DEMO, House, PORT, cluster, registration};
use crate::{
    cloud::Cloud,
    rebuild::{RebuildError, rebuild},
    store::{Database, Store},
};

/// A cluster with all that there is.
async fn furnished() -> House {
    let house = House::with_api().await;
    house.neutron.add("99999999-9999-9999-9999-999999999992", "demo", "192.168.77.21", "server-1", &[]);
    for (path, body) in [
        ("/addresses/svc-1", json!({})),
        ("/addresses/svc-2", json!({"family": "IPv6"})),
        (
            "/pools/nodes",
            json!({"checks": [{"type": "http", "port": 10256, "path": "/healthz"}, {"type": "vip", "address": "svc-1", "port": 80}],
            "members": {"w0": {"address": "192.168.77.21", "weight": 3, "draining": true}}}),
        ),
        (
            "/load-balancers/svc-1",
            json!({"address": "svc-1", "affinity": "ClientIP", "source_ranges": ["198.51.100.0/24"],
            "listeners": [{"protocol": "TCP", "port": 80, "pool": "nodes"}, {"protocol": "UDP", "port": 53, "pool": "nodes"}]}),
        ),
        (
            "/load-balancers/svc-2",
            json!({"address": "svc-2", "listeners": [{"protocol": "SCTP", "port": 9, "pool": "nodes"}]}),
        ),
        (
            "/node-ports/99999999-9999-9999-9999-999999999992",
            json!({"asker": "controller", "pod_ranges": ["10.240.1.0/24"], "vip_blocks": true}),
        ),
    ] {
        let said = house.put(&cluster(path), body).await;
        assert_eq!(said.status, 200, "{path} {}", said.body);
    }
    let other = "/v1/clusters/33333333-3333-3333-3333-333333333333";
    let said = house.say("eve:other:member", Method::PUT, other, registration()).await;
    assert_eq!(said.status, 200, "{}", said.body);
    house
}

async fn empty(house: &House) -> Store {
    Store::open(&Database::Sqlite(house.folder.path().join("anew.sqlite"))).await.unwrap()
}

async fn run(house: &House, store: &Store) -> Result<String, RebuildError> {
    let cloud = Cloud::new(&house.config).unwrap();
    let drivers: BTreeMap<String, Arc<dyn Driver>> =
        [("memory".to_owned(), Arc::clone(&house.balancer) as Arc<dyn Driver>)].into();
    rebuild(&house.config, &cloud, &drivers, store, &BTreeMap::new(), false).await
}

#[tokio::test]
async fn all_that_serves_is_found_again_and_nothing_is_written() {
    let house = furnished().await;
    let writes = (house.neutron.writes(), house.balancer.writes());
    let anew = empty(&house).await;
    let said = run(&house, &anew).await.unwrap();
    for word in ["2 clusters", DEMO, "10.240.0.0/16", "203.0.113.16/28", "sealed bundles", "3 addresses"] {
        assert!(said.contains(word), "{said}\nlacks {word}");
    }
    let (held, before) = house.service.store.load_all().await.unwrap();
    let (version, after) = anew.load_all().await.unwrap();
    assert!(version.epoch > held.epoch);
    assert_eq!(before.len(), 2);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.wanted, after.wanted);
        assert_eq!(before.pairs, after.pairs);
        let same = |r: &crate::decide::wanted::ClusterRecord| {
            (r.id, r.name.clone(), r.project.clone(), r.network.clone(), r.pod_range, r.blocks.clone())
        };
        assert_eq!(same(&before.record), same(&after.record));
    }
    assert_eq!(house.service.store.blocks(None).await.unwrap(), anew.blocks(None).await.unwrap());
    assert_eq!((house.neutron.writes(), house.balancer.writes()), writes);
    // a second time there is something to lose
    assert!(matches!(run(&house, &anew).await, Err(RebuildError::NotEmpty(2))));
}

#[tokio::test]
async fn retained_addresses_are_found_again_whether_or_not_they_are_adopted() {
    let house = furnished().await;
    let other = "/v1/clusters/22222222-2222-2222-2222-222222222222";
    assert_eq!(house.put(other, registration()).await.status, 200);
    for name in ["one", "two"] {
        let said = house.put(&format!("{other}/addresses/{name}"), json!({"retain": true})).await;
        assert_eq!(said.status, 200, "{}", said.body);
    }
    assert_eq!(house.delete(other).await.status, 204);
    let adopt = json!({"adopt": "203.0.113.48"});
    assert_eq!(house.put(&cluster("/addresses/svc-3"), adopt).await.body["address"], "203.0.113.48");
    let lb = json!({"address": "svc-3", "listeners": [{"protocol": "TCP", "port": 80, "pool": "nodes"}]});
    assert_eq!(house.put(&cluster("/load-balancers/svc-3"), lb).await.status, 200);
    let anew = empty(&house).await;
    let said = run(&house, &anew).await.unwrap();
    assert!(said.contains("address 203.0.113.49 is retained by project demo"), "{said}");
    assert_eq!(anew.retained(None).await.unwrap(), house.service.store.retained(None).await.unwrap());
    let origins = |blocks: Vec<crate::store::BlockRecord>| {
        blocks
            .into_iter()
            .map(|block| (block.block, block.port, block.origin))
            .collect::<std::collections::HashSet<_>>()
    };
    let before = origins(house.service.store.blocks(None).await.unwrap());
    assert_eq!(origins(anew.blocks(None).await.unwrap()), before);
}

#[tokio::test]
async fn without_descriptions_the_nodes_tell_or_the_operator_is_asked() {
    let house = furnished().await;
    for port in house.neutron.ports.lock().unwrap().iter_mut() {
        port["description"] = Value::Null;
        port.as_object_mut().unwrap().remove("description");
    }
    let anew = empty(&house).await;
    let refused = run(&house, &anew).await.unwrap_err().to_string();
    // the other cluster has no node, and nothing on the balancer
    assert!(refused.contains("33333333") && refused.contains("project"), "{refused}");
    assert!(anew.clusters(None).await.unwrap().is_empty());
    house
        .neutron
        .ports
        .lock()
        .unwrap()
        .retain(|port| !port["device_id"].as_str().unwrap().starts_with("33333333"));
    let said = run(&house, &anew).await.unwrap();
    assert!(said.contains("not known: its name"), "{said}");
    let found = anew.clusters(None).await.unwrap();
    assert_eq!(found[0].pod_range.to_string(), "10.240.0.0/16");
    assert!(found[0].network == "net-1" && !PORT.is_empty());
}

#[tokio::test]
async fn a_balancer_that_does_not_answer_stops_it() {
    let house = furnished().await;
    house.balancer.down.store(true, std::sync::atomic::Ordering::SeqCst);
    let anew = empty(&house).await;
    let refused = run(&house, &anew).await.unwrap_err().to_string();
    assert!(refused.contains("memory") && refused.contains("it is down"), "{refused}");
    assert!(anew.clusters(None).await.unwrap().is_empty());
}
