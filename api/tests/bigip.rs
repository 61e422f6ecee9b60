//! The program in front of a pair of BIG-IPs: `ake-api` and the stand-in `ake-bigip` as they are shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod common;
#[path = "../src/http/tests/imitation.rs"]
#[allow(dead_code, reason = "the balancer in memory is for the tests in process")]
mod imitation;
#[allow(dead_code, reason = "each of two tests uses a part of it")]
mod site;

use common::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use site::{Api, NODE, PORT, Pair};

fn on(address: &str, ports: &[u16]) -> Value {
    let listeners: Vec<_> =
        ports.iter().map(|port| json!({"protocol": "TCP", "port": port, "pool": "nodes"})).collect();
    json!({"address": address, "listeners": listeners})
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_load_balancers_are_on_a_pair_of_big_ips() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (cloud, neutron) = imitation::cloud().await;
    let mut pair = Pair::new(folder);
    // what others have on the device
    pair.post("ltm/pool", json!({"name": "theirs", "members": [{"name": "198.51.100.20:80"}]})).await;
    let theirs = json!({"name": "theirs", "destination": "/Common/198.51.100.9:80", "ipProtocol": "tcp",
        "pool": "/Common/theirs"});
    pair.post("ltm/virtual", theirs).await;
    pair.post("sys/config", json!({"command": "save"})).await;
    let theirs = pair.theirs(0).await;

    let mut api = Api::start(folder, &cloud.uri(), &pair).await;
    assert!(api.says("check-config").ends_with("good\n"));
    api.put("", json!({"name": "demo", "network": "net-1"})).await;
    neutron.add(PORT, "demo", NODE, "server-0", &[]);
    api.put("/addresses/web", json!({})).await;
    let check = json!({"type": "http", "port": 10256, "path": "/healthz"});
    api.put("/pools/nodes", json!({"members": {"w0": {"address": NODE}}, "checks": [check]})).await;
    let web = api.put("/load-balancers/web", on("web", &[80, 443])).await;
    assert_eq!(web["applied"], true, "{web}");

    // on the device: FastL4 that translates nothing, on both units
    let virtuals = pair.has(0, "ltm/virtual", "ake-demo").await;
    assert_eq!(virtuals.len(), 2);
    for one in &virtuals {
        assert_eq!(
            (&one["translateAddress"], &one["translatePort"]),
            (&json!("disabled"), &json!("disabled"))
        );
        assert_eq!(one["profilesReference"]["items"][0]["fullPath"], "/ake-demo/npath");
    }
    assert_eq!(pair.has(1, "ltm/virtual", "ake-demo").await, virtuals);
    let members = &pair.has(0, "ltm/pool", "ake-demo").await[0]["membersReference"]["items"];
    assert_eq!(members[0]["fullPath"], format!("/ake-demo/{NODE}:0"));
    assert!(api.says("show").contains("load balancer web on 203.0.113."));

    // health
    for (word, healthy) in [("down", false), ("up", true)] {
        pair.monitors_say(word, NODE);
        eventually(&format!("the member is {word}"), async || {
            (api.state().await["pools"]["nodes"]["members"]["w0"]["healthy"] == healthy).then_some(())
        })
        .await;
    }

    // what is in somebody's way is refused, alone and with the reason, for as long as it is
    let vip = api.put("/addresses/other", json!({})).await["address"].as_str().unwrap().to_owned();
    let squatter =
        json!({"name": "squatter", "destination": format!("/Common/{vip}:443"), "ipProtocol": "tcp"});
    pair.post("ltm/virtual", squatter).await;
    api.put("/load-balancers/other", on("other", &[443])).await;
    let other = eventually("the squatter is named", async || {
        let other = api.state().await["load_balancers"]["other"].take();
        let reason = other["reason"].as_str().unwrap_or_default();
        reason.contains("ltm/virtual /Common/squatter listens there").then_some(other)
    });
    assert_eq!(other.await["applied"], false);
    assert_eq!(api.state().await["load_balancers"]["web"]["applied"], true);
    pair.ask(0, Method::DELETE, "ltm/virtual/~Common~squatter", Value::Null).await;
    api.applied("other").await;

    // the other unit becomes the active one: it is written from then on, and the first one follows
    pair.post("sys/failover", json!({"command": "run", "standby": true})).await;
    api.put("/load-balancers/other", on("other", &[443, 8443])).await;
    api.applied("other").await;
    let virtuals = pair.has(1, "ltm/virtual", "ake-demo").await;
    assert_eq!(virtuals.len(), 4);
    assert_eq!(pair.has(0, "ltm/virtual", "ake-demo").await, virtuals);

    // both start again, with what was saved and without a session; a hand on them is put right
    pair.restart();
    assert_eq!(pair.has(1, "ltm/virtual", "ake-demo").await, virtuals);
    let path = virtuals[0]["fullPath"].as_str().unwrap().replace('/', "~");
    pair.ask(0, Method::PATCH, &format!("ltm/virtual/{path}"), json!({"translatePort": "enabled"})).await;
    eventually("the hand's work is undone", async || {
        let now = pair.has(0, "ltm/virtual", "ake-demo").await;
        now.iter().all(|one| one["translatePort"] == "disabled").then_some(())
    })
    .await;
    api.applied("web").await;

    // and nothing stays
    for path in
        ["/load-balancers/web", "/load-balancers/other", "/pools/nodes", "/addresses/web", "/addresses/other"]
    {
        api.delete(path).await;
    }
    eventually("nothing of the project is left", async || {
        let partitions = pair.ask(0, Method::GET, "auth/partition", Value::Null).await;
        (!partitions.to_string().contains("ake-demo")).then_some(())
    })
    .await;
    for unit in 0..2 {
        assert_eq!(pair.theirs(unit).await, theirs, "unit {unit}");
    }
    api.program.signal("-TERM");
    assert!(api.program.0.wait().unwrap().success());
}
