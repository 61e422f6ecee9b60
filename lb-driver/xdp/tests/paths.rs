//! What a packet meets on its way: a narrow link behind the router, datagrams in fragments, VIPs that neighbours ask for.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{fs, net::UdpSocket, num::NonZeroU16, path::Path, thread, time::Duration};

use lb_driver::model::{Endpoint, Protocol};
use world::{
    Balancer, MUCH, PORT, VIP, VIP6, World,
    control::{Api, certificates, owner, wanted, write_config},
    eventually,
};

/// Keys at the beginning of a file are of no table.
fn prepend(config: &Path, more: &str) {
    let text = fs::read_to_string(config).unwrap();
    fs::write(config, format!("{more}\n{text}")).unwrap();
}

/// Answers datagrams of any size to a VIP with themselves, as long as the process lives.
fn echo(world: &World, member: &str, vip: &str) {
    let socket = world.inside(member, || UdpSocket::bind((vip, PORT)).unwrap());
    thread::spawn(move || {
        let mut datagram = [0; 8192];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    });
}

#[test]
fn whatever_the_way_packets_arrive() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    prepend(&config, r#"on_link = ["203.0.113.0/24", "2001:db8:113::/112"]"#);
    let _balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let _servers = ["m1", "m2"].map(|member| world.serve(member));
    let mut state = wanted();
    let endpoint = Endpoint { protocol: Protocol::Udp, port: NonZeroU16::new(PORT).unwrap() };
    for balancer in state.load_balancers.values_mut() {
        balancer.listeners.insert(endpoint, owner("nodes"));
    }
    api.apply(&state);
    eventually("both members are well", || {
        api.status().pools[&owner("nodes")].members.values().all(|member| member.healthy == Some(true))
    });

    // datagrams in fragments
    for (vip, any) in [(VIP, "0.0.0.0:0"), (VIP6, "[::]:0")] {
        for member in ["m1", "m2"] {
            echo(&world, member, vip);
        }
        for size in [1000, 4000] {
            let socket = world.inside("client", || UdpSocket::bind(any).unwrap());
            socket.connect((vip, PORT)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let (datagram, mut answer) = (vec![7; size], vec![0; 8192]);
            let mut length = 0;
            eventually("an answer", || {
                socket.send(&datagram).unwrap();
                socket.recv(&mut answer).is_ok_and(|received| {
                    length = received;
                    true
                })
            });
            assert_eq!(answer[..length], datagram, "{vip}");
        }
    }
    assert_eq!(api.status().drops["fragment"], 0);

    // a narrow link: the client offers to take segments of 1,460 bytes, only the router knows better
    world.ip("router", "link set clients mtu 1300");
    for vip in [VIP, VIP6] {
        for _ in 0..4 {
            assert_eq!(world.connect(vip).unwrap().much(), MUCH, "{vip}");
        }
    }
    assert_eq!(api.status().drops["icmp"], 0);

    // VIPs that the router asks its neighbours for
    world.ip("router", "route replace 203.0.113.0/24 dev eth0");
    world.ip("router", "route del 2001:db8:113::/112 via fd00:77::2");
    world.ip("router", "route add 2001:db8:113::/112 dev eth0");
    for vip in [VIP, VIP6] {
        let name = world.connect(vip).unwrap().who().unwrap();
        assert!(["m1", "m2"].contains(&&*name), "{name}");
    }
    for other in ["203.0.113.18", "2001:db8:113::18"] {
        assert!(world.is_silent(other), "{other}");
    }
}
