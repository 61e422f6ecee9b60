use ake_bigip::Fault;
use serde_json::json;

use super::*;
use crate::{
    driver::DriverError,
    fit::{Fitted, fit_to},
};

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

    /// What of a state the device can hold now.
    async fn fitted(&self, wanted: &State) -> Fitted {
        let held = self.driver.read().await.unwrap();
        fit_to(&self.driver, wanted, &held)
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
    bench.device.elsewhere("DELETE", "ltm/data-group/internal/~ake_state~version-1-8", json!({})).unwrap();
    bench.device.elsewhere("DELETE", "auth/partition/ake_state", json!({})).unwrap();
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
    let theirs = json!({"name": "theirs", "partition": "ake-p1", "monitor": "/Common/tcp"});
    bench.device.elsewhere("POST", "ltm/pool", theirs).unwrap();
    let theirs = json!({"name": "theirs", "destination": "/Common/203.0.113.99:80", "ipProtocol": "tcp"});
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
    bench.device.elsewhere("POST", "auth/partition", json!({"name": "ake-p1"})).unwrap();
    bench.driver.read().await.unwrap();
    let error = bench.driver.apply(&everything(1), &[]).await.unwrap_err().to_string();
    assert!(error.contains("partition ake-p1: it is there and not ours"), "{error}");
}

/// A project with one load balancer of its own.
fn of_project(project: &str, vip: &str, node: &str) -> State {
    let name = |object: &str| Owner::new(project, "c", object).unwrap();
    let pool = Pool { members: [("w0".to_owned(), member(node, 1))].into(), ..Pool::default() };
    let balancer = LoadBalancer {
        vip: vip.parse().unwrap(),
        listeners: [(endpoint(Protocol::Tcp, 80), name("nodes"))].into(),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    State {
        version: Version::default(),
        pools: [(name("nodes"), pool)].into(),
        load_balancers: [(name("web"), balancer)].into(),
    }
}

/// Two projects, the second of which wants what is in the way of somebody.
fn two_projects(number: u64) -> State {
    let mut both = of_project("p1", "203.0.113.17", "192.168.77.20");
    let other = of_project("p2", "203.0.113.33", "192.168.77.30");
    both.pools.extend(other.pools);
    both.load_balancers.extend(other.load_balancers);
    State { version: Version { epoch: 1, number }, ..both }
}

#[tokio::test]
async fn what_is_in_the_way_of_one_load_balancer_keeps_that_one_off() {
    for (collection, theirs, said) in [
        (
            "ltm/virtual",
            json!({"name": "theirs", "destination": "/Common/203.0.113.33:443", "ipProtocol": "tcp"}),
            "203.0.113.33: ltm/virtual-address /Common/203.0.113.33 has this address",
        ),
        (
            "ltm/node",
            json!({"name": "theirs", "address": "192.168.77.30"}),
            "192.168.77.30: ltm/node /Common/theirs has this address",
        ),
        ("auth/partition", json!({"name": "ake-p2"}), "partition ake-p2: it is there and not ours"),
    ] {
        let bench = Bench::new().await;
        bench.device.elsewhere("POST", collection, theirs).unwrap();
        let fitted = bench.fitted(&two_projects(1)).await;
        let refused: Vec<_> = fitted.refused.iter().map(|(owner, why)| (owner.to_string(), why)).collect();
        let [(owner, why)] = &refused[..] else { panic!("{collection}: {refused:?}") };
        assert_eq!(owner, "p2/c/web");
        assert!(why.iter().any(|reason| reason.to_string() == said), "{why:?}\nlacks {said}");
        assert!(fitted.state.load_balancers.keys().all(|owner| owner.project() == "p1"));
        assert_eq!(bench.bring(&fitted.state).await, fitted.state);
    }
}

#[tokio::test]
async fn what_the_device_refuses_one_project_is_not_in_the_way_of_others() {
    let taken = json!({"name": "theirs", "destination": "/Common/203.0.113.33:80", "ipProtocol": "tcp"});
    for (collection, theirs, path, said) in [
        ("ltm/virtual", taken, "~Common~theirs", "203.0.113.33"),
        ("auth/partition", json!({"name": "ake-p2"}), "ake-p2", "partition ake-p2: "),
    ] {
        let bench = Bench::new().await;
        bench.driver.read().await.unwrap();
        // it comes after the look, so that nobody knows of it but the device
        bench.device.elsewhere("POST", collection, theirs).unwrap();
        let error = bench.driver.apply(&two_projects(1), &[]).await.unwrap_err();
        let DriverError::RefusedInPart { reasons, .. } = &error else { panic!("{error}") };
        assert!(reasons.keys().eq(["p2"]) && reasons["p2"].contains(said), "{reasons:?}");
        let read = bench.driver.read().await.unwrap();
        assert!(read.load_balancers.keys().map(Owner::project).eq(["p1"]), "{read:?}");
        assert!(bench.device.saved(), "what was taken is saved");
        // and with the next look it is known
        let fitted = fit_to(&bench.driver, &two_projects(2), &read);
        assert_eq!(fitted.refused.len(), 1);
        bench.device.elsewhere("DELETE", &format!("{collection}/{path}"), json!({})).unwrap();
        assert_eq!(bench.bring(&two_projects(3)).await, two_projects(3));
    }
}

#[tokio::test]
async fn what_others_made_in_our_partition_serves_us_and_stays_theirs() {
    let bench = Bench::new().await;
    let partition = json!({"name": "ake-p1", "description": "ake project p1"});
    bench.device.elsewhere("POST", "auth/partition", partition).unwrap();
    let profile = json!({"name": "by-hand", "partition": "ake-p1"});
    bench.device.elsewhere("POST", "ltm/persistence/source-addr", profile).unwrap();
    let theirs = json!({"name": "theirs", "partition": "ake-p1", "ipProtocol": "tcp",
        "destination": "/ake-p1/203.0.113.17:8443"});
    bench.device.elsewhere("POST", "ltm/virtual", theirs).unwrap();
    let address = bench.device.object("ltm/virtual-address", "/ake-p1/203.0.113.17");
    let wanted = two_projects(1);
    assert_eq!(bench.bring(&wanted).await, wanted);
    bench.writes();
    assert_eq!(bench.bring(&wanted).await, wanted);
    assert_eq!(bench.writes(), Vec::<String>::new(), "their address is as good as ours");
    let nothing = State { version: Version { epoch: 1, number: 2 }, ..State::default() };
    assert_eq!(bench.bring(&nothing).await, nothing);
    assert_eq!(bench.device.object("ltm/virtual-address", "/ake-p1/203.0.113.17"), address);
    assert_eq!(bench.device.paths("ltm/persistence/source-addr"), ["/ake-p1/by-hand"]);
    assert_eq!(bench.device.paths("ltm/virtual"), ["/ake-p1/theirs"]);
}

#[tokio::test]
async fn what_others_refer_to_stays_until_they_do_no_more() {
    let bench = Bench::new().await;
    assert_eq!(bench.bring(&two_projects(1)).await, two_projects(1));
    let theirs = json!({"name": "theirs", "partition": "ake-p1", "ipProtocol": "tcp",
        "destination": "/ake-p1/203.0.113.17:8443"});
    bench.device.elsewhere("POST", "ltm/virtual", theirs).unwrap();
    let nothing = |number| State { version: Version { epoch: 1, number }, ..State::default() };
    assert_eq!(bench.bring(&nothing(2)).await, nothing(2));
    assert_eq!(bench.device.paths("ltm/virtual-address"), ["/ake-p1/203.0.113.17"]);
    bench.device.elsewhere("DELETE", "ltm/virtual/~ake-p1~theirs", json!({})).unwrap();
    assert_eq!(bench.bring(&two_projects(3)).await, two_projects(3));
    assert_eq!(bench.bring(&nothing(4)).await, nothing(4));
    assert_eq!(bench.device.paths("auth/partition"), ["ake_state"]);
}

#[tokio::test]
async fn a_token_that_ends_is_replaced_and_given_back() {
    // within a minute of its end a token is not used any more, so each of these serves once
    let device = Device::new(Options { token_seconds: 60, ..Options::default() });
    let bench = Bench::of(device.clone(), vec![served(&device).await]);
    assert_eq!(bench.bring(&everything(7)).await, everything(7));
    assert_eq!(device.tokens(), 1);
    let log = device.take_log();
    let count = |prefix: &str| log.iter().filter(|line| line.starts_with(prefix)).count();
    let logins = count("POST /mgmt/shared/authn/login");
    assert!(logins > 10, "{logins}");
    assert_eq!(count("DELETE /mgmt/shared/authz/tokens/"), logins - 1);
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
    assert!(one.saved() && two.saved(), "both start again with it");
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
