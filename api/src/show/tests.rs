use std::collections::BTreeMap;

use ake_api_client::{Address, Affinity, Cluster, Listener, LoadBalancer, Pool, Protocol};

use super::*;

fn state() -> ClusterState {
    let member = Member {
        address: "192.168.77.20".parse().unwrap(),
        mac: "fa:16:3e:00:00:01".into(),
        weight: 1,
        draining: false,
        healthy: Some(false),
        reason: Some("connection refused".into()),
    };
    ClusterState {
        cluster: Cluster {
            id: uuid::Uuid::from_u128(1),
            name: "demo".into(),
            project: "p".into(),
            network: "n".into(),
            pod_range: "10.240.0.0/16".parse().unwrap(),
            pod_range_v6: None,
            vip_blocks: vec!["203.0.113.16/28".parse().unwrap()],
            check_sources: vec![],
            deleting: false,
            kubernetes: Some(uuid::Uuid::from_u128(2)),
        },
        addresses: BTreeMap::from([("api".into(), Address::plain("203.0.113.16".parse().unwrap()))]),
        pools: BTreeMap::from([(
            "masters".into(),
            Pool { members: BTreeMap::from([("m0".into(), member)]), checks: vec![] },
        )]),
        load_balancers: BTreeMap::from([(
            "api".into(),
            LoadBalancer {
                address: "api".into(),
                vip: "203.0.113.16".parse().unwrap(),
                listeners: vec![Listener { protocol: Protocol::Tcp, port: 6443, pool: "masters".into() }],
                source_ranges: vec![],
                affinity: Affinity::None,
                applied: false,
                reason: Some("no answer".into()),
            },
        )]),
        node_ports: BTreeMap::new(),
        lease_transitions: 0,
    }
}

#[test]
fn a_vip_leads_to_its_cluster_and_to_the_member_that_is_down() {
    let text = text("203.0.113.16", &[state()], &[], &View::default()).unwrap();
    for words in [
        "203.0.113.16: cluster demo (00000000-0000-0000-0000-000000000001) of project p",
        "TCP/6443 -> masters; NOT applied: no answer",
        "m0 192.168.77.20 fa:16:3e:00:00:01 weight 1: DOWN: connection refused",
    ] {
        assert!(text.contains(words), "{text}\nlacks {words}");
    }
}

#[test]
fn a_cluster_is_shown_by_name_or_id_and_all_at_once() {
    for about in ["demo", "00000000-0000-0000-0000-000000000001", "all"] {
        let text = text(about, &[state()], &[], &View::default()).unwrap();
        assert!(text.contains("VIP blocks 203.0.113.16/28"), "{text}");
    }
}

#[test]
fn a_retained_address_leads_to_its_project() {
    let retained = Retained {
        address: "203.0.113.40".parse().unwrap(),
        project: "p".into(),
        name: "web".into(),
        about: Some("Service default/web".into()),
        port: None,
        network: String::new(),
        subnet: String::new(),
        going: false,
    };
    for about in ["203.0.113.40", "all"] {
        let text = text(about, &[state()], std::slice::from_ref(&retained), &View::default()).unwrap();
        let words = "203.0.113.40: retained by project p, was web\n  Service default/web\n";
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn what_a_balancer_has_of_a_cluster_that_nobody_knows_is_shown() {
    let mut view = View::default();
    let mut actual = lb_driver::model::State::default();
    for cluster in ["00000000-0000-0000-0000-000000000001", "gone"] {
        let owner = lb_driver::model::Owner::new("p", cluster, "nodes").unwrap();
        actual
            .pools
            .insert(owner, lb_driver::model::Pool { members: BTreeMap::new(), checks: Default::default() });
    }
    let seen = Seen { state: Some(Arc::new(actual)), ..Seen::default() };
    view.devices.insert("https://b".into(), seen);
    let text = text("all", &[state()], &[], &view).unwrap();
    assert!(
        text.contains("1 pools and load balancers of cluster gone, which the database does not know"),
        "{text}"
    );
    assert!(!text.contains("of cluster 0000"), "{text}");
}

#[test]
fn what_is_not_there_is_said() {
    assert!(text("203.0.113.17", &[state()], &[], &View::default()).unwrap().contains("not in use"));
    for about in ["203.0.113.77", "nobody"] {
        let error = text(about, &[state()], &[], &View::default()).unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
    }
}
