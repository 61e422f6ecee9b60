//! Plans against a model of ake-api, Neutron and Kubernetes.

mod checks;
mod claim;
mod faults;
mod model;
mod nodes;
mod properties;
mod quota;
mod vips;
mod voice;

use std::collections::{BTreeMap, BTreeSet};

use ake_api_client::Family;

use super::{
    apply::{Outcome, StepError},
    plan::{Plan, plan},
    step::{Owner, Step},
    view::{Endpoints, ServiceView},
};
use model::{converge, key, node, put_node, service, world};

fn shown(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_gets_everything_before_its_status() {
    let mut world = world();
    converge(&mut world);
    world.services.insert(key("web"), service("u1"));
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "add the finalizer to Service default/web",
            "reserve address svc-u1",
            "set pool nodes to w0, w1, check HTTP 10256/livez",
            "set load balancer svc-u1: TCP 80 -> nodes",
            "open the security group for tcp 80 from 0.0.0.0/0",
            "publish 203.0.113.18 in the status of Service default/web",
        ]
    );
}

#[test]
fn a_deleted_service_leaves_nothing_and_then_goes() {
    let mut world = world();
    converge(&mut world);
    let before = (world.state.clone(), world.rules.clone());
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().deleting = true;
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "remove load balancer svc-u1",
            "release address svc-u1",
            "remove pool nodes",
            "close the security group for tcp 80 from 0.0.0.0/0",
            "take the finalizer off Service default/web",
        ]
    );
    assert_eq!((world.state, world.rules), before);
}

#[test]
fn a_node_that_joins_costs_one_write_however_many_services_there_are() {
    let mut world = world();
    for index in 0..5 {
        world.services.insert(key(&format!("web-{index}")), service(&format!("u{index}")));
    }
    converge(&mut world);
    put_node(&mut world, 2, node(2));
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "set pool nodes to w0, w1, w2, check HTTP 10256/livez",
            "let port port-2 send from 10.240.2.0/24, the VIP blocks",
        ]
    );
}

#[test]
fn local_services_go_to_nodes_with_endpoints_only() {
    let mut world = world();
    let mut local = service("u1");
    local.local = true;
    world.services.insert(key("web"), local);
    let ready = |ready, ending| Endpoints { ready, ending };
    world.endpoints.insert(
        (key("web"), Family::V4),
        BTreeMap::from([("w1".into(), ready(3, 0)), ("w0".into(), ready(0, 1))]),
    );
    let steps = shown(&converge(&mut world));
    let pool =
        "set pool local-u1 to w0 (draining), w1 (weight 3), check HTTP 30000/healthz, check TCP 80 of svc-u1"
            .to_owned();
    assert!(steps.contains(&pool), "{steps:?}");
    assert!(!world.state.pools.contains_key("nodes"));
}

#[test]
fn another_address_is_given_when_it_is_asked_for() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().load_balancer_ip = Some("203.0.113.25".into());
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "remove load balancer svc-u1",
            "release address svc-u1",
            "reserve address svc-u1 = 203.0.113.25",
            "set load balancer svc-u1: TCP 80 -> nodes",
            "publish 203.0.113.25 in the status of Service default/web",
        ]
    );
}

#[test]
fn what_is_refused_stays_as_it_was() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    let annotation = ("loadbalancer.openstack.org/proxy-protocol".to_owned(), "v2".to_owned());
    world.services.get_mut(&key("web")).unwrap().annotations.extend([annotation]);
    assert_eq!(converge(&mut world), []);
    let findings: Vec<_> =
        plan(&world).findings.iter().map(|(key, finding)| format!("{key}: {finding}")).collect();
    assert_eq!(
        findings,
        [
            "default/web: metadata.annotations[loadbalancer.openstack.org/proxy-protocol] = \"v2\": expected false, or none: \
          direct server return cannot insert a PROXY header; pods see the client's address with \
          externalTrafficPolicy Local"
        ]
    );
}

#[test]
fn an_address_or_family_that_cannot_be_had_is_refused_and_leaves_nothing() {
    for change in [
        |service: &mut ServiceView| service.load_balancer_ip = Some("203.0.113.200".into()),
        |service: &mut ServiceView| service.families = vec![Family::V6],
    ] {
        let mut world = world();
        converge(&mut world);
        let before = world.state.clone();
        let mut refused = service("u1");
        change(&mut refused);
        world.services.insert(key("web"), refused);
        converge(&mut world);
        assert_eq!(world.state, before);
        let findings = plan(&world).findings;
        assert!(
            findings[0].1.refused && findings[0].1.to_string().contains("203.0.113.16/28"),
            "{findings:?}"
        );
    }
}

#[test]
fn the_status_waits_for_the_device() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().ingress.clear();
    let balancer = world.state.load_balancers.get_mut("svc-u1").unwrap();
    balancer.applied = false;
    balancer.reason = Some("no answer".into());
    let Plan { steps, waiting, .. } = plan(&world);
    assert_eq!(steps, []);
    assert_eq!(waiting, BTreeMap::from([(key("web"), Some("no answer".to_owned()))]));
}

#[test]
fn an_empty_view_stops_everything() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    let mut blind = world.clone();
    blind.services.clear();
    let Plan { steps, stopped, .. } = plan(&blind);
    assert!(steps.is_empty() && stopped.is_some());
    let mut blind = world.clone();
    blind.nodes.clear();
    assert_eq!(plan(&blind).steps, []);
}

#[test]
fn what_has_no_service_stays_until_that_is_sure() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.services.remove(&key("web"));
    let Plan { steps, orphans, .. } = plan(&world);
    assert_eq!((steps, &orphans), (Vec::new(), &BTreeSet::from(["svc-u1".to_owned()])));
    world.ripe = orphans;
    let steps = shown(&converge(&mut world));
    assert_eq!(steps[..3], ["remove load balancer svc-u1", "release address svc-u1", "remove pool nodes"]);
}

#[test]
fn a_cluster_on_its_way_out_takes_nothing_new_and_lets_services_go() {
    let mut world = world();
    world.services.insert(key("a"), service("u1"));
    converge(&mut world);
    world.state.cluster.deleting = true;
    world.services.insert(key("b"), service("u2"));
    assert_eq!(converge(&mut world), []);
    world.services.get_mut(&key("a")).unwrap().deleting = true;
    converge(&mut world);
    assert!(!world.services.contains_key(&key("a")));
}

#[test]
fn one_refused_node_does_not_hold_up_services() {
    let mut world = world();
    world.held.insert(Owner::Node("w0".into()));
    let steps = plan(&world).steps;
    let of = |name: &str| steps.iter().any(|step| step.owner() == Owner::Node(name.into()));
    assert!(of("w1") && !of("w0"), "{steps:?}");
}

/// What Neutron or ake-api says no to goes to whom it is for: neither to those beside it nor to all.
#[test]
fn a_refused_rule_for_checks_holds_up_no_service() {
    let mut outcome = Outcome::default();
    let refusal = || StepError::Kubernetes {
        step: "open the security group for tcp 10256 from 192.168.77.2/32".into(),
        error: crate::cluster::Error::Refused {
            verb: "create",
            kind: "Rule".into(),
            name: "tcp 10256".into(),
            code: 409,
            reason: "OverQuota".into(),
            message: "no more".into(),
        },
    };
    for owner in [Owner::Checks, Owner::Nobody, Owner::All, Owner::Service("u2".into())] {
        outcome.failed(owner, refusal());
    }
    assert!(outcome.ended.is_none() && outcome.failed.len() == 4);

    let mut world = world();
    world.held.insert(Owner::Checks);
    world.services.insert(key("web"), service("u1"));
    let steps = shown(&converge(&mut world));
    assert!(!steps.iter().any(|step| step.contains("10256 from")), "{steps:?}");
    let published = "publish 203.0.113.18 in the status of Service default/web";
    assert_eq!(steps.last().map(String::as_str), Some(published));
    // Its time is over.
    world.held.clear();
    assert_eq!(shown(&converge(&mut world)), ["open the security group for tcp 10256 from 192.168.77.2/32"]);
}

#[test]
fn checks_are_let_in_from_sources_of_the_nodes_family_only() {
    let mut world = world();
    world.state.cluster.check_sources.push("fd00:77::2/128".parse().unwrap());
    world.services.insert(key("web"), service("u1"));
    let steps = shown(&converge(&mut world));
    let opened: Vec<_> = steps.iter().filter(|step| step.starts_with("open")).collect();
    assert_eq!(
        opened,
        [
            "open the security group for tcp 80 from 0.0.0.0/0",
            "open the security group for tcp 10256 from 192.168.77.2/32"
        ]
    );
}

#[test]
fn checks_of_nodes_are_let_in_before_there_is_a_service() {
    let mut world = world();
    let steps = shown(&converge(&mut world));
    assert!(
        steps.contains(&"open the security group for tcp 10256 from 192.168.77.2/32".to_owned()),
        "{steps:?}"
    );
    world.services.insert(key("web"), service("u1"));
    let steps = shown(&converge(&mut world));
    let opened: Vec<_> = steps.iter().filter(|step| step.starts_with("open")).collect();
    assert_eq!(opened, ["open the security group for tcp 80 from 0.0.0.0/0"]);
}
