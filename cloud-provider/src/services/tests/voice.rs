//! Which Services are told what.

use std::{collections::BTreeMap, time::Duration};

use ake_api_client::Family;

use super::{
    super::{
        apply::StepError,
        health::Turn,
        plan::Plan,
        step::Owner,
        view::{Endpoints, IngressView},
        voice::Voice,
    },
    model::{converge, key, node, put_node, service, world},
};
use crate::cluster::{Key, Recorder};

fn said(name: &str, reason: &str) -> (Key, String) {
    (key(name), reason.to_owned())
}

#[test]
fn new_nodes_are_told_on_services_with_pools_of_their_own_alone() {
    let mut world = world();
    for index in 0..5 {
        world.services.insert(key(&format!("web-{index}")), service(&format!("u{index}")));
    }
    let mut local = service("own");
    local.local = true;
    world.services.insert(key("local"), local);
    let at = (key("local"), Family::V4);
    world.endpoints.insert(at.clone(), BTreeMap::from([("w0".into(), Endpoints { ready: 1, ending: 0 })]));
    let (recorder, mut told) = Recorder::kept();
    let mut voice = Voice::new(recorder);
    let steps = converge(&mut world);
    voice.announce(&world, &steps);
    voice.done(&world, &steps);
    let first = told();
    assert_eq!(first.iter().filter(|(_, reason)| reason == "EnsuredLoadBalancer").count(), 6, "{first:?}");
    assert!(!first.iter().any(|(_, reason)| reason == "UpdatedLoadBalancer"), "{first:?}");

    put_node(&mut world, 2, node(2));
    let steps = converge(&mut world);
    voice.done(&world, &steps);
    assert_eq!(told(), [], "all of them share the pool that has it");
    world.endpoints.get_mut(&at).unwrap().insert("w2".into(), Endpoints { ready: 1, ending: 0 });
    let steps = converge(&mut world);
    voice.done(&world, &steps);
    assert_eq!(told(), [said("local", "UpdatedLoadBalancer")]);
}

/// A refusal of ake-api's.
fn refused(step: &str) -> StepError {
    let problem = ake_api_client::Problem { code: "conflict".into(), message: "no room".into(), field: None };
    let error = ake_api_client::Error::Refused {
        method: http::Method::POST,
        path: "/batch".into(),
        status: http::StatusCode::CONFLICT,
        problem: Box::new(problem),
        retry_after: None,
    };
    StepError::Api { step: step.into(), error }
}

#[test]
fn a_shared_pool_that_cannot_be_written_is_told_on_those_that_have_an_address() {
    let mut world = world();
    for index in 0..150 {
        world.services.insert(key(&format!("has-{index:03}")), service(&format!("u{index}")));
        let mut own = service(&format!("own{index}"));
        own.local = true;
        world.services.insert(key(&format!("own-{index:03}")), own);
    }
    world.state.cluster.vip_blocks = vec!["203.0.112.0/22".parse().unwrap()];
    for index in 0..300 {
        // The model's block is small.
        let (name, uid) = if index < 150 { ("has", "u") } else { ("own", "own") };
        let view = world.services.get_mut(&key(&format!("{name}-{:03}", index % 150))).unwrap();
        view.ingress = vec![IngressView { ip: Some([203, 0, 112, 9].into()), plain_vip: true }];
        let pool = if index < 150 { "nodes".to_owned() } else { format!("local-own{}", index % 150) };
        let mut balancer = world.state.load_balancers["api"].clone();
        balancer.listeners[0].pool = pool;
        world.state.load_balancers.insert(format!("svc-{uid}{}", index % 150), balancer);
    }
    world.services.insert(key("waits"), service("w"));
    let (recorder, mut told) = Recorder::kept();
    let voice = Voice::new(recorder);
    voice.failed(&world, &Owner::All, &refused("set pool nodes to w0, w1"));
    let told = told();
    assert_eq!(told[0], said("waits", "SyncLoadBalancerFailed"));
    // Not on all of them, and on none with a pool of its own.
    let rest: Vec<_> = (0..100).map(|n| said(&format!("has-{n:03}"), "UpdateLoadBalancerFailed")).collect();
    assert_eq!(told[1..], rest);
}

#[test]
fn that_no_member_is_well_is_told_on_the_services_behind_it() {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    let mut local = service("own");
    local.local = true;
    world.services.insert(key("local"), local);
    converge(&mut world);
    let (recorder, mut told) = Recorder::kept();
    let voice = Voice::new(recorder);
    for (pool, name) in [("nodes", "web"), ("local-own", "local")] {
        for (down, reason) in [(true, "LoadBalancerMembersDown"), (false, "LoadBalancerMembersUp")] {
            voice.turned(&world, &[Turn { pool: pool.into(), down, message: "m".into() }]);
            assert_eq!(told(), [said(name, reason)]);
        }
    }
}

#[test]
fn what_fails_for_all_is_told_on_those_that_wait() {
    let mut world = world();
    world.services.insert(key("has"), service("u1"));
    converge(&mut world);
    world.services.insert(key("waits"), service("u2"));
    let (recorder, mut told) = Recorder::kept();
    let voice = Voice::new(recorder);
    let failed = |owner| voice.failed(&world, &owner, &StepError::Stale);
    for owner in [Owner::All, Owner::Checks] {
        failed(owner);
        assert_eq!(told(), [said("waits", "SyncLoadBalancerFailed")]);
    }
    failed(Owner::Service("u1".into()));
    assert_eq!(told(), [said("has", "SyncLoadBalancerFailed")]);
    failed(Owner::Nobody);
    assert_eq!(told(), []);
}

#[test]
fn a_balancer_that_starts_again_is_no_news_to_whoever_has_an_address() {
    let mut world = world();
    world.services.insert(key("has"), service("u1"));
    converge(&mut world);
    world.services.insert(key("waits"), service("u2"));
    let (recorder, mut told) = Recorder::kept();
    let mut voice = Voice::new(recorder);
    let waiting = |names: &[&str]| {
        let waiting = names.iter().map(|name| (key(name), Some("no answer".to_owned())));
        Plan { waiting: waiting.collect(), ..Plan::default() }
    };
    for (now, names, expected) in [
        (0, &["has", "waits"][..], &["waits"][..]),
        (9, &["has"], &[]),
        // It was there in between.
        (10, &[], &[]),
        (11, &["has"], &[]),
        (20, &["has"], &[]),
        (21, &["has"], &["has"]),
    ] {
        voice.say(Duration::from_secs(now), &world, &waiting(names));
        let expected: Vec<_> = expected.iter().map(|name| said(name, "SyncLoadBalancerFailed")).collect();
        assert_eq!(told(), expected, "{now}");
    }
}
