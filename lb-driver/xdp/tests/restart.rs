//! Restarts, crashes and upgrades of the program under traffic: the data plane works on, and the next process takes it
//! over without a lost packet. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod world;

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_driver::{
    driver::Driver as _,
    model::{Endpoint, Protocol},
};
use world::{
    Balancer, Client, PORT, VIP, World,
    control::{Api, certificates, owner, run_program, wanted, write_config},
    eventually,
};

/// Datagrams a second, from as many ports.
const RATE: u32 = 2000;
const SENDERS: u32 = 50;
/// As many may be unanswered at once: their receivers hold them through a pause of the test itself.
const IN_FLIGHT: u32 = 100;

/// Datagrams that were sent and not answered, until `stop`.
struct Datagrams {
    sent: u32,
    lost: u32,
}

/// Sends datagrams to the VIP at a steady pace, from [`SENDERS`] ports by turns; each carries its number.
fn datagrams(world: &World, stop: &AtomicBool) -> Datagrams {
    let sockets: Vec<UdpSocket> = world.inside("client", || {
        let socket = || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((VIP, PORT)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket
        };
        (0..SENDERS).map(|_| socket()).collect()
    });
    let (answered, done) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let receivers: Vec<_> = sockets
            .iter()
            .map(|socket| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        if socket.recv(&mut [0; 16]).is_ok() {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = (begun.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            while sent < due && sent - answered.load(Ordering::Relaxed) < IN_FLIGHT {
                sockets[(sent % SENDERS) as usize].send(&sent.to_be_bytes()).unwrap();
                sent += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let last = Instant::now();
        while answered.load(Ordering::Relaxed) < sent && last.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::Relaxed);
        receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
        Datagrams { sent, lost: sent - answered.load(Ordering::Relaxed) }
    })
}

/// Open connections, and who answers them.
struct Open(Vec<(Client, String)>);

impl Open {
    fn new(world: &World, count: usize) -> Self {
        let open = |_| {
            let mut client = world.connect(VIP).unwrap();
            let name = client.who().unwrap();
            (client, name)
        };
        Self((0..count).map(open).collect())
    }

    /// Those whose member does not answer any more.
    fn lost(&mut self, of: &str) -> usize {
        let ours = self.0.iter_mut().filter(|(_, name)| name == of);
        ours.filter_map(|(client, name)| client.who().map_or(true, |who| who != *name).then_some(())).count()
    }

    fn count(&self, of: &str) -> usize {
        self.0.iter().filter(|(_, name)| name == of).count()
    }
}

#[test]
fn a_restart_loses_no_packet() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    let balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    let _servers = (world.serve("m1"), world.serve("m2"));
    world.echo("m1");
    world.echo("m2");
    let mut state = wanted();
    for balancer in state.load_balancers.values_mut() {
        let tcp = *balancer.listeners.keys().next().unwrap();
        balancer.listeners.insert(Endpoint { protocol: Protocol::Udp, ..tcp }, owner("nodes"));
    }
    api.apply(&state);
    let nodes = owner("nodes");
    eventually("both members are well", || {
        api.status().pools[&nodes].members.values().all(|member| member.healthy == Some(true))
    });

    // m2 drains: only the flow table knows that these connections are its own
    let mut open = Open::new(&world, 100);
    assert!(open.count("m2") > 20);
    state.version.number += 1;
    state.pools.get_mut(&nodes).unwrap().members.get_mut("m2").unwrap().draining = true;
    api.apply(&state);
    let flows =
        |api: &Api| api.status().pools[&nodes].clone().members.into_iter().map(|m| (m.0, m.1.new_flows));
    let before: BTreeMap<_, _> = flows(&api).collect();

    let stop = AtomicBool::new(false);
    let (mut balancer, sent) = thread::scope(|scope| {
        let running = scope.spawn(|| datagrams(&world, &stop));
        thread::sleep(Duration::from_millis(200));
        let mut balancer = balancer;
        for crash in [false, true, false] {
            if crash {
                balancer.crash()
            } else {
                balancer.stop()
            }
            assert_eq!(open.lost("m1") + open.lost("m2"), 0, "nobody is at home, packets pass");
            balancer = Balancer::start(&world, &config);
            assert_eq!(open.lost("m1") + open.lost("m2"), 0);
        }
        stop.store(true, Ordering::Relaxed);
        (balancer, running.join().unwrap())
    });
    println!(
        "3 restarts, 1 of them a crash: {} of {} datagrams lost, 0 of 100 connections",
        sent.lost, sent.sent
    );
    assert_eq!(sent.lost, 0, "of {}", sent.sent);
    assert!(sent.sent > 1000);
    let after: BTreeMap<_, _> = flows(&api).collect();
    assert_eq!(after["m2"], before["m2"], "what was counted is kept");
    assert_eq!(after["m1"], before["m1"] + u64::from(SENDERS));

    // another size of the flow table: it is carried over
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("flows = 16384", "flows = 32768\nmembers = 1000\nlisteners = 100"))
        .unwrap();
    balancer.stop();
    balancer = Balancer::start(&world, &config);
    assert_eq!(open.lost("m1") + open.lost("m2"), 0);
    assert_eq!(flows(&api).collect::<BTreeMap<_, _>>(), after);

    // a state that was lost is no empty state: what is at work goes on until another comes
    balancer.stop();
    fs::remove_file(world.folder.path().join("balancer.json")).unwrap();
    balancer = Balancer::start(&world, &config);
    assert!(balancer.log().contains("no state is kept"), "{}", balancer.log());
    assert_eq!(open.lost("m1") + open.lost("m2"), 0);
    api.apply(&state);
    assert_eq!(open.lost("m1") + open.lost("m2"), 0);
    assert!(balancer.log().contains("attached in place of"), "{}", balancer.log());

    // a second one does not touch what is at work
    let error = run_program(&world, "detach", &config).unwrap_err();
    assert!(error.contains("another ake-xdp uses it"), "{error}");

    // tables of a layout that this program does not know: it begins anew, and the ring is the same
    balancer.stop();
    let pins = world.folder.path().join("balancer-pins");
    let layouts =
        || fs::read_dir(&pins).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    let layout = fs::read_dir(&pins).unwrap().map(|e| e.unwrap().path()).find(|path| path.is_dir()).unwrap();
    fs::rename(&layout, pins.join("0000000000000000")).unwrap();
    balancer = Balancer::start(&world, &config);
    assert_eq!(layouts(), 1);
    assert_eq!(open.lost("m1"), 0);
    assert_eq!(open.lost("m2"), open.count("m2"), "they were off the ring");

    // taken away on purpose
    balancer.stop();
    assert!(world.connect(VIP).is_ok());
    let said = run_program(&world, "detach", &config).unwrap();
    assert!(said.starts_with("detached from the interface of index "), "{said}");
    assert!(world.is_silent(VIP));
    // the kernel's own views of all tables and programs aside
    let left = fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| !name.ends_with(".debug")).count(), 0);
    assert_eq!(run_program(&world, "detach", &config).unwrap(), "nothing was attached\n");
}

#[test]
fn whoever_waits_for_news_does_not_hold_up_a_stop() {
    let world = World::new();
    let certificates = certificates();
    let config = write_config(&world, &certificates);
    let balancer = Balancer::start(&world, &config);
    let api = Api::new(&world, &certificates, &certificates);
    api.apply(&wanted());
    let nodes = owner("nodes");
    eventually("both members are down", || {
        api.status().pools[&nodes].members.values().all(|member| member.healthy == Some(false))
    });
    let seen = api.status().mark;
    let connected = AtomicBool::new(false);
    thread::scope(|scope| {
        let news = scope.spawn(|| {
            api.call(async |driver| {
                driver.status().await.unwrap();
                connected.store(true, Ordering::Relaxed);
                driver.news(seen, Duration::from_secs(30)).await
            })
        });
        eventually("it is connected", || connected.load(Ordering::Relaxed));
        // What is left is one request on a connection that is open.
        thread::sleep(Duration::from_secs(2));
        balancer.stop();
        let answer = news.join().unwrap();
        assert!(answer.is_ok(), "the answer is cut off: {answer:?}");
    });
    let said = fs::read_to_string(world.folder.path().join("balancer.log")).unwrap();
    assert!(said.contains("stopping") && !said.contains("requests were still open"), "{said}");
}
