use ake_bigip::Fault;

use super::*;

/// A device, or a pair, and a driver of it.
struct Bench {
    device: Device,
    driver: BigIpDriver,
    settings: Settings,
    _served: Vec<Served>,
}

async fn served(device: &Device) -> Served {
    Served::start(device.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn settings(served: &[Served]) -> Settings {
    Settings {
        urls: served.iter().map(|served| served.url.clone()).collect(),
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
        ca: served.iter().map(|served| served.ca.clone()).collect::<String>().into_bytes(),
        partition_prefix: "ake-".to_owned(),
        traffic_group: "/Common/traffic-group-1".to_owned(),
        sync_group: (served.len() > 1).then(|| "/Common/pair".to_owned()),
        timeout: Duration::from_secs(10),
        patience: Duration::from_secs(3),
    }
}

impl Bench {
    async fn new() -> Self {
        let device = Device::new(Options::default());
        Self::of(device.clone(), vec![served(&device).await])
    }

    fn of(device: Device, served: Vec<Served>) -> Self {
        let settings = settings(&served);
        let driver = BigIpDriver::new(&settings).unwrap();
        Self { device, driver, settings, _served: served }
    }

    /// Reads, compares, writes where there is a difference; what it has then.
    async fn bring(&self, wanted: &State) -> State {
        let actual = self.driver.read().await.unwrap();
        let changes = diff(wanted, &actual);
        if !changes.is_empty() {
            self.driver.apply(wanted, &changes).await.unwrap();
        }
        self.driver.read().await.unwrap()
    }

    fn writes(&self) -> Vec<String> {
        let log = self.device.take_log();
        log.into_iter().filter(|line| !line.starts_with("GET ") && !line.contains("/authn/login")).collect()
    }
}

#[tokio::test]
async fn everything_and_back_to_nothing() {
    let bench = Bench::new().await;
    let before = bench.device.snapshot();
    let wanted = everything(7);
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert!(bench.device.saved(), "what is written is saved");
    bench.writes();
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert_eq!(bench.writes(), Vec::<String>::new(), "nothing has changed");
    let status = bench.driver.status().await.unwrap();
    assert_eq!(status.pools[&owner("nodes")].members["w1"].healthy, Some(true));
    assert_eq!(status.pools[&owner("nodes")].members["w2"].slots, 0);
    assert_eq!(status.load_balancers[&owner("anybody")][&endpoint(Protocol::Tcp, 443)].packets, 10);
    bench.device.set_healthy("192.168.77.21", false);
    let status = bench.driver.status().await.unwrap();
    assert_eq!(status.pools[&owner("nodes")].members["w1"].healthy, Some(false));
    let nothing = State { version: Version { epoch: 1, number: 8 }, ..State::default() };
    assert_eq!(bench.bring(&nothing).await, nothing);
    assert_eq!(bench.device.paths("ltm/node"), Vec::<String>::new());
    assert_eq!(bench.device.paths("auth/partition"), ["ake_state"]);
    bench
        .device
        .elsewhere("DELETE", "ltm/data-group/internal/~ake_state~version-1-8", serde_json::json!({}))
        .unwrap();
    bench.device.elsewhere("DELETE", "auth/partition/ake_state", serde_json::json!({})).unwrap();
    assert_eq!(bench.device.snapshot(), before);
    bench.driver.close().await.unwrap();
    assert_eq!(bench.device.tokens(), 0, "no token is left behind");
}

#[tokio::test]
async fn an_older_state_and_a_late_writer_are_refused() {
    let bench = Bench::new().await;
    bench.bring(&everything(7)).await;
    let older = State { version: Version { epoch: 1, number: 6 }, ..State::default() };
    let refused = bench.driver.apply(&older, &[]).await.unwrap_err().to_string();
    assert!(refused.contains("refused version 1.6: it holds 1.7"), "{refused}");
    // another writer comes in between: nothing of the late one's transaction is done
    let late = BigIpDriver::new(&bench.settings).unwrap();
    late.read().await.unwrap();
    let sooner = State { version: Version { epoch: 2, number: 1 }, ..State::default() };
    assert_eq!(bench.bring(&sooner).await, sooner);
    let other = State { version: Version { epoch: 2, number: 5 }, ..everything(0) };
    let snapshot = bench.device.snapshot();
    let error = late.apply(&other, &[]).await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("changed meanwhile"), "{error}");
    assert_eq!(bench.device.snapshot(), snapshot);
}

#[tokio::test]
async fn what_others_have_stays_theirs() {
    let bench = Bench::new().await;
    bench.bring(&everything(7)).await;
    let theirs = serde_json::json!({"name": "theirs", "partition": "ake-p1", "monitor": "/Common/tcp"});
    bench.device.elsewhere("POST", "ltm/pool", theirs).unwrap();
    let theirs =
        serde_json::json!({"name": "theirs", "destination": "/Common/203.0.113.99:80", "ipProtocol": "tcp"});
    bench.device.elsewhere("POST", "ltm/virtual", theirs).unwrap();
    let wanted = State { version: Version { epoch: 1, number: 8 }, ..State::default() };
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert_eq!(bench.device.paths("ltm/pool"), ["/ake-p1/theirs"]);
    assert!(bench.device.object("ltm/virtual", "/Common/theirs").is_some());
    // and what stands in the way is named
    let mut wanted = everything(9);
    wanted.load_balancers.get_mut(&owner("idle")).unwrap().vip = "203.0.113.99".parse().unwrap();
    wanted
        .load_balancers
        .get_mut(&owner("idle"))
        .unwrap()
        .listeners
        .insert(endpoint(Protocol::Tcp, 80), owner("nodes"));
    wanted.load_balancers.get_mut(&owner("idle")).unwrap().source_ranges.clear();
    bench.driver.read().await.unwrap();
    let error = bench.driver.apply(&wanted, &[]).await.unwrap_err();
    assert!(!error.retryable() && error.to_string().contains("203.0.113.99"), "{error}");
    assert_eq!(bench.device.paths("ltm/virtual").len(), 0, "all or nothing");
}

#[tokio::test]
async fn a_partition_of_others_is_not_ours() {
    let bench = Bench::new().await;
    bench.device.elsewhere("POST", "auth/partition", serde_json::json!({"name": "ake-p1"})).unwrap();
    bench.driver.read().await.unwrap();
    let error = bench.driver.apply(&everything(1), &[]).await.unwrap_err().to_string();
    assert!(error.contains("partition ake-p1: it is there and not ours"), "{error}");
}

#[tokio::test]
async fn a_device_that_is_busy_is_asked_again() {
    let bench = Bench::new().await;
    let wanted = everything(7);
    for (prefix, fault) in [
        ("POST /mgmt/shared/authn/login", Fault::booting()),
        ("GET /mgmt/tm/ltm/pool", Fault::unregistered("/mgmt/tm/ltm/pool")),
        ("GET /mgmt/tm/cm/device", Fault::mcpd_lost()),
        ("POST /mgmt/tm/transaction", Fault::booting()),
        ("POST /mgmt/tm/ltm/virtual", Fault::mcpd_lost()),
        ("POST /mgmt/tm/ltm/pool", Fault::Lost),
        ("PATCH /mgmt/tm/transaction", Fault::LostAfter),
        ("POST /mgmt/tm/sys/config", Fault::async_timeout()),
    ] {
        bench.device.fault(prefix, 0, 1, fault);
    }
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert!(bench.device.saved());
    bench.device.expire_tokens();
    let again = State { version: Version { epoch: 1, number: 8 }, ..State::default() };
    assert_eq!(bench.bring(&again).await, again);
    assert_eq!(bench.device.tokens(), 1, "one token for one driver");
    assert_eq!(bench.device.open_transactions(), 0);
}

#[tokio::test]
async fn tokens_of_others_are_left_alone() {
    let bench = Bench::new().await;
    bench.device.fill_tokens();
    let error = bench.driver.read().await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("maximum active login tokens"), "{error}");
    assert_eq!(bench.device.tokens(), 100);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let bench = Bench::new().await;
    let wrong = BigIpDriver::new(&Settings { password: "wrong".into(), ..bench.settings.clone() }).unwrap();
    for _ in 0..3 {
        let error = wrong.read().await.unwrap_err().to_string();
        assert!(error.contains("login: Authentication failed."), "{error}");
    }
    assert_eq!(bench.device.take_log(), ["POST /mgmt/shared/authn/login"]);
}

#[tokio::test]
async fn many_objects_come_by_the_page() {
    let bench = Bench::new().await;
    let mut wanted = State { version: Version { epoch: 1, number: 1 }, ..State::default() };
    wanted.pools.insert(owner("nodes"), Pool::default());
    for n in 0..230u16 {
        let balancer = LoadBalancer {
            vip: "203.0.113.17".parse().unwrap(),
            listeners: BTreeMap::from([(endpoint(Protocol::Tcp, n + 1), owner("nodes"))]),
            source_ranges: BTreeSet::new(),
            affinity: Affinity::None,
        };
        wanted.load_balancers.insert(owner(&format!("lb-{n}")), balancer);
    }
    assert_eq!(bench.bring(&wanted).await, wanted);
    // one that takes too long at once is read in smaller parts
    bench.device.fault("GET /mgmt/tm/ltm/virtual", 0, 2, Fault::async_timeout());
    assert_eq!(bench.driver.read().await.unwrap(), wanted);
}

#[tokio::test]
async fn of_a_pair_the_active_unit_is_written_and_the_other_synced() {
    let (one, two) = Device::pair(Options::default());
    let bench = Bench::of(one.clone(), vec![served(&one).await, served(&two).await]);
    let wanted = everything(7);
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert_eq!(one.snapshot(), two.snapshot());
    one.fail_over();
    two.take_log();
    let next = State { version: Version { epoch: 1, number: 8 }, ..State::default() };
    assert_eq!(bench.bring(&next).await, next);
    assert!(
        two.take_log().iter().any(|line| line == "POST /mgmt/tm/transaction"),
        "the active one was written"
    );
    assert_eq!(one.snapshot(), two.snapshot());
    // without its peer the active one still serves; the peer gets it when it is back
    two.connect(false);
    let wanted = everything(9);
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert_ne!(one.snapshot(), two.snapshot());
    two.connect(true);
    assert_eq!(bench.driver.read().await.unwrap(), wanted);
    assert_eq!(one.snapshot(), two.snapshot());
}

#[tokio::test]
async fn an_address_moves_from_one_project_to_another() {
    let bench = Bench::new().await;
    bench.bring(&everything(7)).await;
    let first = everything(8);
    let mut moved = State { version: Version { epoch: 1, number: 8 }, ..State::default() };
    let there = |owner: &Owner| Owner::new("p0", owner.cluster(), owner.object()).unwrap();
    for (owner, pool) in &first.pools {
        moved.pools.insert(there(owner), pool.clone());
    }
    for (owner, balancer) in &first.load_balancers {
        let mut balancer = balancer.clone();
        balancer.listeners.values_mut().for_each(|pool| *pool = there(pool));
        moved.load_balancers.insert(there(owner), balancer);
    }
    assert_eq!(bench.bring(&moved).await, moved);
    assert_eq!(bench.device.paths("auth/partition"), ["ake-p0", "ake_state"]);
}
