//! What many nodes at once cost in calls to Neutron, and how many addresses a cluster can have.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{House, PORT, cluster};

const NODES: u8 = 30;

#[tokio::test]
async fn ports_of_many_nodes_are_read_in_lists_and_each_is_written_once() {
    let house = House::registered().await;
    let id = |number: u8| format!("99999999-9999-9999-9999-0000000000{number:02}");
    let mut writes: Vec<Value> = Vec::new();
    for number in 0..NODES {
        let address = format!("192.168.77.{}", 100 + number);
        house.neutron.add(&id(number), "demo", &address, &format!("server-{number}"), &[]);
        let request = json!({"asker": "controller", "vip_blocks": true});
        writes.push(json!({"write": "put-node-port", "port": id(number), "request": request}));
    }
    house.neutron.reads.store(0, Ordering::SeqCst);
    let before = house.neutron.writes();
    let batch = json!({"lease_transitions": 1, "writes": writes});
    let said = house.post(&cluster("/batch"), batch).await;
    assert_eq!(said.status, 200, "{}", said.body);
    assert!((0..NODES).all(|number| house.neutron.pairs(&id(number)).len() == 2), "a block of each family");
    assert_eq!(house.neutron.writes() - before, usize::from(NODES));
    assert_eq!(house.neutron.reads.swap(0, Ordering::SeqCst), 3, "to judge, to refuse early, to write");

    // Another block is one more pair on each of them.
    let before = house.neutron.writes();
    let addresses =
        (0..20).map(|number| json!({"write": "put-address", "name": format!("svc-{number}"), "request": {}}));
    let batch = json!({"lease_transitions": 1, "writes": addresses.collect::<Vec<_>>()});
    assert_eq!(house.post(&cluster("/batch"), batch).await.status, 200);
    assert!((0..NODES).all(|number| house.neutron.pairs(&id(number)).len() == 3));
    assert_eq!(house.neutron.writes() - before, usize::from(NODES) + 1, "and the block's own port");
    assert_eq!(house.neutron.reads.load(Ordering::SeqCst), 2, "for the block, and for its pairs");
}

#[tokio::test]
async fn a_block_that_no_node_could_let_out_is_refused_and_nothing_else_is() {
    let house = House::registered().await;
    let request = json!({"asker": "controller", "pod_ranges": ["10.240.1.0/24"], "vip_blocks": true});
    assert_eq!(house.put(&cluster(&format!("/node-ports/{PORT}")), request).await.status, 200);
    // The pods, a block of IPv6, and eight of IPv4.
    let address = |number| json!({"write": "put-address", "name": format!("svc-{number}"), "request": {}});
    let batch = async |addresses: std::ops::Range<u32>| {
        let writes: Vec<Value> = addresses.map(address).collect();
        house.post(&cluster("/batch"), json!({"lease_transitions": 1, "writes": writes})).await
    };
    let said = batch(0..126).await;
    assert_eq!(said.status, 200, "{}", said.body);
    assert_eq!(house.neutron.pairs(PORT).len(), 10);
    let said = batch(126..130).await;
    assert_eq!((said.status.as_u16(), said.body["code"].as_str()), (409, Some("exhausted")), "{}", said.body);
    let message = said.body["message"].as_str().unwrap();
    assert!(message.contains("all of the cluster's 9 VIP blocks") && message.contains(PORT), "{message}");
    // Those beside it are served, and what is freed is given again.
    assert_eq!(batch(126..128).await.status, 200);
    assert_eq!(batch(128..129).await.status, 409);
    assert_eq!(house.put(&cluster("/pools/nodes"), json!({})).await.status, 200);
    assert_eq!(house.delete(&cluster("/addresses/svc-5")).await.status, 204);
    assert_eq!(batch(128..129).await.status, 200);
    assert_eq!(house.neutron.pairs(PORT).len(), 10);
}
