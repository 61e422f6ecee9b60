//! VIPs on the link of a pair: neighbours are told when the other instance becomes active, and one on standby answers
//! nobody. Needs root and keepalived.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{fs, process::Command, time::Duration};

use world::{
    BALANCER, BALANCER2, Client, STATIONS, VIP, VIP6, World,
    control::{Api, certificates, owner, run_program, wanted},
    eventually,
    pair::{Vrrp, active, start},
};

const ON_LINK: &str = "on_link = [\"203.0.113.0/24\", \"2001:db8:113::/112\"]";
/// The neighbour.
const NEIGHBOUR: &str = "router";
const CONNECTIONS: usize = 20;

/// What a command of `ip` says in a station.
fn said(world: &World, station: &str, arguments: &str) -> String {
    let output = Command::new("ip")
        .args(["-netns", &world.namespace(station)])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the neighbour sends what is for the VIPs to this balancer.
fn goes_to(world: &World, station: &str) -> bool {
    let mac = STATIONS.iter().find(|found| found.0 == station).unwrap().3;
    let table = said(world, NEIGHBOUR, "neighbour show dev eth0");
    [VIP, VIP6].iter().all(|vip| {
        let mut lines = table.lines();
        lines.any(|line| line.split(' ').next() == Some(vip) && line.contains(mac))
    })
}

fn forget(world: &World) {
    for vip in [VIP, VIP6] {
        said(world, NEIGHBOUR, &format!("neighbour delete {vip} dev eth0"));
    }
}

fn connect(world: &World, vip: &str) -> std::io::Result<Client> {
    world.connect_from(NEIGHBOUR, vip, Duration::from_secs(2))
}

/// A world whose router has the VIPs on its link, and asks nobody again for an hour.
fn world_on_link() -> World {
    let world = World::new();
    world.ip(NEIGHBOUR, "route replace 203.0.113.0/24 dev eth0");
    world.ip(NEIGHBOUR, "route replace 2001:db8:113::/112 dev eth0");
    world.inside(NEIGHBOUR, || {
        for family in ["ipv4", "ipv6"] {
            let file = format!("/proc/sys/net/{family}/neigh/eth0/base_reachable_time_ms");
            fs::write(file, "3600000").unwrap();
        }
    });
    world
}

#[test]
fn neighbours_follow_a_failover() {
    let world = world_on_link();
    let certificates = certificates();
    let _servers = (world.serve("m1"), world.serve("m2"));
    let apis = [BALANCER, BALANCER2].map(|address| Api::of(&world, address, &certificates, &certificates));
    let _vrrp = (Vrrp::start(&world, "balancer", 150), Vrrp::start(&world, "balancer2", 100));
    let first = start(&world, &certificates, "balancer", BALANCER2, ON_LINK);
    let _second = start(&world, &certificates, "balancer2", BALANCER, ON_LINK);
    apis.iter().for_each(|api| api.apply(&wanted()));
    eventually("the first one is active", || active(&world, "balancer") == Some(true));
    eventually("the second one is not", || active(&world, "balancer2") == Some(false));
    let well = |api: &Api| {
        let pools = api.status().pools;
        pools[&owner("nodes")].members.values().all(|member| member.healthy == Some(true) && member.slots > 0)
    };
    eventually("members are well", || apis.iter().all(well));

    // whoever has to ask is answered by one of them
    for _ in 0..5 {
        forget(&world);
        eventually("both VIPs answer", || [VIP, VIP6].iter().all(|vip| connect(&world, vip).is_ok()));
        assert!(goes_to(&world, "balancer"), "{}", said(&world, NEIGHBOUR, "neighbour show dev eth0"));
    }
    let open = |vip| (0..CONNECTIONS).map(move |_| vip);
    let connected = open(VIP).chain(open(VIP6)).map(|vip| {
        let mut client = connect(&world, vip).unwrap();
        let name = client.who().unwrap();
        (client, name)
    });
    let mut clients: Vec<(Client, String)> = connected.collect();
    let mut go_on = || clients.iter_mut().all(|(client, name)| client.who().is_ok_and(|who| who == *name));
    assert!(go_on());

    // cut off without a word, the first one goes on as the active one; once it is back, the second one yields
    for (change, comes) in [("nomaster", "balancer2"), ("master br0", "balancer")] {
        world.ip("switch", &format!("link set balancer {change}"));
        eventually("the neighbour sends to the other one", || goes_to(&world, comes));
        assert!(go_on(), "after {comes} became active");
        assert!(connect(&world, VIP).is_ok() && connect(&world, VIP6).is_ok());
    }

    // a data plane that its program left answers on, until it is told that another instance does
    first.crash();
    forget(&world);
    assert!(go_on(), "without its program");
    run_program(&world, "stand-down", &world.folder.path().join("balancer.toml")).unwrap();
    forget(&world);
    assert!(connect(&world, VIP).is_err() && connect(&world, VIP6).is_err());
}

#[test]
fn groups_are_joined_and_addresses_defended() {
    let world = world_on_link();
    let certificates = certificates();
    let api = Api::new(&world, &certificates, &certificates);
    let _balancer = start(&world, &certificates, "balancer", BALANCER2, ON_LINK);
    let groups = || said(&world, "balancer", "-6 maddress show dev eth0");
    assert!(!groups().contains("ff02::1:ff00:17"));
    world.ip("balancer", "address add 192.168.77.4/32 dev eth0");
    let mut state = wanted();
    api.apply(&state);
    eventually("the group of the VIP is joined", || groups().contains("ff02::1:ff00:17"));
    eventually("it is active", || active(&world, "balancer") == Some(true));

    world.inside(NEIGHBOUR, || fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "1").unwrap());
    let take = || {
        world.ip(NEIGHBOUR, &format!("address add {VIP6}/128 dev eth0"));
        let state = || said(&world, NEIGHBOUR, "-6 address show dev eth0");
        eventually("the address was tried", || {
            !state().contains(" tentative") || state().contains("dadfailed")
        });
        let failed = state().contains("dadfailed");
        world.ip(NEIGHBOUR, &format!("address delete {VIP6}/128 dev eth0"));
        failed
    };
    assert!(take(), "the VIP was taken");
    state.version.number += 1;
    state.load_balancers.retain(|_, balancer| balancer.vip.is_ipv4());
    api.apply(&state);
    eventually("the group is left", || !groups().contains("ff02::1:ff00:17"));
    assert!(!take(), "nobody has the address");
}
