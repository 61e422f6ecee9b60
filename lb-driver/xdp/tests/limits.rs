//! A balancer that cannot hold all that is wanted: what does not fit is refused by its name, the rest is served. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{collections::BTreeMap, fs, path::Path};

use lb_driver::{
    diff::diff,
    driver::{Driver as _, DriverError},
    fit::{Fitted, Reason, fit_to},
    model::{LoadBalancer, Owner, State},
};
use world::{
    Balancer, VIP, VIP6, World,
    control::{Api, certificates, owner, wanted, write_config_of},
    eventually,
};

const FITS: usize = 16;
const SMALL: &str = "listeners = 16\npools = 16\nmembers = 16\nsource_ranges = 16";

/// As `ake-api` does: reads, fits, plans, applies.
fn reconcile(api: &Api, wanted: &State) -> Result<Fitted, DriverError> {
    api.call(async |driver| {
        let actual = driver.read().await?;
        let fitted = fit_to(driver, wanted, &actual);
        driver.apply(&fitted.state, &diff(&fitted.state, &actual)).await?;
        Ok(fitted)
    })
}

/// As many load balancers more, each with a VIP and a source range of its own.
fn crowd(of: usize, net: u8) -> BTreeMap<Owner, LoadBalancer> {
    let one = wanted().load_balancers.remove(&owner("four")).unwrap();
    let balancer = |number: usize| {
        let vip = [203, 0, net, u8::try_from(number).unwrap()].into();
        let source_ranges = [format!("10.{net}.{number}.0/24").parse().unwrap()].into();
        (owner(&format!("more-{number:02}")), LoadBalancer { vip, source_ranges, ..one.clone() })
    };
    (0..of).map(balancer).collect()
}

fn serves(world: &World) {
    eventually("both VIPs answer", || [VIP, VIP6].iter().all(|vip| world.connect(vip).is_ok()));
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_the_rest_is_served() {
    let world = World::new();
    let certificates = certificates();
    let small = write_config_of(&world, &certificates, "balancer", SMALL);
    let balancer = Balancer::start(&world, &small);
    let api = Api::new(&world, &certificates, &certificates);
    let _servers = (world.serve("m1"), world.serve("m2"));
    let mut state = wanted();
    assert_eq!(reconcile(&api, &state).unwrap().refused, BTreeMap::new());

    state.version.number += 1;
    state.load_balancers.extend(crowd(20, 120));
    let refused = |fitted: Fitted| {
        let full = vec![Reason::Full("load balancers", FITS)];
        assert!(fitted.refused.values().all(|reasons| *reasons == full), "{:?}", fitted.refused);
        fitted.refused.into_keys().map(|owner| owner.object().to_owned()).collect::<Vec<_>>()
    };
    let names = ["more-14", "more-15", "more-16", "more-17", "more-18", "more-19"];
    assert_eq!(refused(reconcile(&api, &state).unwrap()), names, "whoever is there stays");
    assert_eq!(api.status().load_balancers.len(), FITS);
    serves(&world);

    // other limits are told by the next status
    balancer.stop();
    let large = write_config_of(&world, &certificates, "balancer", "");
    let balancer = Balancer::start(&world, &large);
    api.status();
    state.version.number += 1;
    assert_eq!(reconcile(&api, &state).unwrap().refused, BTreeMap::new());
    balancer.stop();

    // and nobody need have asked: a refusal is reason enough to ask
    fs::remove_file(world.folder.path().join("balancer.json")).unwrap();
    let small = write_config_of(&world, &certificates, "balancer", SMALL);
    let _balancer = start_anew(&world, &small);
    state.version.number += 1;
    let error = reconcile(&api, &state).unwrap_err();
    assert!(error.to_string().contains("limits.listeners is 16"), "{error}");
    assert_eq!(refused(reconcile(&api, &state).unwrap()).len(), 6);
}

/// Where nothing is left of the one before.
fn start_anew(world: &World, config: &Path) -> Balancer {
    world::control::run_program(world, "detach", config).unwrap();
    Balancer::start(world, config)
}

#[test]
fn a_full_one_takes_a_state_that_replaces_everything() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config_of(&world, &certificates, "balancer", SMALL);
    let _balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let mut state = State { load_balancers: crowd(FITS, 120), ..wanted() };
    api.apply(&state);
    state.version.number += 1;
    state.load_balancers = crowd(FITS, 121);
    api.apply(&state);
}
