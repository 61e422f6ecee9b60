//! The program as it is shipped, in a network of namespaces: direct server return, health, the API and restarts.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{collections::BTreeMap, fs, process::Command};

use lb_driver::{
    diff::diff,
    driver::{Driver, DriverError},
    model::{State, Version},
};
use world::{
    Balancer, MUCH, PORT, VIP, VIP6, World,
    control::{self, Api, certificates, metric, owner, run_program, wanted, write_config},
    eventually,
};

#[test]
fn requests_pass_the_balancer_and_answers_pass_it_by() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    let balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let (m1, m2) = (world.serve("m1"), world.serve("m2"));

    let mut state = wanted();
    api.apply(&state);
    eventually("both members are well", || {
        api.status().pools[&owner("nodes")].members.values().all(|member| member.healthy == Some(true))
    });

    // connections fall as the ring says, and each is counted where it fell
    let mut fell = BTreeMap::<String, u64>::new();
    for round in 0..200 {
        let vip = if round % 2 == 0 { VIP } else { VIP6 };
        let name = world.connect(vip).and_then(|mut client| client.who());
        let name = name.unwrap_or_else(|error| panic!("{round}: {vip}: {error}: {:?}", api.status()));
        *fell.entry(name).or_default() += 1;
    }
    let pool = api.status().pools[&owner("nodes")].clone();
    for (name, count) in &fell {
        let member = &pool.members[name];
        assert_eq!(member.new_flows, *count);
        let expected = 200.0 * f64::from(member.slots) / f64::from(pool.ring_size);
        assert!(
            (*count as f64 - expected).abs() < 5.0 * (expected / 2.0).sqrt(),
            "{name}: {count} of {expected}"
        );
    }

    // a long answer goes by the balancer, a long request through it
    for vip in [VIP, VIP6] {
        let through = |work: &dyn Fn()| {
            let before = [world.bytes("router"), world.bytes("balancer")];
            work();
            let after = [world.bytes("router"), world.bytes("balancer")];
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(station, way)| {
                let of = |counts: [(u64, u64); 2]| [counts[station].0, counts[station].1][way];
                of(after) - of(before)
            })
        };
        let little = MUCH / 10;
        let [to_router, _, to_balancer, from_balancer] =
            through(&|| assert_eq!(world.connect(vip).unwrap().much(), MUCH));
        assert!(
            to_router > MUCH && to_balancer < little && from_balancer < little,
            "{to_balancer} {from_balancer}"
        );
        let [to_router, from_router, to_balancer, from_balancer] = through(&|| {
            let mut client = world.connect(vip).unwrap();
            assert_eq!(client.take().unwrap(), client.who().unwrap());
        });
        assert!(
            from_router > MUCH && to_balancer > MUCH && from_balancer > MUCH,
            "{to_balancer} {from_balancer}"
        );
        assert!(to_router < little, "{to_router}");
    }

    // an echo request is answered by the balancer itself
    for vip in [VIP, VIP6] {
        let client = world.namespace("client");
        let ping =
            Command::new("ip").args(["netns", "exec", &client, "ping", "-c1", "-W2", vip]).output().unwrap();
        assert!(ping.status.success(), "ping {vip}: {}", String::from_utf8_lossy(&ping.stderr));
    }

    // a member whose server stops is taken out, and the reason is told
    let mut open: Vec<_> = (0..40).map(|_| world.connect(VIP).unwrap()).collect();
    let names: Vec<_> = open.iter_mut().map(|client| client.who().unwrap()).collect();
    drop(m2);
    let reason = format!("connection refused on 192.168.77.22:{PORT}");
    eventually("m2 is out", || {
        api.status().pools[&owner("nodes")].members["m2"].reason.as_ref() == Some(&reason)
    });
    for _ in 0..40 {
        assert_eq!(world.connect(VIP).unwrap().who().unwrap(), "m1");
    }
    for (client, name) in open.iter_mut().zip(&names).filter(|(_, name)| *name == "m1") {
        assert_eq!(client.who().unwrap(), *name);
    }
    let shown = run_program(&world, "show", &config).unwrap();
    assert!(shown.contains("m2 192.168.77.22: 0.0 % of new flows"), "{shown}");
    assert!(shown.contains(&reason), "{shown}");
    let m2 = world.serve("m2");
    eventually("m2 is back", || api.status().pools[&owner("nodes")].members["m2"].slots > 0);

    // a restart with nothing changed: no write, and flows go on
    let mut open: Vec<_> = (0..40).map(|_| world.connect(VIP).unwrap()).collect();
    let names: Vec<_> = open.iter_mut().map(|client| client.who().unwrap()).collect();
    let file = world.folder.path().join("balancer.json");
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    balancer.stop();
    assert!(world.connect(VIP).is_ok(), "the data plane stays");
    let balancer = Balancer::start(&world, &config);
    for (client, name) in open.iter_mut().zip(&names) {
        assert_eq!(client.who().unwrap(), *name);
    }
    api.call(async |driver| assert_eq!(diff(&state, &driver.read().await.unwrap()), []));
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
    assert_eq!(metric(&world, "ake_xdp_states_total"), "0");
    assert_eq!(metric(&world, "ake_xdp_state_version"), "1");

    // what the API refuses
    let error = api.call(async |driver| {
        let older = State { version: Version { epoch: 1, number: 0 }, ..state.clone() };
        driver.apply(&older, &[]).await.unwrap_err()
    });
    assert!(matches!(error, DriverError::Stale { held: Version { epoch: 1, number: 1 }, .. }), "{error}");
    let stranger = Api::new(&world, &certificates, &control::certificates());
    let error = stranger.call(async |driver| driver.status().await.unwrap_err());
    assert!(matches!(error, DriverError::Unreachable { .. }), "{error}");
    let impostor = Api::new(&world, &control::certificates(), &certificates);
    let error = impostor.call(async |driver| driver.status().await.unwrap_err());
    assert!(error.to_string().contains("certificate"), "{error}");

    // what goes, goes
    state.version.number += 1;
    state.load_balancers.clear();
    api.apply(&state);
    assert!(world.is_silent(VIP));
    assert!(!balancer.log().contains("ERROR"), "{}", balancer.log());
    drop((m1, m2));
}

#[test]
fn bad_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: String| {
        let file = folder.path().join("xdp.toml");
        fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ake-xdp"))
            .args(["check-config", "--config"])
            .arg(&file)
            .output();
        let output = output.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let certificates = certificates();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in
        [("crt", &certificates.server.0), ("key", &certificates.server.1), ("ca", &certificates.ca)]
    {
        fs::write(path(name), text).unwrap();
    }
    let config = |interface: &str, key: &str| {
        format!(
            "interface = {interface:?}\nlisten = \"127.0.0.1:0\"\n[tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
            path("crt"),
            path(key),
            path("ca")
        )
    };
    for (text, expected) in [
        (config("no-such", "key"), "interface no-such: ".to_owned()),
        (config("lo", "key"), "interface lo: expected one with an Ethernet address".to_owned()),
        (config("lo", "crt"), format!("tls.key = {:?}: expected a private key as PEM", path("crt"))),
        (config("lo", "gone"), format!("tls.key = {:?}: ", path("gone"))),
        ("interface = 3".to_owned(), "invalid type: integer `3`, expected a string".to_owned()),
    ] {
        let error = run(text);
        assert!(error.contains(&expected), "{error}, expected {expected}");
    }
}
