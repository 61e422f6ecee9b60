//! A network that no Neutron knows: nodes and VIPs by the operator's word alone.

use std::sync::atomic::Ordering;

use axum::http::Method;
use serde_json::{Value, json};

use super::{DEMO, House, OTHER, TOKEN, cluster, message};
use crate::{
    cloud::Cloud,
    rebuild::rebuild,
    store::{Database, Store},
};

/// The example's network is a plain one, with nodes of two projects.
fn plain(example: String) -> String {
    let nodes = |project: &str, range: &str| {
        format!("[[network.nodes]]\nproject = \"{project}\"\nranges = [\"{range}\"]\n")
    };
    let text = example
        .replace("network = \"ake-vips\"\n", "")
        .replace("network = \"provider\"", "network = \"rack-1\"");
    let text = text.replace("subnet = \"ake-vips-v4\"\n", "").replace("subnet = \"ake-vips-v6\"\n", "");
    let text = text.replace("neutron = true", "neutron = false");
    let nodes = nodes("demo", "192.168.77.0/26") + &nodes("other", "192.168.77.64/26");
    text.replace("[device]", &(nodes + "[device]"))
}

async fn made() -> House {
    let house = House::with(plain).await;
    house.neutron.away.store(true, Ordering::SeqCst);
    for (path, body) in [
        ("", json!({"name": "demo", "network": "rack-1"})),
        ("/addresses/web", json!({})),
        (
            "/pools/nodes",
            json!({"members": {"w0": {"address": "192.168.77.20"}}, "checks": [{"type": "tcp", "port": 80}]}),
        ),
        (
            "/load-balancers/web",
            json!({"address": "web", "listeners": [{"protocol": "TCP", "port": 80, "pool": "nodes"}]}),
        ),
    ] {
        let said = house.put(&cluster(path), body).await;
        assert_eq!(said.status, 200, "{path} {}", said.body);
    }
    house
}

#[tokio::test]
async fn a_cluster_lives_and_goes_without_neutron() {
    let house = made().await;
    let said = house.get(&cluster("")).await;
    assert_eq!(said.body["cluster"]["vip_blocks"], json!(["203.0.113.16/28", "2001:db8:113::10/124"]));
    assert_eq!(said.body["load_balancers"]["web"]["applied"], true);
    let member = &said.body["pools"]["nodes"]["members"]["w0"];
    assert_eq!((&member["mac"], &member["address"]), (&json!(""), &json!("192.168.77.20")));
    let held = house.balancer.state.lock().unwrap().clone();
    let members: Vec<_> = held.pools.values().flat_map(|pool| pool.members.values()).collect();
    assert!(members.len() == 1 && members[0].mac.is_none(), "the balancer finds it: {members:?}");
    house.service.settle_for_tests(DEMO).await;
    house.service.sweep_for_tests(&mut Default::default(), std::time::Duration::ZERO).await;
    assert_eq!(house.delete(&cluster("")).await.status, 204);
    assert!(house.balancer.state.lock().unwrap().load_balancers.is_empty());
    assert_eq!(house.neutron.writes(), 0);
}

#[tokio::test]
async fn nodes_are_whose_the_operator_says() {
    let house = made().await;
    let member = json!({"address": "192.168.77.20"});
    let eve = "eve:other:member";
    let theirs = format!("/v1/clusters/{OTHER}");
    for (path, body) in [("", json!({"name": "b", "network": "rack-1"})), ("/pools/nodes", json!({}))] {
        assert_eq!(house.say(eve, Method::PUT, &format!("{theirs}{path}"), body).await.status, 200);
    }
    let path = format!("{theirs}/pools/nodes/members/w0");
    let said = house.say(eve, Method::PUT, &path, member.clone()).await;
    assert!(said.status == 422 && message(&said).contains("192.168.77.20"), "{}", said.body);
    let said = house.say(eve, Method::PUT, &path, json!({"address": "192.168.77.70"})).await;
    assert_eq!(said.status, 200, "{}", said.body);
    let port = "99999999-9999-9999-9999-999999999991";
    for (path, body, words) in [
        (
            "/pools/nodes/members/w0",
            json!({"address": "192.168.77.20", "port": port}),
            "no Neutron knows network rack-1",
        ),
        (&format!("/node-ports/{port}"), json!({"asker": "heat"}), "there is none"),
    ] {
        let said = house.put(&cluster(path), body).await;
        assert!(said.status == 422 && message(&said).contains(words), "{}", said.body);
    }
    let claim = "c".repeat(43);
    let bundle = json!({"claim": claim, "ciphertext": "c2VhbGVk"});
    assert_eq!(house.put(&cluster("/bundles/worker"), bundle).await.status, 204);
    let said =
        house.say_from("192.168.77.20", "", Method::POST, &format!("/v1/claims/{claim}"), json!({})).await;
    assert!(said.status == 403 && message(&said).contains("no Neutron knows"), "{}", said.body);
    let said = house.say(TOKEN, Method::GET, "/v1/addresses", Value::Null).await;
    assert_eq!((said.status.as_u16(), said.body[0]["used"].clone()), (200, json!(true)));
}

#[tokio::test]
async fn a_lost_database_is_made_anew_without_neutron() {
    let house = made().await;
    let anew = Store::open(&Database::Sqlite(house.folder.path().join("anew.sqlite"))).await.unwrap();
    let cloud = Cloud::new(&house.config).unwrap();
    let drivers = [("memory".to_owned(), std::sync::Arc::clone(&house.balancer) as _)].into();
    let pods = [(DEMO.parse().unwrap(), "10.240.0.0/16".parse().unwrap())].into();
    rebuild(&house.config, &cloud, &drivers, &anew, &pods, false).await.unwrap();
    let (_, before) = house.service.store.load_all().await.unwrap();
    let (_, after) = anew.load_all().await.unwrap();
    assert_eq!(after[0].wanted, before[0].wanted);
    assert_eq!(
        after[0].record.blocks,
        before[0].record.blocks[..1],
        "the other has nothing that the balancer holds"
    );
}
