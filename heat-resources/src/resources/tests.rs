use std::collections::BTreeMap;

use ake_api_client::{Cluster, ClusterState, Listener, LoadBalancer, Member, Pool};
use serde_json::json;

use super::*;
use crate::{
    document::Verb,
    plan::{Invalid, Plan, Reclaim, Seen, Step, Volume},
};

const ID: &str = "11111111-2222-3333-4444-555555555555";

fn state() -> ClusterState {
    ClusterState {
        cluster: Cluster {
            id: ID.parse().unwrap(),
            name: "demo".into(),
            project: "p".into(),
            network: "n1".into(),
            pod_range: "10.240.0.0/16".parse().unwrap(),
            pod_range_v6: None,
            vip_blocks: vec!["203.0.113.16/28".parse().unwrap()],
            check_sources: vec!["192.168.77.2/32".parse().unwrap(), "fd00:77::2/128".parse().unwrap()],
            deleting: false,
            kubernetes: None,
        },
        addresses: BTreeMap::new(),
        pools: BTreeMap::new(),
        load_balancers: BTreeMap::new(),
        node_ports: BTreeMap::new(),
        lease_transitions: 0,
    }
}

fn seen(state: ClusterState) -> Seen {
    Seen { first: true, cluster: Some(state), ..Seen::default() }
}

fn resource(kind: &str, properties: Value) -> Box<dyn Resource + Send + Sync> {
    let request = serde_json::from_value(json!({
        "verb": Verb::Create, "type": kind, "resource_id": "r",
        "stack": {"id": ID, "name": "demo", "root_id": ID},
        "cloud": {"auth_url": "http://k/v3", "token": "t", "project_id": "p"},
        "properties": properties,
    }))
    .unwrap();
    match parse(&request).unwrap() {
        Any::Planned(resource) => resource,
        Any::Credentials(_) => panic!("{kind} is planned"),
    }
}

fn registration(kubernetes: Value) -> Box<dyn Resource + Send + Sync> {
    resource(registration::NAME, json!({"name": "demo", "network": "n1", "kubernetes": kubernetes}))
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

fn volume(name: &str, status: &str, reclaim: Reclaim) -> Volume {
    Volume { id: format!("id-{name}"), name: name.into(), status: status.into(), reclaim }
}

#[test]
fn names_of_types_and_properties_are_their_own() {
    let types = types();
    let mut names: Vec<_> = types.iter().map(|t| t.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), types.len());
    for kind in &types {
        let mut names: Vec<_> = kind.properties.iter().map(|p| p.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), kind.properties.len(), "{}", kind.name);
        assert!(!kind.description.is_empty());
    }
}

#[test]
fn an_unknown_type_is_refused_with_those_that_are_known() {
    let request = serde_json::from_value(json!({
        "verb": "create", "type": "AKE::LB::Vip", "resource_id": "r",
        "stack": {"id": ID, "name": "demo", "root_id": ID}, "cloud": {"auth_url": "k", "token": "t", "project_id": "p"},
    }))
    .unwrap();
    let error = parse(&request).err().unwrap().to_string();
    assert!(error.contains("AKE::LB::Vip") && error.contains("AKE::LB::VIP"), "{error}");
}

#[test]
fn a_cluster_is_registered_once() {
    let resource = registration(json!({}));
    let plan = resource.wanted(&Seen { first: true, ..Seen::default() }).unwrap();
    assert_eq!(shown(&plan), ["register cluster demo"]);
    assert_eq!(resource.wanted(&seen(state())).unwrap(), Plan::default());
}

#[test]
fn a_registration_shows_what_its_cluster_was_given() {
    let attributes = registration(json!({"service_range": "10.97.0.0/16", "cluster_dns": "10.97.0.10"}))
        .attributes(&seen(state()));
    assert_eq!(attributes["id"], ID);
    assert_eq!(attributes["check_sources_v6"], json!(["fd00:77::2/128"]));
    assert_eq!(attributes["kubernetes"]["service_range"], "10.97.0.0/16");
    let names: Vec<_> = registration::schema().attributes.iter().map(|a| a.name).collect();
    assert!(attributes.keys().all(|name| names.contains(&name.as_str())));
    assert_eq!(attributes.len(), names.len());
}

#[test]
fn ranges_are_in_the_order_of_the_families() {
    let resource = registration(json!({"ip_families": ["IPv6", "IPv4"]}));
    let without = resource.wanted(&seen(state())).unwrap_err().to_string();
    assert!(without.contains("kubernetes.ip_families") && without.contains("pod_pool_v6"), "{without}");
    let mut dual = state();
    dual.cluster.pod_range_v6 = Some("fd00:240:0:100::/56".parse().unwrap());
    assert_eq!(resource.wanted(&seen(dual.clone())).unwrap(), Plan::default());
    let attributes = resource.attributes(&seen(dual.clone()));
    assert_eq!(attributes["pod_ranges"], json!(["fd00:240:0:100::/56", "10.240.0.0/16"]));
    assert_eq!(attributes["service_ranges"], json!(["fd00:96::/112", "10.96.0.0/16"]));
    let attributes = registration(json!({})).attributes(&seen(dual));
    assert_eq!(attributes["pod_ranges"], json!(["10.240.0.0/16"]));
}

#[test]
fn kubernetes_options_are_checked_by_name() {
    for (options, field) in [
        (
            json!({"service_range": "10.96.0.0"}),
            "kubernetes.service_range: 10.96.0.0: expected a prefix length",
        ),
        (json!({"service_range": "10.96.0.1/16"}), "expected the range's first address, 10.96.0.0/16"),
        (json!({"service_range": "x"}), "kubernetes.service_range: x: expected a range"),
        (
            json!({"service_range_v6": "10.0.0.0/16"}),
            "kubernetes.service_range_v6: 10.0.0.0/16: expected a range",
        ),
        (json!({"service_range_v6": "fd00::/64"}), "expected a prefix length from 108 to 120"),
        (json!({"ip_families": ["IPv6"]}), "kubernetes.ip_families: IPv6: expected [IPv4]"),
        (json!({"ip_families": ["IPv4", "IPv4"]}), "kubernetes.ip_families: IPv4, IPv4: expected [IPv4]"),
        (json!({"cluster_dns": "10.97.0.10"}), "kubernetes.cluster_dns: 10.97.0.10: expected an address"),
    ] {
        let error = registration(options).wanted(&Seen::default()).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn a_cluster_that_goes_takes_its_time() {
    let resource = registration(json!({}));
    assert_eq!(shown(&resource.unwanted(&seen(state()))), ["mark the cluster as going away"]);

    let mut going = state();
    going.cluster.deleting = true;
    let servers = Seen { servers: vec!["s1".into()], ..seen(going.clone()) };
    let plan = resource.unwanted(&servers);
    assert!(plan.steps.is_empty() && plan.wait.unwrap().reason.contains("s1"));

    let volumes = Seen {
        volumes: vec![
            volume("a", "available", Reclaim::Delete),
            volume("b", "in-use", Reclaim::Delete),
            volume("c", "available", Reclaim::Retain),
        ],
        ..seen(going.clone())
    };
    assert_eq!(shown(&resource.unwanted(&volumes)), ["delete volume id-a"]);

    let busy = Seen { volumes: volumes.volumes[1..].to_vec(), ..seen(going.clone()) };
    let plan = resource.unwanted(&busy);
    assert!(plan.steps.is_empty() && plan.wait.unwrap().reason.contains("b (id-b) is in-use"));

    let kept = Seen { volumes: volumes.volumes[2..].to_vec(), ..seen(going.clone()) };
    let plan = resource.unwanted(&kept);
    assert_eq!(shown(&plan), ["forget the cluster"]);
    assert!(plan.event.unwrap().contains("c (id-c): reclaim policy Retain"));

    let snapshots = Reclaim::Refused("it has snapshots".into());
    let refused = Seen { volumes: vec![volume("a", "available", snapshots)], ..seen(going.clone()) };
    let plan = resource.unwanted(&refused);
    assert_eq!(shown(&plan), ["forget the cluster"]);
    assert!(plan.event.unwrap().contains("a (id-a): it has snapshots"));

    assert_eq!(resource.unwanted(&Seen::default()), Plan::default());
}

#[test]
fn a_cluster_that_is_going_is_not_made_again() {
    let mut going = state();
    going.cluster.deleting = true;
    let error = registration(json!({})).wanted(&seen(going)).unwrap_err();
    assert!(error.to_string().contains("not going away"), "{error}");
}

#[test]
fn an_address_is_asked_for_once_and_freed_once() {
    let vip = resource(vip::NAME, json!({"cluster": ID, "name": "api"}));
    assert_eq!(shown(&vip.wanted(&seen(state())).unwrap()), ["reserve address api"]);
    let mut with = state();
    with.addresses.insert("api".into(), ake_api_client::Address::plain("203.0.113.17".parse().unwrap()));
    assert_eq!(vip.wanted(&seen(with.clone())).unwrap(), Plan::default());
    assert_eq!(vip.attributes(&seen(with.clone()))["address"], "203.0.113.17");
    assert_eq!(shown(&vip.unwanted(&seen(with.clone()))), ["free address api"]);
    assert_eq!(vip.unwanted(&seen(state())), Plan::default());

    let other = resource(vip::NAME, json!({"cluster": ID, "name": "api", "address": "203.0.113.18"}));
    assert!(matches!(other.wanted(&seen(with)), Err(Invalid { field, .. }) if field == "address"));
}

#[test]
fn an_address_is_adopted_and_outlives_its_resource_where_that_is_said() {
    let vip = |more: Value| {
        let mut properties = json!({"cluster": ID, "name": "api"});
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource(vip::NAME, properties)
    };
    let port = "99999999-9999-9999-9999-999999999991";
    for (adopt, address) in [("203.0.113.40", Some("203.0.113.40")), (port, None)] {
        let plan = vip(json!({"adopt": adopt, "retain": true})).wanted(&seen(state())).unwrap();
        let [Step::PutAddress(name, request)] = plan.steps.as_slice() else { panic!("{plan:?}") };
        let asked = request.address.map(|address| address.to_string());
        assert_eq!(
            (name.as_str(), request.adopt.as_deref(), request.retain),
            ("api", Some(adopt), Some(true))
        );
        assert_eq!(asked.as_deref(), address);
    }
    let contradicts = vip(json!({"adopt": "203.0.113.40", "address": "203.0.113.41"})).wanted(&seen(state()));
    assert!(matches!(contradicts, Err(Invalid { field, .. }) if field == "address"));

    let mut with = state();
    with.addresses.insert("api".into(), ake_api_client::Address::plain("203.0.113.17".parse().unwrap()));
    let other = vip(json!({"adopt": "203.0.113.40"})).wanted(&seen(with.clone()));
    assert!(matches!(other, Err(Invalid { field, .. }) if field == "address"));
    let retained = vip(json!({"retain": true}));
    let plan = retained.wanted(&seen(with.clone())).unwrap();
    assert!(matches!(plan.steps.as_slice(), [Step::PutAddress(_, request)] if request.retain == Some(true)));
    with.addresses.get_mut("api").unwrap().retained = true;
    assert_eq!(retained.wanted(&seen(with.clone())).unwrap(), Plan::default());
    let goes = retained.unwanted(&seen(with.clone()));
    assert!(goes.steps.is_empty() && goes.event.unwrap().contains("203.0.113.17"));
    let plan = vip(json!({})).wanted(&seen(with)).unwrap();
    assert!(matches!(plan.steps.as_slice(), [Step::PutAddress(_, request)] if request.retain == Some(false)));
}

fn balancer() -> Box<dyn Resource + Send + Sync> {
    resource(
        load_balancer::NAME,
        json!({
            "cluster": ID, "name": "api", "address": "api",
            "listeners": [{"protocol": "TCP", "port": 6443, "pool": "masters"}],
            "pools": [{"name": "masters", "check": {"type": "tcp", "port": 6443}}],
        }),
    )
}

fn with_balancer(applied: bool) -> ClusterState {
    let mut state = state();
    let checks = vec![ake_api_client::Check::Tcp { port: 6443 }];
    state.pools.insert("masters".into(), Pool { members: BTreeMap::new(), checks });
    state.load_balancers.insert(
        "api".into(),
        LoadBalancer {
            address: "api".into(),
            vip: "203.0.113.17".parse().unwrap(),
            listeners: vec![Listener {
                protocol: ake_api_client::Protocol::Tcp,
                port: 6443,
                pool: "masters".into(),
            }],
            source_ranges: vec![],
            affinity: ake_api_client::Affinity::None,
            applied,
            reason: (!applied).then(|| "connection refused".to_owned()),
        },
    );
    state
}

#[test]
fn a_load_balancer_is_complete_when_the_device_has_it() {
    let balancer = balancer();
    let plan = balancer.wanted(&seen(state())).unwrap();
    assert_eq!(shown(&plan), ["write pool masters", "write load balancer api"]);
    let plan = balancer.wanted(&seen(with_balancer(false))).unwrap();
    assert!(plan.steps.is_empty() && plan.wait.unwrap().reason.contains("connection refused"));
    assert_eq!(balancer.wanted(&seen(with_balancer(true))).unwrap(), Plan::default());
    let plan = balancer.unwanted(&seen(with_balancer(true)));
    assert_eq!(shown(&plan), ["remove load balancer api", "remove pool masters"]);
}

#[test]
fn listeners_and_checks_that_make_no_sense_are_refused() {
    let twice = resource(
        load_balancer::NAME,
        json!({"cluster": ID, "name": "a", "address": "a", "listeners": [
            {"protocol": "TCP", "port": 80, "pool": "x"}, {"protocol": "TCP", "port": 80, "pool": "y"}]}),
    );
    let error = twice.wanted(&seen(state())).unwrap_err().to_string();
    assert!(error.starts_with("listeners.1.port: 80: "), "{error}");
    let path = resource(
        load_balancer::NAME,
        json!({"cluster": ID, "name": "a", "address": "a", "listeners": [],
            "pools": [{"name": "x", "check": {"type": "tcp", "port": 80, "path": "/"}}]}),
    );
    let error = path.wanted(&seen(state())).unwrap_err().to_string();
    assert!(error.starts_with("pools.0.check.path: /: "), "{error}");
}

#[test]
fn a_member_may_answer_before_it_is_asked() {
    let member = resource(
        member::NAME,
        json!({"cluster": ID, "pool": "masters", "name": "demo-master-0", "address": "192.168.77.20",
            "port": "p1", "addresses": ["api"]}),
    );
    let plan = member.wanted(&seen(with_balancer(true))).unwrap();
    assert_eq!(
        shown(&plan),
        ["have address pairs put on port p1", "write member demo-master-0 of pool masters"]
    );
    assert!(matches!(&plan.steps[1], Step::PutMember(_, _, request) if request.weight == 1));

    let mut with = with_balancer(true);
    let kept = Member {
        address: "192.168.77.20".parse().unwrap(),
        mac: "fa:16:3e:00:00:01".into(),
        weight: 1,
        draining: false,
        healthy: None,
        reason: None,
    };
    with.pools.get_mut("masters").unwrap().members.insert("demo-master-0".into(), kept);
    with.node_ports.insert("p1".into(), ake_api_client::NodePort::default());
    let again = Seen { first: false, ..seen(with.clone()) };
    assert_eq!(member.wanted(&again).unwrap(), Plan::default());
    let plan = member.unwanted(&seen(with));
    assert_eq!(
        shown(&plan),
        ["remove member demo-master-0 of pool masters", "have address pairs taken off port p1"]
    );
}

#[test]
fn cleanup_waits_for_the_services_load_balancers_only() {
    let cleanup = resource(cleanup::NAME, json!({"cluster": ID}));
    assert_eq!(shown(&cleanup.unwanted(&seen(with_balancer(true)))), ["mark the cluster as going away"]);
    let mut going = with_balancer(true);
    going.cluster.deleting = true;
    assert_eq!(cleanup.unwanted(&seen(going.clone())), Plan::default());
    let service = going.load_balancers["api"].clone();
    going.load_balancers.insert("svc-1".into(), service);
    let wait = cleanup.unwanted(&seen(going)).wait.unwrap();
    assert!(wait.reason.contains("svc-1") && !wait.reason.contains("api"), "{}", wait.reason);
}

#[test]
fn the_reference_page_names_every_property() {
    let types = types();
    let page = crate::markdown::page(&types);
    for kind in &types {
        assert!(page.contains(&format!("## {}", kind.name)));
        for property in &kind.properties {
            assert!(page.contains(&format!("| `{}` |", property.name)), "{}", property.name);
        }
    }
}

#[test]
fn the_reference_page_in_docs_is_up_to_date() {
    let kept = include_str!("../../../docs/reference/heat-resources.md");
    let how = "ake-heat schema --markdown >docs/reference/heat-resources.md";
    assert!(kept == crate::markdown::page(&types()), "write it again: {how}");
}
