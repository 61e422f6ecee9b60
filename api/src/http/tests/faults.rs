//! Views that are empty by mistake, addresses that were there before, and ranges without Neutron.

use std::{sync::atomic::Ordering, time::Duration};

use axum::http::StatusCode;
use serde_json::json;

use super::{DEMO, House, OTHER, PORT, cluster, message, registration};
use crate::decide::orphans::Sweep;

const VIP_PORT: &str = "99999999-9999-9999-9999-99999999999a";

/// Neutron answers, and its lists are empty: nothing is deleted, forgotten or written anew.
#[tokio::test]
async fn an_empty_view_of_neutron_deletes_nothing() {
    let house = House::with_api().await;
    let state = house.get(&cluster("")).await.body;
    let (ports, device) = (house.neutron.ports.lock().unwrap().clone(), house.balancer.writes());
    house.neutron.blind.store(true, Ordering::SeqCst);

    // somebody asks for the cluster to go, and its server is not to be seen
    let said = house.delete(&cluster("")).await;
    assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE, "{}", said.body);
    assert!(message(&said).contains("none of the 2 ports"), "{}", said.body);
    // the periodic comparison
    house.service.compare_for_tests(DEMO).await;
    // the node's port is gone, says Neutron: what is ours there stays known
    let put = house
        .put(&cluster(&format!("/node-ports/{PORT}")), json!({"asker": "heat", "addresses": ["api"]}))
        .await;
    assert_ne!(put.status, 200);

    house.neutron.blind.store(false, Ordering::SeqCst);
    assert_eq!(*house.neutron.ports.lock().unwrap(), ports);
    assert_eq!(house.balancer.writes(), device);
    let after = house.get(&cluster("")).await.body;
    for part in ["cluster", "addresses", "node_ports", "load_balancers", "pools"] {
        assert_eq!(after[part], state[part], "{part}");
    }
}

/// A port of the service's on the VIP network.
fn strange(house: &House, id: &str, owner: &str, address: &str) {
    house.neutron.add(id, "service", address, OTHER, &[]);
    house.neutron.change(id, |port| {
        port["device_owner"] = json!(owner);
        port["network_id"] = json!("vips-1");
    });
}

fn has(house: &House, id: &str) -> bool {
    house.neutron.ports.lock().unwrap().iter().any(|port| port["id"] == id)
}

/// Ports that say that they are ours and that no row knows.
#[tokio::test]
async fn ports_that_no_row_knows_go_after_two_looks_and_never_many_at_once() {
    let house = House::with_api().await;
    let strange = |id: &str, owner: &str, address: &str| strange(&house, id, owner, address);
    strange("broke-off", "ake:vip-block", "203.0.113.64");
    strange("kept-for-nobody", "ake:vip-retained", "203.0.113.65");
    strange("anothers", "ake:vip-block", "198.51.100.1");
    let has = |id: &str| has(&house, id);
    let at = Duration::from_secs;
    let mut sweep = Sweep::default();
    house.service.sweep_for_tests(&mut sweep, at(0)).await;
    assert!(has("broke-off") && has("kept-for-nobody"));
    house.neutron.blind.store(true, Ordering::SeqCst);
    house.service.sweep_for_tests(&mut sweep, at(200)).await;
    house.neutron.blind.store(false, Ordering::SeqCst);
    house.service.sweep_for_tests(&mut sweep, at(300)).await;
    assert!(has("broke-off"), "it was not seen all the time");
    house.service.sweep_for_tests(&mut sweep, at(600)).await;
    assert_eq!((has("broke-off"), has("kept-for-nobody"), has("anothers")), (false, false, true));
    assert_eq!(house.neutron.reserved(), 3, "the cluster's own, and another installation's");

    for n in 0..21 {
        strange(&format!("many-{n}"), "ake:vip-block", &format!("203.0.113.{}", 100 + n));
    }
    for now in [700, 1000, 1300] {
        house.service.sweep_for_tests(&mut sweep, at(now)).await;
    }
    assert_eq!(house.neutron.reserved(), 24);
    let text = house.service.metrics.text().unwrap();
    for line in ["ake_api_orphans{place=\"neutron\"} 21", "ake_api_orphan_sweep_stopped{place=\"neutron\"} 1"]
    {
        assert!(text.contains(line), "{text}");
    }
}

/// The balancer as it is now, in the view of the service.
async fn looked_at(house: &House) {
    let devices = &house.service.devices;
    devices.wait(devices.signal(), Duration::from_secs(60)).await;
}

/// One that was restored from a copy does not know what was made since.
#[tokio::test]
async fn a_database_older_than_what_balancers_hold_removes_no_port() {
    let house = House::with_api().await;
    strange(&house, "made-since", "ake:vip-block", "203.0.113.64");
    let mut sweep = Sweep::default();
    let mut look = async |now| house.service.sweep_for_tests(&mut sweep, Duration::from_secs(now)).await;
    let said = |line: &str| house.service.metrics.text().unwrap().contains(line);
    let older = |by: i64| {
        let mut held = house.balancer.state.lock().unwrap();
        held.version.number = held.version.number.strict_add_signed(by);
    };
    look(0).await;
    assert!(said("ake_api_orphans{place=\"neutron\"} 1\n"));
    older(1000);
    looked_at(&house).await;
    for now in [300, 600, 900] {
        look(now).await;
    }
    assert!(has(&house, "made-since") && said("ake_api_orphans{place=\"neutron\"} 0\n"));
    // what a balancer that does not answer holds is not known either
    older(-1000);
    house.balancer.down.store(true, Ordering::SeqCst);
    looked_at(&house).await;
    for now in [1200, 1500] {
        look(now).await;
    }
    assert!(has(&house, "made-since"));
    house.balancer.down.store(false, Ordering::SeqCst);
    looked_at(&house).await;
    look(1800).await;
    assert!(has(&house, "made-since"), "it is counted from when it could be told");
    look(2100).await;
    assert!(!has(&house, "made-since"));
}

#[tokio::test]
async fn an_empty_database_removes_no_port() {
    let house = House::new().await;
    looked_at(&house).await;
    house.neutron.add("broke-off", "service", "203.0.113.64", OTHER, &[]);
    house.neutron.change("broke-off", |port| port["device_owner"] = json!("ake:vip-block"));
    let mut sweep = Sweep::default();
    for now in [0, 300, 600] {
        house.service.sweep_for_tests(&mut sweep, Duration::from_secs(now)).await;
    }
    assert_eq!((house.neutron.reserved(), house.neutron.writes()), (1, 0));
}

#[tokio::test]
async fn an_adopted_address_is_a_block_of_its_own_and_stays_the_projects() {
    let house = House::with_api().await;
    house.neutron.add(VIP_PORT, "demo", "203.0.113.200", "", &[]);
    house.neutron.change(VIP_PORT, |port| port["network_id"] = json!("vips-1"));
    let adopt = json!({"adopt": VIP_PORT});
    let said = house.put(&cluster("/addresses/old"), adopt.clone()).await;
    assert_eq!(
        (said.status, &said.body["address"]),
        (StatusCode::OK, &json!("203.0.113.200")),
        "{}",
        said.body
    );
    let again = house.put(&cluster("/addresses/old"), adopt.clone()).await;
    assert_eq!(again.status, 200, "{}", again.body);
    let second = house.put(&cluster("/addresses/other"), adopt.clone()).await;
    assert_eq!(second.status, 409, "{}", second.body);
    let state = house.get(&cluster("")).await.body;
    assert_eq!(
        state["cluster"]["vip_blocks"],
        json!(["203.0.113.16/28", "2001:db8:113::10/124", "203.0.113.200/32"])
    );
    // nodes that may send from the blocks may send from it
    house
        .put(&cluster(&format!("/node-ports/{PORT}")), json!({"asker": "controller", "vip_blocks": true}))
        .await;
    assert!(house.neutron.pairs(PORT).contains(&"203.0.113.200/32".to_owned()));
    house.service.settle_for_tests(DEMO).await;

    // another project's port, and one that is used
    house.neutron.change(VIP_PORT, |port| port["project_id"] = json!("evil"));
    let foreign = house.put(&cluster("/addresses/third"), adopt.clone()).await;
    assert_eq!(foreign.status, 422, "{}", foreign.body);
    house.neutron.change(VIP_PORT, |port| port["project_id"] = json!("demo"));

    assert_eq!(house.delete(&cluster("/addresses/old")).await.status, 204);
    let state = house.get(&cluster("")).await.body;
    assert_eq!(state["cluster"]["vip_blocks"], json!(["203.0.113.16/28", "2001:db8:113::10/124"]));
    assert!(!house.neutron.pairs(PORT).contains(&"203.0.113.200/32".to_owned()));
    assert!(house.neutron.ports.lock().unwrap().iter().any(|port| port["id"] == VIP_PORT), "the port stays");
}

#[tokio::test]
async fn a_plain_range_needs_no_neutron() {
    let plain = |text: String| {
        let text = text.replace("network = \"ake-vips\"\n", "");
        ["v4", "v6"]
            .iter()
            .fold(text, |text, family| text.replace(&format!("subnet = \"ake-vips-{family}\"\n"), ""))
    };
    let house = House::with(plain).await;
    let said = house.put(&cluster(""), registration()).await;
    assert_eq!(
        said.body["cluster"]["vip_blocks"],
        json!(["203.0.113.16/28", "2001:db8:113::10/124"]),
        "{}",
        said.body
    );
    assert_eq!((house.neutron.reserved(), house.neutron.writes()), (0, 0));
    let said = house.put(&cluster("/addresses/api"), json!({})).await;
    assert_eq!(said.body["address"], "203.0.113.16", "{}", said.body);
    house.service.settle_for_tests(DEMO).await;
    assert_eq!(house.delete(&cluster("")).await.status, 204);
    assert_eq!(house.neutron.writes(), 0);
}
