//! Views that are empty by mistake, addresses that were there before, and ranges without Neutron.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::json;

use super::{DEMO, House, PORT, cluster, message, registration};

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
        ["v4", "v6"].iter().fold(text, |text, family| {
            text.replace(&format!("network = \"ake-vips\"\nsubnet = \"ake-vips-{family}\"\n"), "")
        })
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
