//! Members whose MAC address the state does not tell are found on the link. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::fs;

use world::{
    Balancer, VIP, World,
    control::{Api, certificates, metric, owner, wanted, write_config},
    eventually,
};

#[test]
fn mac_addresses_are_learned_on_the_link() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("learn = true\n{text}")).unwrap();
    let balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let _servers = (world.serve("m1"), world.serve("m2"));
    let nodes = owner("nodes");
    let mut state = wanted();
    let pool = state.pools.get_mut(&nodes).unwrap();
    // nobody is asked anything but its MAC address
    pool.checks.clear();
    pool.members.values_mut().for_each(|member| member.mac = None);
    let nobody =
        lb_driver::model::Member { address: [192, 168, 77, 29].into(), ..pool.members["m1"].clone() };
    pool.members.insert("nobody".to_owned(), nobody);
    api.apply(&state);
    let slots = |name: &str| api.status().pools[&nodes].members[name].slots;
    let writes = || metric(&world, "ake_xdp_map_writes_total").parse::<u64>().unwrap();

    eventually("members are found", || slots("m1") > 0 && slots("m2") > 0);
    assert_eq!(slots("nobody"), 0);
    let reason = api.status().pools[&nodes].members["nobody"].reason.clone();
    assert_eq!(reason.as_deref(), Some("its MAC address is not known"));
    for _ in 0..10 {
        world.connect(VIP).unwrap().who().unwrap();
    }

    // one that changes its address and says so: one write
    let before = writes();
    world.inside("m2", || fs::write("/proc/sys/net/ipv4/conf/all/arp_notify", "1").unwrap());
    world.ip("m2", "link set eth0 address fa:16:3e:00:00:33");
    eventually("it is followed", || writes() > before);
    let all = || (0..20).all(|_| world.connect(VIP).is_ok());
    eventually("all connections are answered", all);
    assert_eq!(writes(), before + 1);

    // a restart knows them at once
    balancer.stop();
    let _balancer = Balancer::start(&world, &config);
    assert!(slots("m1") > 0 && slots("m2") > 0);
    assert!(all());
}
