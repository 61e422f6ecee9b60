//! Several instances of the program on one MariaDB, and one `ake-xdp`: one of them writes, another takes over when it
//! dies or hangs, and the one that hung cannot write any more. In a network namespace of its own; needs root, Debian's
//! mariadb-server, and `ake-xdp` built (`cargo build -p ake-xdp`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod common;
#[path = "../src/store/tests/mariadb.rs"]
mod mariadb;

use std::{collections::BTreeMap, path::Path, time::Duration};

use ake_api::{
    decide::wanted::{ClusterRecord, Wanted, WantedPool},
    store::{Change, Database, Store},
};
use ake_api_client::{Affinity, ClusterId, Listener, LoadBalancerRequest, Protocol};
use common::{Ended, apart, balancer, certificates, certified, eventually, example, kept_in, run, serve};
use lb_driver::{
    diff,
    driver::{Driver, DriverError},
    model::{Owner, Pool, State, Version},
    vendor::xdp::{Settings, XdpDriver},
};

#[test]
fn one_instance_writes_and_another_takes_over() {
    apart("one_instance_writes_and_another_takes_over", story());
}

fn instance(folder: &Path, database: &str, port: u16, period: u32) -> Ended {
    let changes = [
        ("0.0.0.0:9511", format!("127.0.0.1:{port}")),
        ("reconcile_seconds = 300", format!("reconcile_seconds = {period}")),
        ("metrics_listen = \"127.0.0.1:9510\"", String::new()),
        ("http://192.0.2.2:5000/v3", "http://127.0.0.1:9/v3".to_owned()),
        ("https://192.168.77.2:9512", "https://127.0.0.1:9512".to_owned()),
        ("password_file = \"/etc/ake/keystone-password\"", "password = \"secret\"".to_owned()),
        ("/var/lib/ake/api.sqlite", database.to_owned()),
    ];
    let kept = kept_in(folder).into_iter().filter(|(path, _)| *path != "/var/lib/ake/");
    let config = example(changes.into_iter().chain(certified()).chain(kept));
    serve(folder, &format!("api-{port}"), &config)
}

/// Somebody who writes to the same database, as a third instance would, and looks at the balancer.
struct Witness {
    store: Store,
    driver: XdpDriver,
    cluster: ClusterId,
}

impl Witness {
    /// As [`wants_another`](Self::wants_another), while one instance keeps the post: what the balancer has then, and the writer's
    /// port. On a busy machine one may stand still for so long that another takes over, and rightly.
    async fn written_by_one(&self, name: &str) -> (Version, u16) {
        let post = async || (self.writer().await, self.store.version().await.unwrap().epoch);
        for attempt in 0..5 {
            let before = post().await;
            let version = self.wants_another(&format!("{name}{attempt}")).await;
            if let (Some(writer), epoch) = before
                && post().await == before
            {
                assert_eq!(version.epoch, epoch, "whoever writes does so with its own epoch");
                return (version, writer);
            }
        }
        panic!("nobody keeps the post");
    }

    /// Wants another load balancer, and waits until the balancer has it. The balancer's version then.
    async fn wants_another(&self, name: &str) -> Version {
        let loaded = self.store.load(self.cluster).await.unwrap().unwrap();
        let mut wanted: Wanted = loaded.wanted.clone();
        let count = u8::try_from(wanted.addresses.len()).unwrap();
        wanted.addresses.insert(name.to_owned(), [203, 0, 113, 16 + count].into());
        wanted.pools.insert("nodes".to_owned(), WantedPool::default());
        let request = LoadBalancerRequest {
            address: name.to_owned(),
            listeners: vec![Listener { protocol: Protocol::Tcp, port: 80, pool: "nodes".to_owned() }],
            source_ranges: vec![],
            affinity: Affinity::None,
        };
        wanted.load_balancers.insert(name.to_owned(), request);
        assert!(
            self.store.save(&loaded, Change { wanted: Some(&wanted), ..Change::default() }).await.unwrap()
        );
        eventually(&format!("load balancer {name} on the balancer"), async || {
            let state = self.state().await?;
            let has = state.load_balancers.keys().any(|owner| owner.object() == name);
            (has && state.load_balancers.len() == wanted.load_balancers.len()).then_some(state.version)
        })
        .await
    }

    async fn state(&self) -> Option<State> {
        self.driver.read().await.ok()
    }

    /// The port of the instance that writes.
    async fn writer(&self) -> Option<u16> {
        let holder = self.store.pulse().await.unwrap().post.holder;
        holder.split([':', ' ']).nth(1)?.parse().ok()
    }
}

async fn story() {
    run("ip link set lo up");
    run("ip link add eth0 type veth peer name eth1");
    run("ip link set eth0 up");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    let url = mariadb::fresh();
    let _balancer = balancer(folder, "");
    let store = Store::open(&Database::parse(&url).unwrap()).await.unwrap();
    let cluster =
        ClusterRecord::new(ClusterId::from_u128(1), ["demo", "p", "n"], "10.240.0.0/16".parse().unwrap());
    store.register(&cluster, |_| Ok((cluster.pod_range, None))).await.unwrap().unwrap();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let driver = XdpDriver::new(&Settings {
        url: "https://127.0.0.1:9512".into(),
        ca: read("ca.crt"),
        certificate: read("own.crt"),
        key: read("own.key"),
        timeout: Duration::from_secs(30),
    })
    .unwrap();
    let witness = Witness { store, driver, cluster: cluster.id };
    let mut instances: BTreeMap<u16, Ended> =
        [9601, 9602].into_iter().map(|port| (port, instance(folder, &url, port, 300))).collect();

    // Whoever writes to the database, one instance brings it to the balancer.
    witness.wants_another("a").await;
    // One that hangs is replaced, and does not come back when it wakes. On a busy machine its follower may stand still in its
    // turn; that whoever wakes takes the post would happen every time.
    let mut rounds = 0..3;
    let (second, next, hung) = loop {
        let round = rounds.next().expect("whoever hung is not the writer again");
        let (first, hung) = witness.written_by_one(&format!("b{round}")).await;
        let old = witness.state().await.unwrap();
        instances[&hung].signal("-STOP");
        let second = witness.wants_another(&format!("c{round}")).await;
        assert!(second.epoch > first.epoch, "{second} after {first}");
        let next = witness.writer().await.unwrap();
        assert_ne!(next, hung);
        // What it had under way is refused by the balancer.
        let late = State { version: Version { number: second.number + 1000, ..old.version }, ..old };
        let held = witness.state().await.unwrap();
        let refused = witness.driver.apply(&late, &diff::diff(&late, &held)).await.unwrap_err();
        assert!(matches!(refused, DriverError::Stale { .. }), "{refused}");
        instances[&hung].signal("-CONT");
        let (third, writer) = witness.written_by_one(&format!("d{round}")).await;
        if (third.epoch, writer) == (second.epoch, next) {
            break (second, next, hung);
        }
    };

    // One that is killed is replaced too, though nothing is to be written: the balancer learns of the epoch.
    drop(instances.remove(&next));
    eventually("the balancer knows of the new epoch", async || {
        witness.state().await.filter(|state| state.version.epoch > second.epoch)
    })
    .await;
    assert_eq!(witness.writer().await, Some(hung));

    // One that ends in order leaves the post free, and the next one begins without a write.
    let before = witness.wants_another("f").await;
    instances[&hung].signal("-TERM");
    assert!(instances.get_mut(&hung).unwrap().0.wait().unwrap().success());
    assert_eq!(witness.writer().await, None);
    instances.insert(9603, instance(folder, &url, 9603, 300));
    eventually("the next instance writes", async || witness.writer().await).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(witness.state().await.unwrap().version, before, "nothing was written");
    assert_eq!(witness.wants_another("g").await.epoch, witness.store.version().await.unwrap().epoch);

    // What the balancer has of a cluster that no row knows stays, whatever else is written, until it was seen for a period.
    let stranger = Owner::new("p", "stranger", "nodes").unwrap();
    let held = witness.state().await.unwrap();
    let mut strange = held.clone();
    strange.version = witness.store.next_version().await.unwrap();
    strange.pools.insert(stranger.clone(), Pool::default());
    witness.driver.apply(&strange, &diff::diff(&strange, &held)).await.unwrap();
    witness.wants_another("h").await;
    assert!(witness.state().await.unwrap().pools.contains_key(&stranger), "it was not seen for a period");
    drop(instances.remove(&9603));
    instances.insert(9604, instance(folder, &url, 9604, 1));
    eventually("the stranger's pool goes", async || {
        let state = witness.state().await?;
        (!state.pools.contains_key(&stranger)).then_some(())
    })
    .await;
    let wanted = witness.store.load(witness.cluster).await.unwrap().unwrap().wanted.load_balancers.len();
    assert_eq!(witness.state().await.unwrap().load_balancers.len(), wanted);
}
