//! A member whose program does not answer keeps the connections of a machine that is there. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use lb_driver::model::Check;
use world::{
    Balancer, Client, VIP, VIP6, World,
    control::{Api, certificates, owner, patient, run_program, wanted, write_config},
    eventually,
};

const HEALTH: u16 = 10256;

/// Answers checks, as kube-proxy does, unless it is to keep them waiting; for as long as the test lasts.
fn health(world: &World, member: &'static str, address: &str) -> Arc<AtomicBool> {
    let listener = world.inside(member, || TcpListener::bind((address, HEALTH)).unwrap());
    let slow = Arc::new(AtomicBool::new(false));
    let waits = slow.clone();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if waits.load(Relaxed) {
                kept.push(stream);
                continue;
            }
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    slow
}

#[test]
fn a_slow_program_costs_no_connection_and_a_lost_machine_does() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    patient(&config, 2000);
    let balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let _servers = (world.serve("m1"), world.serve("m2"));
    let _first = health(&world, "m1", "192.168.77.21");
    let slow = health(&world, "m2", "192.168.77.22");
    let mut state = wanted();
    let checks = &mut state.pools.get_mut(&owner("nodes")).unwrap().checks;
    checks.clear();
    checks.insert(Check::Http { port: HEALTH.try_into().unwrap(), path: "/healthz".to_owned() });
    api.apply(&state);
    let slots = |member: &str| api.status().pools[&owner("nodes")].members[member].slots;
    eventually("both are well", || slots("m1") > 0 && slots("m2") > 0);

    let mut clients: Vec<(Client, String)> = (0..60)
        .map(|number| {
            let mut client = world.connect(if number % 2 == 0 { VIP } else { VIP6 }).unwrap();
            let name = client.who().unwrap();
            (client, name)
        })
        .collect();
    assert!(clients.iter().any(|(_, name)| name == "m2"));

    slow.store(true, Relaxed);
    eventually("m2 takes nothing new", || slots("m2") == 0);
    let reason = api.status().pools[&owner("nodes")].members["m2"].reason.clone();
    let expected = format!("no answer from http://192.168.77.22:{HEALTH}/healthz within 2000 ms");
    assert_eq!(reason.as_ref(), Some(&expected));
    for _ in 0..20 {
        assert_eq!(world.connect(VIP).unwrap().who().unwrap(), "m1");
    }
    let go_on = |clients: &mut [(Client, String)]| {
        clients.iter_mut().for_each(|(client, name)| assert_eq!(client.who().unwrap(), *name));
    };
    go_on(&mut clients);
    // a process that begins meanwhile gives it the time for an answer, and finds the machine there
    balancer.stop();
    let _balancer = Balancer::start(&world, &config);
    eventually("m2 was asked", || {
        let reason = api.status().pools[&owner("nodes")].members["m2"].reason.clone();
        reason.is_some_and(|reason| reason.starts_with("no answer"))
    });
    for _ in 0..20 {
        go_on(&mut clients);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    slow.store(false, Relaxed);
    eventually("m2 is well again", || slots("m2") > 0);

    // the balancer is cut off, and takes nobody for lost; what was lost meanwhile it finds out when it is back
    world.ip("switch", "link set balancer nomaster");
    eventually("nobody is heard", || {
        let shown = run_program(&world, "show", &config).unwrap();
        shown.matches(": 0.0 % of new flows").count() == 2
    });
    world.ip("switch", "link set balancer master br0");
    go_on(&mut clients);
    eventually("both are in the ring", || slots("m1") > 0 && slots("m2") > 0);
    world.ip("switch", "link set balancer nomaster");
    eventually("nobody is heard again", || {
        let shown = run_program(&world, "show", &config).unwrap();
        shown.matches(": 0.0 % of new flows").count() == 2
    });
    // a machine that is gone: its connections are reset by the other one, so that clients do not wait for it
    world.ip("switch", "link set m2 nomaster");
    world.ip("switch", "link set balancer master br0");
    let reset = |(client, _): &mut (Client, String)| {
        client.who().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    };
    let mut lost: Vec<_> = clients.extract_if(.., |(_, name)| name == "m2").collect();
    eventually("one is reset", || reset(&mut lost[0]));
    assert!(lost[1..].iter_mut().all(reset));
    go_on(&mut clients);
}
