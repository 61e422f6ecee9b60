//! The way of a member's health: from `ake-xdp`'s own check, by `ake-api`, to who follows the change feed as the controller
//! does; both programs as they are shipped. In a network namespace of its own; needs root, and `ake-xdp` built
//! (`cargo build -p ake-xdp`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod common;
#[path = "../src/http/tests/imitation.rs"]
#[allow(dead_code, reason = "the balancer in memory is for the tests in process")]
mod imitation;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ake_api_client::{
    AddressRequest, Affinity, Check, Client, ClusterId, ClusterRequest, ClusterState, Listener,
    LoadBalancerRequest, MemberRequest, PoolRequest, Protocol,
};
use common::{
    Ended, apart, balancer, certificates, certified, eventually, example, free_port, kept_in, run, serve,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const NODE: &str = "192.168.77.20";
const PORT: &str = "99999999-9999-9999-9999-999999999991";
const CHECKED: u16 = 10256;

/// How often a member goes and comes.
const TURNS: usize = 3;

/// Nothing takes so long; what is asserted is what is told, not when.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_members_health_is_told_to_who_follows_the_feed() {
    apart("a_members_health_is_told_to_who_follows_the_feed", story());
}

/// A node as far as its health port.
async fn node(well: Arc<AtomicBool>) {
    let listener = tokio::net::TcpListener::bind((NODE, CHECKED)).await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "503 Service Unavailable" };
        tokio::spawn(async move {
            let mut request = [0; 1024];
            // Who asks may be gone already.
            let _ = stream.read(&mut request).await;
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

fn service(folder: &Path, keystone: &str, port: u16) -> Ended {
    let changes = [
        ("0.0.0.0:9511", format!("127.0.0.1:{port}")),
        ("metrics_listen = \"127.0.0.1:9510\"", String::new()),
        ("http://192.0.2.2:5000/v3", keystone.to_owned()),
        ("https://192.168.77.2:9512", "https://127.0.0.1:9512".to_owned()),
        ("password_file = \"/etc/ake/keystone-password\"", "password = \"secret\"".to_owned()),
    ];
    serve(folder, "api", &example(changes.into_iter().chain(certified()).chain(kept_in(folder))))
}

/// Whoever follows the feed.
struct Follower {
    client: Client,
    cluster: ClusterId,
    seen: String,
    /// States that it was sent.
    told: usize,
}

impl Follower {
    /// Follows until the feed shows what is waited for.
    async fn until(&mut self, what: &str, is_it: impl Fn(&ClusterState) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{what}: the feed does not tell");
            let news = self.client.changed(self.cluster, &self.seen, Duration::from_secs(25)).await.unwrap();
            let Some((state, tag)) = news else { continue };
            assert_ne!(tag, self.seen, "what was seen is no news");
            (self.seen, self.told) = (tag, self.told + 1);
            if is_it(&state) {
                return;
            }
        }
    }
}

async fn story() {
    run("ip link set lo up");
    run("ip link add eth0 type veth peer name eth1");
    run("ip link set eth0 up");
    run(&format!("ip addr add {NODE}/32 dev lo"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    let well = Arc::new(AtomicBool::new(true));
    tokio::spawn(node(Arc::clone(&well)));
    let _balancer = balancer(folder, "[check]\nperiod_ms = 200\ntimeout_ms = 20000\n");
    let (cloud, neutron) = imitation::cloud().await;
    neutron.add(PORT, "demo", NODE, "server-0", &[]);
    let port = free_port();
    let _service = service(folder, &cloud.uri(), port);
    let ca = std::fs::read(folder.join("ca.crt")).unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let client = Client::new(&url, Some(&ca), Some(Box::new("alice:demo:member".to_owned()))).unwrap();

    let cluster = ClusterId::from_u128(1);
    let request = ClusterRequest { name: "demo".into(), network: "net-1".into() };
    eventually("the cluster", async || client.put_cluster(cluster, &request).await.ok()).await;
    client.put_address(cluster, "web", &AddressRequest::default()).await.unwrap();
    let member = MemberRequest { address: NODE.parse().unwrap(), weight: 1, draining: false, port: None };
    let pool = PoolRequest {
        members: Some([("w0".to_owned(), member)].into()),
        checks: vec![Check::Http { port: CHECKED, path: "/livez".into() }],
    };
    client.put_pool(cluster, "nodes", &pool).await.unwrap();
    let balancer = LoadBalancerRequest {
        address: "web".into(),
        listeners: vec![Listener { protocol: Protocol::Tcp, port: 80, pool: "nodes".into() }],
        source_ranges: vec![],
        affinity: Affinity::None,
    };
    client.put_load_balancer(cluster, "web", &balancer).await.unwrap();

    let health = |state: &ClusterState| state.pools["nodes"].members["w0"].healthy;
    let mut follower = Follower { client, cluster, seen: "\"0\"".into(), told: 0 };
    follower
        .until("the first check", |state| health(state) == Some(true) && state.load_balancers["web"].applied)
        .await;
    let mut times = Vec::new();
    follower.told = 0;
    for turn in 0..2 * TURNS {
        let is_well = turn % 2 == 1;
        well.store(is_well, Ordering::SeqCst);
        let begun = Instant::now();
        follower.until("the change", |state| health(state) == Some(is_well)).await;
        times.push(begun.elapsed().as_millis());
    }
    // Nothing is sent but news: each turn is one, with its reason.
    assert!(follower.told <= 4 * TURNS, "{} states for {} turns", follower.told, 2 * TURNS);
    // Checks that say the same are none, fifteen of them here.
    let news = follower.client.changed(cluster, &follower.seen, Duration::from_secs(3)).await.unwrap();
    assert!(news.is_none(), "{news:?} after {}", follower.seen);
    println!(
        "from a member's turn to who follows the feed, in ms, two checks 200 ms apart among it: {times:?}; {} states were sent",
        follower.told
    );
}
