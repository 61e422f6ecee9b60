//! Two balancers, VRRP between them, and a failover under a thousand connections: with what the instances tell one
//! another of flows none is lost, without it those that the ring does not know. Needs root and keepalived.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{collections::BTreeMap, fs, process::Command, thread, time::Duration};

use lb_driver::model::State;
use world::{
    BALANCER, BALANCER2, Client, VIP, World,
    control::{Api, certificates, owner, run_program, wanted},
    eventually,
    pair::{SHARED, Vrrp, active, start},
};

const CONNECTIONS: usize = 1000;
/// Flows that an instance told the other of, or heard of.
fn flows(world: &World, station: &str, word: &str) -> usize {
    let config = world.folder.path().join(format!("{station}.toml"));
    let shown = run_program(world, "show", &config).unwrap();
    let words: Vec<&str> = shown.split([' ', ',', '\n']).collect();
    words.windows(2).find(|pair| pair[1] == word && pair[0].parse::<usize>().is_ok()).unwrap()[0]
        .parse()
        .unwrap()
}

fn apply(apis: &[Api; 2], state: &State) {
    apis.iter().for_each(|api| api.apply(state));
}

fn open(world: &World) -> Vec<(Client, String)> {
    let open = |_| {
        let mut client = world.connect(VIP).unwrap();
        let name = client.who().unwrap();
        (client, name)
    };
    (0..CONNECTIONS).map(open).collect()
}

/// Connections whose member does not answer any more, by its name, and how many there were.
fn lost(clients: &mut [(Client, String)]) -> BTreeMap<String, (usize, usize)> {
    let mut counts = BTreeMap::<String, (usize, usize)>::new();
    for (client, name) in clients {
        let answers = client.who().is_ok_and(|who| who == *name);
        let count = counts.entry(name.clone()).or_default();
        count.0 += usize::from(!answers);
        count.1 += 1;
    }
    counts
}

#[test]
fn a_failover_loses_no_flow_that_was_told() {
    let limit =
        Command::new("prlimit").arg(format!("--pid={}", std::process::id())).arg("--nofile=16384:").status();
    assert!(limit.unwrap().success());
    let world = World::new();
    let certificates = certificates();
    world.ip("router", &format!("route replace 203.0.113.0/24 via {SHARED}"));
    let _servers = (world.serve("m1"), world.serve("m2"));
    let apis = [BALANCER, BALANCER2].map(|address| Api::of(&world, address, &certificates, &certificates));
    let _vrrp = (Vrrp::start(&world, "balancer", 150), Vrrp::start(&world, "balancer2", 100));
    let nodes = owner("nodes");
    let drain = |state: &mut State, draining| {
        state.version.number += 1;
        state.pools.get_mut(&nodes).unwrap().members.get_mut("m2").unwrap().draining = draining;
        apply(&apis, state);
    };

    let mut state = wanted();
    let nobody = "192.168.77.99";
    for (peers, told) in [([nobody, nobody], false), ([BALANCER2, BALANCER], true)] {
        let balancers = (
            start(&world, &certificates, "balancer", peers[0], ""),
            start(&world, &certificates, "balancer2", peers[1], ""),
        );
        drain(&mut state, false);
        let well = |api: &Api| {
            let status = api.status();
            status.pools[&nodes]
                .members
                .values()
                .all(|member| member.healthy == Some(true) && member.slots > 0)
        };
        eventually("members are well", || apis.iter().all(well));
        eventually("the first one is active", || active(&world, "balancer") == Some(true));
        eventually("the second one is not", || active(&world, "balancer2") == Some(false));

        let mut clients = open(&world);
        // from now on the ring does not know m2's connections, on either of them
        drain(&mut state, true);
        if told {
            eventually("the second one knows them", || {
                let told = flows(&world, "balancer", "told");
                thread::sleep(Duration::from_millis(200));
                let quiet = flows(&world, "balancer", "told") == told;
                quiet && told >= CONNECTIONS && flows(&world, "balancer2", "heard") == told
            });
        }
        world.ip("switch", "link set balancer down");
        eventually("the second one is active", || active(&world, "balancer2") == Some(true));
        let counts = lost(&mut clients);
        println!("failover, flows told: {told}; connections lost of all, by member: {counts:?}");
        assert!(counts["m1"].1 > 300 && counts["m2"].1 > 300, "{counts:?}");
        assert_eq!(counts["m1"].0, 0, "the ring knows them");
        assert_eq!(counts["m2"].0, if told { 0 } else { counts["m2"].1 });
        world.ip("switch", "link set balancer up");
        eventually("the first one is active again", || active(&world, "balancer") == Some(true));
        drop(balancers);
    }
}

#[test]
fn the_example_for_keepalived_is_one() {
    // The program need not be installed here.
    let example =
        include_str!("../keepalived/keepalived.conf").replace("/usr/bin/ake-xdp alive", "/bin/true");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), example).unwrap();
    let checked = Command::new("keepalived").arg("--config-test").arg("--use-file").arg(file.path()).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
