//! Several instances of the program on one MariaDB, and one `ake-xdp`: one of them writes, another takes over when it
//! dies or hangs, and the one that hung cannot write any more. In a network namespace of its own; needs root, Debian's
//! mariadb-server, and `ake-xdp` built (`cargo build -p ake-xdp`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

#[path = "../src/store/tests/mariadb.rs"]
mod mariadb;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ake_api::{
    decide::wanted::{ClusterRecord, Wanted, WantedPool},
    store::{Change, Database, Store},
};
use ake_api_client::{Affinity, ClusterId, Listener, LoadBalancerRequest, Protocol};
use lb_driver::{
    diff,
    driver::{Driver, DriverError},
    model::{State, Version},
    vendor::xdp::{Settings, XdpDriver},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const INSIDE: &str = "AKE_INSTANCES_INSIDE";

/// Runs this test again in namespaces of its own: of the network, and of the mounts that hold pinned maps.
#[test]
fn one_instance_writes_and_another_takes_over() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(story());
    }
    let done = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "one_instance_writes_and_another_takes_over", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(done.success());
}

struct Ended(Child);

impl Ended {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success(), "{command}");
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: it does not happen");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn certificates(folder: &Path) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in [("ca.crt", issuer.pem()), ("own.crt", leaf.pem()), ("own.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn balancer(folder: &Path) -> Ended {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_ake-api"));
    let program = own.with_file_name("ake-xdp");
    assert!(
        program.exists(),
        "{}: expected the balancer's program: cargo build -p ake-xdp",
        program.display()
    );
    let here = folder.display();
    let text = format!(
        "interface = \"eth0\"\nlisten = \"127.0.0.1:9512\"\nstate = \"{here}/state.json\"\nsocket = \"{here}/show.sock\"\n\
         pins = \"{here}/pins\"\n\
         [tls]\ncertificate = \"{here}/own.crt\"\nkey = \"{here}/own.key\"\nclient_ca = \"{here}/ca.crt\"\n\
         [limits]\nflows = 1024\n"
    );
    std::fs::write(folder.join("xdp.toml"), text).unwrap();
    Ended(Command::new(program).args(["serve", "--config"]).arg(folder.join("xdp.toml")).spawn().unwrap())
}

fn instance(folder: &Path, database: &str, port: u16) -> Ended {
    let program = env!("CARGO_BIN_EXE_ake-api");
    let example = Command::new(program).arg("example-config").output().unwrap().stdout;
    let here = folder.display();
    let mut text = String::from_utf8(example)
        .unwrap()
        .replace("0.0.0.0:9511", &format!("127.0.0.1:{port}"))
        .replace("metrics_listen = \"127.0.0.1:9510\"", "")
        .replace("http://192.0.2.2:5000/v3", "http://127.0.0.1:9/v3")
        .replace("https://192.168.77.2:9512", "https://127.0.0.1:9512")
        .replace("password_file = \"/etc/ake/keystone-password\"", "password = \"secret\"")
        .replace("/var/lib/ake/api.sqlite", database)
        .replace("/var/log/ake/", &format!("{here}/"));
    for (from, to) in [
        ("api.crt", "own.crt"),
        ("api.key", "own.key"),
        ("balancer-ca.crt", "ca.crt"),
        ("balancer-client.crt", "own.crt"),
        ("balancer-client.key", "own.key"),
    ] {
        text = text.replace(&format!("/etc/ake/{from}"), &format!("{here}/{to}"));
    }
    let config = folder.join(format!("api-{port}.toml"));
    std::fs::write(&config, text).unwrap();
    let child = Command::new(program)
        .args(["serve", "--config"])
        .arg(config)
        .stderr(Stdio::from(std::fs::File::create(folder.join(format!("api-{port}.log"))).unwrap()))
        .spawn();
    Ended(child.unwrap())
}

/// Somebody who writes to the same database, as a third instance would, and looks at the balancer.
struct Witness {
    store: Store,
    driver: XdpDriver,
    cluster: ClusterId,
}

impl Witness {
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
    let _balancer = balancer(folder);
    let store = Store::open(&Database::parse(&url).unwrap()).await.unwrap();
    let cluster = ClusterRecord {
        id: ClusterId::from_u128(1),
        name: "demo".into(),
        project: "p".into(),
        network: "n".into(),
        pod_range: "10.240.0.0/16".parse().unwrap(),
        pod_range_v6: None,
        blocks: vec![],
        deleting: false,
        revision: 1,
        lease_transitions: 0,
    };
    store.register(&cluster, |_| Ok((cluster.pod_range, None))).await.unwrap().unwrap();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let driver = XdpDriver::new(&Settings {
        url: "https://127.0.0.1:9512".into(),
        ca: read("ca.crt"),
        certificate: read("own.crt"),
        key: read("own.key"),
        timeout: Duration::from_secs(5),
    })
    .unwrap();
    let witness = Witness { store, driver, cluster: cluster.id };
    let mut instances: BTreeMap<u16, Ended> =
        [9601, 9602].into_iter().map(|port| (port, instance(folder, &url, port))).collect();

    // Whoever writes to the database, one instance brings it to the balancer.
    let first = witness.wants_another("a").await;
    let hung = witness.writer().await.expect("somebody writes");
    assert_eq!(witness.wants_another("b").await.epoch, first.epoch);
    let old = witness.state().await.unwrap();

    // One that hangs is replaced, with a new epoch.
    instances[&hung].signal("-STOP");
    let second = witness.wants_another("c").await;
    assert!(second.epoch > first.epoch, "{second} after {first}");
    let next = witness.writer().await.unwrap();
    assert_ne!(next, hung);
    // What it had under way is refused by the balancer,
    let late = State { version: Version { number: second.number + 1000, ..old.version }, ..old };
    let held = witness.state().await.unwrap();
    let refused = witness.driver.apply(&late, &diff::diff(&late, &held)).await.unwrap_err();
    assert!(matches!(refused, DriverError::Stale { .. }), "{refused}");
    // and when it wakes, it finds that it is no longer the one.
    instances[&hung].signal("-CONT");
    for name in ["d", "e"] {
        assert_eq!(witness.wants_another(name).await.epoch, second.epoch);
    }
    assert_eq!(witness.writer().await, Some(next));

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
    instances.insert(9603, instance(folder, &url, 9603));
    eventually("the next instance writes", async || witness.writer().await).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(witness.state().await.unwrap().version, before, "nothing was written");
    assert_eq!(witness.wants_another("g").await.epoch, witness.store.version().await.unwrap().epoch);
}
