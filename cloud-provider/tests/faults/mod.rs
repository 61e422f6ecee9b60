//! The rules that keep anything from being destroyed by mistake, each with the fault that it is for, injected into the real
//! program and a real API server with its etcd; only the cloud is imitated. The others of the list are held elsewhere:
//!
//! | fault | held by |
//! |---|---|
//! | empty list from the API server | here: an etcd that has lost everything |
//! | restored old etcd | here |
//! | 404 for a server that is there | here: not found by its id, and listed |
//! | 404 for a project | here: ake-api, Neutron and Nova know nothing of the cluster |
//! | two controllers with one cluster name | here: both lead, by two Leases; other projects: `tests/tests/isolation.rs` |
//! | two Kubernetes with one cluster-id | `twins.rs`; at ake-api: `api/src/http/tests/kubernetes.rs` |
//! | a deposed leader that still writes | here: it is stopped right before its write and goes on once another leads; at every path of ake-api: `api/src/http/tests/tenancy.rs` |
//! | a Service deleted and made anew by the same name | `tests/services.rs` beside this; `src/services/tests/faults.rs` |
//! | empty list from ake-api | here: one that is wrong, and one that is right as all is lost; plans: `src/services/tests/faults.rs` |
//! | empty list from Neutron | `api/src/http/tests/faults.rs` |
//! | a full disk under SQLite | `api/src/store/tests/full.rs` |
//! | `kill -9` before and after every Step | `tests/tests/kill` |

mod stage;
mod twins;

use std::{collections::BTreeSet, time::Duration};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::cloud::CLUSTER;
use stage::{Habits, LONG, Manager, SERVICES, Stage, furnished};

#[test]
fn nothing_is_destroyed_by_a_view_that_is_wrong_or_a_writer_that_is_late() {
    let mut stage = furnished(SERVICES);
    what_balancers_say_is_told_without_a_look(&mut stage);
    a_cloud_that_knows_nothing_of_the_project_stops_everything(&mut stage);
    a_server_that_is_listed_is_there_whatever_else_is_said(&mut stage);
    an_ake_api_that_shows_nothing_takes_nothing_away(&mut stage);
    a_rule_that_somebody_deletes_comes_back(&mut stage);
    another_credential_is_taken_in_while_it_runs(&mut stage);
    two_controllers_of_one_name_agree(&mut stage);
    a_deposed_leader_writes_nothing(&mut stage);
    an_old_etcd_takes_nothing_away(&mut stage);
    an_etcd_that_lost_everything_takes_nothing_away(&mut stage);
}

/// Not a fault of ours: nodes fall ill while nothing changes in Kubernetes, and nothing is due.
fn what_balancers_say_is_told_without_a_look(stage: &mut Stage) {
    let drift = Duration::from_secs(3600);
    stage.managers.clear();
    let manager = Manager::start(
        &stage.server,
        &stage.cloud,
        "h",
        &Habits { lease: "health", times: LONG, drift, ..Habits::default() },
    );
    stage.managers.push(manager);
    stage.make("told", 9200);
    stage.wait("its address", |stage| stage.published().len() == SERVICES + 1);
    let writes = stage.cloud.look().taken.len();
    for (healthy, reason) in [(false, "LoadBalancerMembersDown"), (true, "LoadBalancerMembersUp")] {
        stage.cloud.look().all_are(healthy);
        stage.wait(reason, |stage| {
            let fields = format!("reason={reason}");
            let events = stage.get(&["events", "-n", "default", "--field-selector", &fields]);
            let told = events["items"].as_array().cloned().unwrap_or_default();
            // Each of those that share the nodes is told once.
            assert!(told.iter().all(|event| event["count"] == 1), "{told:?}");
            told.len() == SERVICES + 1
        });
    }
    assert_eq!(stage.cloud.look().taken.len(), writes, "that nodes are ill is no reason to write");
    stage.rest();
    // Longer than anything waits that is not done; and a feed that says what is known is asked less and less.
    let inner = stage.cloud.look();
    let (looks, asked) = (inner.looks, inner.asked);
    drop(inner);
    stage.let_pass(13);
    let inner = stage.cloud.look();
    assert_eq!(inner.looks, looks, "where all is done, nothing is read without news");
    assert!((asked + 1..asked + 10).contains(&inner.asked), "{asked} {}", inner.asked);
    drop(inner);
    stage.end("told");
    let manager = Manager::start(&stage.server, &stage.cloud, "a", &Habits::default());
    stage.managers = vec![manager];
}

fn a_cloud_that_knows_nothing_of_the_project_stops_everything(stage: &mut Stage) {
    let before = stage.published();
    let writes = stage.cloud.look().taken.len();
    stage.cloud.look().is_elsewhere = true;
    // Its node would be deleted with its server, if there were none.
    stage.node_is("Unknown");
    let out = stage.server.kubectl(&["delete", "service", "s0", "--wait=false"], "");
    assert!(out.status.success());
    stage.let_pass(4);
    assert_eq!(stage.published(), before);
    assert_eq!(stage.get(&["nodes"])["items"].as_array().map(Vec::len), Some(1));
    let held = stage.get(&["service", "s0"])["metadata"]["finalizers"].to_string();
    assert!(held.contains("load-balancer-cleanup"), "it has no load balancer that it knows of: {held}");

    let mut inner = stage.cloud.look();
    assert_eq!(inner.taken.len(), writes);
    inner.is_elsewhere = false;
    drop(inner);
    stage.node_is("True");
    stage.wait("the end of a deleted Service", |stage| stage.published().len() == SERVICES - 1);
    stage.make("s0", 8000);
    stage.wait("its address", |stage| stage.published().len() == SERVICES);
}

fn a_server_that_is_listed_is_there_whatever_else_is_said(stage: &mut Stage) {
    stage.cloud.look().wavers = true;
    stage.node_is("Unknown");
    stage
        .wait("its word", |stage| stage.managers[0].log().contains("lists a server that was just not found"));
    stage.cloud.look().wavers = false;
    stage.node_is("True");
    // Without it the rest would have no member.
    assert_eq!(stage.get(&["nodes"])["items"].as_array().map(Vec::len), Some(1));
}

fn an_ake_api_that_shows_nothing_takes_nothing_away(stage: &mut Stage) {
    let (published, finalizers) = (stage.published(), stage.finalizers());
    let inner = stage.cloud.look();
    let (writes, refused, rules) = (inner.taken.len(), inner.refused.len(), inner.rules.clone());
    drop(inner);
    let uid = stage.get(&["service", "s0"])["metadata"]["uid"].as_str().unwrap().to_owned();

    // The view is wrong, and all is there: it is made anew in vain.
    stage.cloud.look().is_blind = true;
    stage.wait("plans made from it", |stage| stage.cloud.look().refused.len() > refused + 1);
    assert!(stage.server.kubectl(&["delete", "service", "s0", "--wait=false"], "").status.success());
    stage.let_pass(2);
    assert_eq!((stage.published(), stage.finalizers()), (published.clone(), finalizers));
    let mut inner = stage.cloud.look();
    assert_eq!((inner.taken.len(), &inner.rules), (writes, &rules), "{:?}", inner.taken);
    assert!(inner.refused[refused..].iter().all(|code| code == "stale"), "{:?}", inner.refused);
    inner.is_blind = false;
    drop(inner);
    stage.wait("the end of a deleted Service", |stage| stage.cloud.look().balancers().len() == SERVICES - 1);
    let taken = stage.cloud.look().taken[writes..].to_vec();
    assert!(taken.iter().all(|write| write.starts_with("delete-") && write.contains(&uid)), "{taken:?}");
    stage.wait("its end", |stage| stage.get(&["service", "s0"]).is_null());
    stage.make("s0", 8000);
    stage.wait("its address", |stage| stage.published().len() == SERVICES);

    // All is lost: it is made anew as it was, and whoever looks at a Service sees nothing of it.
    let published = stage.published();
    let mut inner = stage.cloud.look();
    let (addresses, removals) = (inner.state["addresses"].clone(), inner.removals());
    inner.lose_objects();
    drop(inner);
    stage.wait("all of it again, members last", |stage| {
        assert_eq!(stage.published(), published);
        let inner = stage.cloud.look();
        let ports = inner.state["node_ports"].as_object().map(serde_json::Map::len);
        let members = inner.state["pools"]["nodes"]["members"].as_object().map(serde_json::Map::len);
        (inner.balancers().len(), ports, members) == (SERVICES, Some(1), Some(1))
    });
    stage.let_pass(2);
    let inner = stage.cloud.look();
    assert_eq!((&inner.state["addresses"], inner.removals()), (&addresses, removals));
    drop(inner);
    assert_eq!(stage.published(), published);
}

fn a_rule_that_somebody_deletes_comes_back(stage: &mut Stage) {
    let rules = |stage: &Stage| {
        let known = stage.cloud.look().rules.clone();
        known.iter().map(|rule| rule["port_range_min"].to_string()).collect::<BTreeSet<_>>()
    };
    let before = rules(stage);
    assert!(before.contains("8001"), "{before:?}");
    stage.cloud.look().rules.retain(|rule| rule["port_range_min"] != 8001);
    stage.wait("the rule", |stage| rules(stage) == before);
}

fn another_credential_is_taken_in_while_it_runs(stage: &mut Stage) {
    // Another one that keeps its Lease through pauses: only the file is to end it.
    stage.managers = vec![Manager::start(
        &stage.server,
        &stage.cloud,
        "e",
        &Habits { lease: "config", times: LONG, ..Habits::default() },
    )];
    let looks = stage.cloud.look().looks;
    stage.wait("its first look", |stage| stage.cloud.look().looks > looks);
    let config = stage.managers[0].folder.join("cloud.conf");
    let good = std::fs::read_to_string(&config).unwrap();
    let write = |text: &str| {
        std::fs::write(config.with_extension("new"), text).unwrap();
        std::fs::rename(config.with_extension("new"), &config).unwrap();
    };
    // What cannot be used is told, and ends nobody.
    let process = stage.managers[0].running.id();
    write(&good.replace("auth-url", "auth-ulr"));
    stage.wait("its word", |stage| stage.managers[0].log().contains("still with the old one"));
    assert_eq!(stage.managers[0].running.id(), process);

    write(&good.replace("application-credential-id = a", "application-credential-id = renewed"));
    stage.wait("a login with it", |stage| stage.cloud.look().logins.iter().any(|id| id == "renewed"));
    assert_ne!(stage.managers[0].running.id(), process);
    stage.make("renewed", 9002);
    stage.wait("an address", |stage| stage.published().len() == SERVICES + 1);
    stage.end("renewed");
    stage.wait("its end", |stage| stage.cloud.look().balancers().len() == SERVICES);
    stage.managers = vec![Manager::start(&stage.server, &stage.cloud, "a", &Habits::default())];
}

fn two_controllers_of_one_name_agree(stage: &mut Stage) {
    let other =
        Manager::start(&stage.server, &stage.cloud, "b", &Habits { lease: "second", ..Habits::default() });
    stage.managers.push(other);
    stage.let_pass(4);
    let before = stage.cloud.look().taken.len();
    stage.make("both", 9000);
    stage.wait("an address", |stage| stage.published().len() == SERVICES + 1);
    stage.let_pass(4);
    // Made once, and never taken away by the one that did not make it.
    let taken = stage.cloud.look().taken[before..].to_vec();
    let made = |kind: &str| taken.iter().filter(|write| write.starts_with(kind)).count();
    assert_eq!((made("put-load-balancer"), made("put-address"), made("delete-")), (1, 1, 0), "{taken:?}");
    stage.end("both");
    stage.managers.pop();
    let balancers = stage.cloud.look().balancers();
    assert_eq!(balancers.len(), SERVICES, "{balancers:?}");
}

fn a_deposed_leader_writes_nothing(stage: &mut Stage) {
    // It stops right before its write; by then it has made sure that it leads, and by its own clock it still does when it
    // goes on.
    stage.managers =
        vec![Manager::start(&stage.server, &stage.cloud, "d", &Habits { times: LONG, ..Habits::default() })];
    stage.managers[0].tell("stop:put_load_balancer");
    stage.make("late", 9001);
    stage.wait("its stop", |stage| stage.managers[0].was_told());
    let nobody = json!({"spec": {"holderIdentity": ""}}).to_string();
    let out = stage.server.kubectl(&["patch", "lease", "-n", "kube-system", "first", "-p", &nobody], "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let next = Manager::start(&stage.server, &stage.cloud, "c", &Habits::default());
    stage.managers.push(next);
    stage.wait("an address", |stage| stage.published().len() == SERVICES + 1);
    stage.let_pass(2);
    let writes = stage.cloud.look().taken.clone();
    let refused = stage.cloud.look().refused.len();
    // The Lease cannot tell it before its write is out that another leads.
    stage.server.signal(Signal::SIGSTOP);
    stage.managers[0].signal(Signal::SIGCONT);
    stage.wait("its write", |stage| stage.cloud.look().refused.len() > refused);
    stage.server.signal(Signal::SIGCONT);
    stage.wait("its end", |stage| stage.managers[0].log().contains("leadership lost"));
    stage.let_pass(2);
    let inner = stage.cloud.look();
    let why = &inner.refused[refused..];
    assert!(why[0] == "deposed" && why.iter().all(|code| code == "deposed" || code == "stale"), "{why:?}");
    assert_eq!(inner.taken, writes);
    drop(inner);
    drop(stage.managers.remove(0));
    assert!(stage.server.kubectl(&["delete", "service", "late", "--wait=false"], "").status.success());
    stage.wait("the end of it", |stage| stage.cloud.look().balancers().len() == SERVICES);
}

fn an_old_etcd_takes_nothing_away(stage: &mut Stage) {
    stage.server.keep_etcd();
    for young in ["y0", "y1", "y2", "y3"] {
        stage.make(young, 9100);
    }
    stage.wait("younger ones", |stage| stage.published().len() == SERVICES + 4);
    assert!(stage.server.kubectl(&["delete", "service", "s1", "--wait=false"], "").status.success());
    stage.wait("the end of one", |stage| stage.cloud.look().balancers().len() == SERVICES + 3);
    let (before, removals) = stage.cloud.balancers_and_removals();

    stage.server.put_back_etcd();
    // The one that is back gets a load balancer again; those that it does not know keep theirs.
    stage.wait("the one that is back", |stage| stage.cloud.look().balancers().len() == SERVICES + 4);
    stage.let_pass(4);
    let inner = stage.cloud.look();
    assert_eq!(inner.removals(), removals);
    let balancers = inner.balancers();
    assert!(before.iter().all(|name| balancers.contains(name)), "{before:?} {balancers:?}");
}

fn an_etcd_that_lost_everything_takes_nothing_away(stage: &mut Stage) {
    let (before, removals) = stage.cloud.balancers_and_removals();
    stage.server.lose_etcd();
    let lease = "first".to_owned();
    stage.wait("a leader in what is left", |stage| {
        !stage.get(&["lease", "-n", "kube-system", &lease])["spec"]["holderIdentity"].is_null()
    });
    stage.let_pass(6);
    let inner = stage.cloud.look();
    assert_eq!((inner.balancers(), inner.removals()), (before, removals), "cluster {CLUSTER}");
}
