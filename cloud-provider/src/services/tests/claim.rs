//! Which Kubernetes the cluster is.

use ake_api_client::{KubernetesId, is_of_services};

use super::{
    super::{claim::is_due, names, plan::plan, step::Step, wanted::World},
    model::{KUBERNETES, annotated, converge, key, service, world},
};
use crate::services::annotations::{RETAIN, SHARE};

const OTHER: KubernetesId = KubernetesId::from_u128(8);

/// What another Kubernetes with a copied cloud.conf sees of a cluster with one Service.
fn twin(known: Option<KubernetesId>) -> World {
    let mut world = world();
    world.services.insert(key("web"), service("u1"));
    converge(&mut world);
    world.state.cluster.kubernetes = known;
    world.kubernetes = OTHER;
    world.services.remove(&key("web"));
    world.services.insert(key("mine"), service("u2"));
    world
}

#[test]
fn another_kubernetes_plans_nothing_whatever_is_ripe() {
    for known in [Some(KUBERNETES), None] {
        let mut world = twin(known);
        world.ripe.insert("svc-u1".to_owned());
        let plan = plan(&world);
        assert_eq!(plan.steps, []);
        let said = plan.stopped.unwrap();
        for word in [&OTHER.to_string(), "cluster-id", "PUT /v1/clusters/"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(known.is_none_or(|own| said.contains(&own.to_string()) && said.contains("svc-u1")), "{said}");
    }
}

#[test]
fn who_is_known_is_not_named_again_and_nobody_is_who_only_looks_on() {
    let mut world = world();
    assert!(!is_due(&world, true));
    world.kubernetes = OTHER;
    assert_eq!(plan(&world).stopped, None, "nothing of Services is left");
    assert!(!is_due(&world, false) && is_due(&world, true));
    world.state.cluster.kubernetes = None;
    assert!(is_due(&world, false));
}

#[test]
fn where_ake_api_knows_of_none_the_one_that_has_a_service_there_goes_on() {
    let mut world = twin(None);
    world.services.insert(key("web"), service("u1"));
    let plan = plan(&world);
    assert_eq!(plan.stopped, None);
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Write { .. })), "{:?}", plan.steps);
}

#[test]
fn an_address_that_is_kept_for_a_name_keeps_others_off() {
    let mut world = world();
    world.services.insert(key("web"), annotated("u1", &[(RETAIN, "true")]));
    converge(&mut world);
    world.services.get_mut(&key("web")).unwrap().deleting = true;
    converge(&mut world);
    let left = world.state.addresses.keys().find(|name| is_of_services(name)).unwrap().clone();
    assert!(matches!(names::holder(&left), Some(names::Holder::Kept)), "{left}");
    world.kubernetes = OTHER;
    assert!(plan(&world).stopped.unwrap().contains(&left));
}

#[test]
fn all_that_is_made_for_services_alone_is_known_by_its_name() {
    let mut world = world();
    world.services.insert(key("a"), service("u1"));
    let mut local = service("u2");
    local.local = true;
    local.ports[0].port = 81;
    world.services.insert(key("b"), local);
    let mut shared = annotated("u3", &[(SHARE, "k")]);
    shared.ports[0].port = 82;
    world.services.insert(key("c"), shared);
    let heats: Vec<String> = parts(&world);
    converge(&mut world);
    let made: Vec<String> = parts(&world).into_iter().filter(|name| !heats.contains(name)).collect();
    assert!(made.len() > 5, "{made:?}");
    for name in made.iter().filter(|name| !names::is_shared_pool(name)) {
        assert!(is_of_services(name), "{name}");
    }
    assert!(heats.iter().all(|name| !is_of_services(name)), "{heats:?}");
}

fn parts(world: &World) -> Vec<String> {
    let state = &world.state;
    state.addresses.keys().chain(state.load_balancers.keys()).chain(state.pools.keys()).cloned().collect()
}
