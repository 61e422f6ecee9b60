//! A VIP is checked by way of each member, as a client's packets would go. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{num::NonZeroU16, process::Command};

use lb_driver::model::{Check, State};
use world::{
    Balancer, PORT, VIP, VIP6, World,
    control::{Api, certificates, metric, owner, patient, run_program, wanted, write_config},
    eventually,
};

/// Lies on the members' link: neighbours would be asked for it, and nobody answers.
const ON_LINK: &str = "192.168.77.117";

fn healthy(api: &Api, member: &str) -> Option<bool> {
    api.status().pools[&owner("nodes")].members[member].healthy
}

fn reason(api: &Api, member: &str) -> Option<String> {
    api.status().pools[&owner("nodes")].members[member].reason.clone()
}

fn writes(world: &World) -> u64 {
    metric(world, "ake_xdp_map_writes_total").parse().unwrap()
}

#[test]
fn a_vip_is_checked_by_way_of_each_member() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    patient(&config, 5000);
    let balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let port = NonZeroU16::new(PORT).unwrap();
    let mut state: State = wanted();
    let checks = &mut state.pools.get_mut(&owner("nodes")).unwrap().checks;
    for vip in [VIP, VIP6, ON_LINK] {
        checks.insert(Check::Vip { vip: vip.parse().unwrap(), port });
    }
    for member in ["m1", "m2"] {
        world.ip(member, &format!("address add {ON_LINK}/32 dev lo"));
    }

    // m2 answers at its own address, and not at the VIPs
    let (_m1, own) = (world.serve("m1"), world.serve_at("m2", "192.168.77.22"));
    api.apply(&state);
    eventually("m1 is well", || healthy(&api, "m1") == Some(true));
    eventually("m2 is not", || healthy(&api, "m2") == Some(false));
    let refused = format!("connection refused on {ON_LINK}:{PORT} by way of 192.168.77.22");
    eventually("for a reason", || reason(&api, "m2") == Some(refused.clone()));
    for _ in 0..20 {
        assert_eq!(world.connect(VIP).unwrap().who().unwrap(), "m1");
    }
    drop(own);
    let server = world.serve("m2");
    eventually("m2 answers at the VIPs", || healthy(&api, "m2") == Some(true));

    // checks are by the MAC address of the state: another one is found out, and one write sets a table right
    let nodes = |state: &mut State, mac: &str| {
        state.version.number += 1;
        let member = state.pools.get_mut(&owner("nodes")).unwrap().members.get_mut("m2").unwrap();
        member.mac = Some(mac.parse().unwrap());
    };
    let before = writes(&world);
    nodes(&mut state, "fa:16:3e:00:00:33");
    api.apply(&state);
    assert_eq!(writes(&world) - before, 2, "where packets go, and where checks go");
    eventually("nobody is there", || healthy(&api, "m2") == Some(false));
    world.ip("m2", "link set eth0 address fa:16:3e:00:00:33");
    eventually("m2 is there", || healthy(&api, "m2") == Some(true));

    // a restart leaves what it needs as it is
    let rules = || {
        let said = |family| {
            let balancer = world.namespace("balancer");
            let said =
                Command::new("ip").args([family, "-netns", &balancer, "rule"]).output().unwrap().stdout;
            String::from_utf8(said).unwrap()
        };
        [said("-4"), said("-6")]
    };
    let before = rules();
    assert!(
        before.iter().all(|rules| rules.matches("fwmark 0x414b0000/0xffff0000").count() == 1),
        "{before:?}"
    );
    balancer.stop();
    let balancer = Balancer::start(&world, &config);
    assert_eq!(rules(), before);
    eventually("checks go on", || healthy(&api, "m1").is_some() && healthy(&api, "m2").is_some());
    assert_eq!((healthy(&api, "m1"), healthy(&api, "m2")), (Some(true), Some(true)));

    // a VIP on the balancer itself would answer the checks
    world.ip("balancer", &format!("address add {VIP}/32 dev lo"));
    eventually("it is found out", || reason(&api, "m2").is_some_and(|reason| reason.contains(VIP)));

    balancer.stop();
    run_program(&world, "detach", &config).unwrap();
    assert!(rules().iter().all(|rules| !rules.contains("fwmark")), "{:?}", rules());
    drop(server);
}
