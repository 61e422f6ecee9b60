//! What the controller writes to Services, and what the admission policy refuses, held to a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod apiserver;
mod cloud;
mod faults;

use std::time::{Duration, Instant};

use apiserver::ApiServer;
use cloud_provider::{
    cluster::{Cluster, Key, Selector},
    services::{
        policy,
        publish::Pen,
        view::{self, Classes, FINALIZER},
    },
};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

fn service(name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default", "annotations": annotations},
           "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}})
}

fn uid(server: &ApiServer, name: &str) -> String {
    let out = server.kubectl(&["get", "service", name, "-o", "jsonpath={.metadata.uid}"], "");
    String::from_utf8(out.stdout).unwrap()
}

/// Both on one API server, which takes seconds to start.
#[test]
fn what_is_written_and_what_is_refused() {
    let server = ApiServer::start();
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(a_service_made_anew_by_the_same_name_is_another_one(&server));
    the_policy_refuses_what_is_newly_wrong_and_nothing_else(&server);
}

async fn a_service_made_anew_by_the_same_name_is_another_one(server: &ApiServer) {
    let cluster = Cluster::connect(Some(&server.kubeconfig())).await.unwrap();
    let project = |service: Service| view::service(service, &Classes::default());
    let services = cluster.watch(Selector::default(), project, |_| {});
    assert!(services.ready().await);
    let pen = Pen { cluster: cluster.clone(), services };
    let key = Key::new("default", "again");
    let vip = ["203.0.113.20".parse().unwrap()];

    server.apply(&service("again", &json!({})).to_string()).unwrap();
    let first = uid(server, "again");
    pen.set_finalizer(&key, &first, true).await.unwrap();
    pen.set_status(&key, &first, &vip).await.unwrap();
    pen.set_finalizer(&key, &first, false).await.unwrap();
    assert!(server.kubectl(&["delete", "service", "again"], "").status.success());

    server.apply(&service("again", &json!({})).to_string()).unwrap();
    // What was still to be done for the one before is done to nobody.
    pen.set_status(&key, &first, &vip).await.unwrap();
    pen.set_finalizer(&key, &first, true).await.unwrap();
    let found: Service = cluster.get(Some("default"), "again").await.unwrap().unwrap();
    assert_ne!(found.metadata.uid.as_deref(), Some(first.as_str()));
    assert!(!found.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER));
    let status = found.status.and_then(|status| status.load_balancer).unwrap_or_default();
    assert_eq!(status.ingress.unwrap_or_default(), []);
    // Nor is it a failure where it is gone altogether.
    assert!(server.kubectl(&["delete", "service", "again"], "").status.success());
    pen.set_status(&key, &first, &vip).await.unwrap();
}

fn the_policy_refuses_what_is_newly_wrong_and_nothing_else(server: &ApiServer) {
    let wrong = [
        ("loadbalancer.openstack.org/proxy-protocol", "v2"),
        ("loadbalancer.openstack.org/x-forwarded-for", "true"),
        ("loadbalancer.openstack.org/port-id", "6f3a"),
        ("ake.dev/retain-address", "yes"),
        ("ake.dev/drain-seconds", "3601"),
        ("ake.dev/health-check", "http"),
        ("ake.dev/address", "203.0.113"),
        ("ake.dev/range", "203.0.113.1"),
        ("ake.dev/share-with", "other"),
        ("loadbalancer.openstack.org/node-selector", "a=b,=c"),
    ];
    let shared = [
        json!({"ake.dev/share": "web", "ake.dev/retain-address": "Project"}),
        json!({"ake.dev/share": "web", "loadbalancer.openstack.org/keep-floatingip": "true"}),
    ];
    // Made before there was a policy.
    server.apply(&service("old", &json!({"ake.dev/health-check": "http"})).to_string()).unwrap();
    let held = json!({"metadata": {"finalizers": ["example.org/held"]}}).to_string();
    server.apply(&service("going", &json!({"ake.dev/health-check": "http"})).to_string()).unwrap();
    assert!(server.kubectl(&["patch", "service", "going", "-p", &held], "").status.success());
    assert!(server.kubectl(&["delete", "service", "going", "--wait=false"], "").status.success());

    server.apply(&policy::manifest()).unwrap();
    let begun = Instant::now();
    let first = service("first", &json!({"ake.dev/health-check": "http"})).to_string();
    while server.apply(&first).is_ok() {
        assert!(server.kubectl(&["delete", "service", "first"], "").status.success());
        assert!(begun.elapsed() < Duration::from_secs(60), "the policy does not come into force");
        std::thread::sleep(Duration::from_millis(200));
    }
    for (name, value) in wrong {
        let refusal = server.apply(&service("wrong", &json!({name: value})).to_string()).unwrap_err();
        assert!(refusal.contains("expected") && refusal.contains("services.ake.dev"), "{name}: {refusal}");
    }
    for both in shared {
        let refusal = server.apply(&service("wrong", &both).to_string()).unwrap_err();
        assert!(refusal.contains("together with ake.dev/share"), "{refusal}");
    }
    let kept =
        json!({"ake.dev/retain-address": "project", "loadbalancer.openstack.org/keep-floatingip": "true"});
    server.apply(&service("kept", &kept).to_string()).unwrap();
    let right = json!({
        "ake.dev/address": "203.0.113.20, 2001:db8::1", "ake.dev/range": "203.0.113.0/24", "ake.dev/share": "web",
        "ake.dev/share-with": "*", "ake.dev/drain-seconds": "90", "ake.dev/health-check": "vip", "ake.dev/retain-address": "false",
        "loadbalancer.openstack.org/proxy-protocol": "False", "loadbalancer.openstack.org/node-selector": "a=b,c",
        "loadbalancer.openstack.org/keep-floatingip": "true", "example.org/other": "v2",
    });
    server.apply(&service("right", &right).to_string()).unwrap();
    // What was wrong before may stay, and what goes may go.
    server
        .apply(&service("old", &json!({"ake.dev/health-check": "http", "example.org/a": "b"})).to_string())
        .unwrap();
    let both = json!({"ake.dev/health-check": "http", "ake.dev/retain-address": "yes"});
    assert!(server.apply(&service("old", &both).to_string()).is_err(), "a second thing that is wrong");
    let let_go = json!({"metadata": {"finalizers": null}}).to_string();
    let out = server.kubectl(&["patch", "service", "going", "--type=merge", "-p", &let_go], "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Services of other kinds and classes are nobody's business here.
    let mut other = service("other", &json!({"ake.dev/health-check": "http"}));
    other["spec"]["loadBalancerClass"] = json!("example.org/other");
    server.apply(&other.to_string()).unwrap();
    let mut inside = service("inside", &json!({"ake.dev/health-check": "http"}));
    inside["spec"]["type"] = json!("ClusterIP");
    server.apply(&inside.to_string()).unwrap();
    inside["spec"]["type"] = json!("LoadBalancer");
    assert!(server.apply(&inside.to_string()).is_err(), "a Service that becomes one with it");
}
