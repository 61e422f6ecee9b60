//! Two Kubernetes with one cluster-id, as a copied cloud.conf makes them: each with an API server, an etcd and a controller
//! manager of its own, and one ake-api.

use serde_json::{Value, json};

use super::stage::{Habits, Manager, PATIENCE, Stage, furnished};
use crate::apiserver::ApiServer;

/// As many as may go at once.
const FEW: usize = 2;

const VOLUME: &str = "44444444-4444-4444-4444-444444444444";

fn uid(server: &ApiServer) -> String {
    let out = server.kubectl(&["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"], "");
    String::from_utf8(out.stdout).unwrap()
}

/// What the Events on Services say.
fn said(server: &ApiServer) -> String {
    let out = server.kubectl(&["get", "events", "-n", "default", "-o", "json"], "");
    let events: Value = serde_json::from_slice(&out.stdout).unwrap();
    events["items"].as_array().unwrap().iter().map(|event| format!("{}\n", event["message"])).collect()
}

fn known(stage: &Stage) -> Value {
    stage.cloud.look().state["cluster"]["kubernetes"].clone()
}

fn know(stage: &Stage, kubernetes: Value) {
    stage.cloud.look().state["cluster"]["kubernetes"] = kubernetes;
}

/// A PersistentVolume as a copy of the first one's has it, whose claim is gone in the copy.
fn copied_volume(server: &ApiServer) {
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": VOLUME, "annotations": {"pv.kubernetes.io/provisioned-by": "cinder.csi.openstack.org"}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": "cinder.csi.openstack.org", "volumeHandle": VOLUME}}});
    server.apply(&volume.to_string()).unwrap();
    let released = json!({"status": {"phase": "Released"}}).to_string();
    let out = server.kubectl(&["patch", "pv", VOLUME, "--subresource=status", "-p", &released], "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Whether nobody has deleted it; nobody is there who would take Kubernetes' own finalizer away. The cloud has no volumes, so
/// that of one that may go nothing is left.
fn has_volume(server: &ApiServer) -> bool {
    let shown = "jsonpath={.metadata.name}{.metadata.deletionTimestamp}";
    let out = server.kubectl(&["get", "pv", VOLUME, "--ignore-not-found", "-o", shown], "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap() == VOLUME
}

fn said_of_volumes(server: &ApiServer) -> String {
    let of = "involvedObject.kind=PersistentVolume";
    let out = server.kubectl(&["get", "events", "-A", "--field-selector", of, "-o", "json"], "");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn another_kubernetes_of_the_same_id_takes_nothing_away_and_says_why() {
    let mut stage = furnished(FEW);
    let own = uid(&stage.server);
    assert_eq!(known(&stage), own);
    let before = stage.cloud.look().everything();

    let twin = ApiServer::start();
    let name = uid(&twin);
    copied_volume(&twin);
    let volumes = Habits { controllers: "*", ..Habits::default() };
    stage.managers.push(Manager::start(&twin, &stage.cloud, "twin", &volumes));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mine", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 9100}]}});
    twin.apply(&service.to_string()).unwrap();
    stage.wait("its word", |_| said(&twin).contains(&own));
    let events = said(&twin);
    for word in [&name, "svc-", "cluster-id", "PUT /v1/clusters/"] {
        assert!(events.contains(word), "{word}: {events}");
    }
    assert!(stage.managers[1].log().contains(&own), "{}", stage.managers[1].log());
    stage.wait("its word on the volume", |_| said_of_volumes(&twin).contains(&own));
    stage.let_pass(6);
    assert_eq!(stage.cloud.look().everything(), before);
    assert!(has_volume(&twin), "{}", said_of_volumes(&twin));
    stage.make("third", 9200);
    stage.wait("an address of the first one's", |stage| stage.published().len() == FEW + 1);

    // An ake-api that has lost its database is not told a wrong one by whoever is there first.
    let first = stage.managers.remove(0);
    drop(first);
    let before = stage.cloud.look().everything();
    know(&stage, Value::Null);
    stage.let_pass(6);
    let after = stage.cloud.look().everything();
    assert_eq!((after, known(&stage)), (before, Value::Null));
    assert!(has_volume(&twin), "{}", said_of_volumes(&twin));
    stage.managers.push(Manager::start(&stage.server, &stage.cloud, "a", &Habits::default()));
    stage.wait("its own", |stage| known(stage) == own);

    // The owner says that the other one has taken its place.
    know(&stage, json!(name));
    let begun = std::time::Instant::now();
    while !said(&twin).contains("Ensured load balancer") {
        assert!(begun.elapsed() < PATIENCE, "{}", said(&twin));
        stage.let_pass(1);
    }
    assert_eq!(known(&stage), name);
    drop(stage.managers.remove(0));
    // What was refused is tried again soon where the manager is new.
    stage.managers.push(Manager::start(&twin, &stage.cloud, "heir", &volumes));
    let begun = std::time::Instant::now();
    while has_volume(&twin) {
        assert!(begun.elapsed() < PATIENCE, "{}", said_of_volumes(&twin));
        stage.let_pass(1);
    }
}
