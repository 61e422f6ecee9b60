//! What the tenant of a running cluster is told of what cannot be, where it looks: `kubectl describe`, stack events. And
//! that nothing is left of it. Plays with the cluster `neighbour`, which `path.rs` leaves, one test after the other.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use scenarios::{
    checkout,
    cluster::Cluster,
    report::Report,
    stacks::{DEADLINE, run, says, utc},
    tenant::{Credential, Tenant},
    wait_for,
};
use serde_json::Value;

const MASTER: &str = "neighbour-master-0";

/// There is one `neighbour`.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn with_neighbour(test: impl FnOnce(&Tenant<'_>, &Cluster<'_>) -> Result<()>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    run(|lab| {
        let tenant = Tenant::new(lab, "neighbour")?;
        let cluster = Cluster::of(lab, &tenant, "neighbour")?;
        test(&tenant, &cluster)
    });
}

/// A Service of type LoadBalancer without pods.
fn service(name: &str, port: u16, annotation: Option<(&str, &str)>, more: &str) -> String {
    let annotations = annotation.map_or(String::new(), |(key, value)| format!("{key}: \"{value}\""));
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec: {{type: LoadBalancer, selector: {{app: none}}, ports: [{{port: {port}}}]{more}}}\n---\n"
    )
}

/// Waits until `kubectl describe` of a Service shows a warning with these words.
fn warned(cluster: &Cluster<'_>, name: &str, words: &[&str]) -> Result<()> {
    wait_for(&format!("a warning of {words:?}"), DEADLINE, || {
        let described = cluster.kubectl(&["describe", "service", name])?;
        let events = described.split_once("Events:").map_or("", |(_, events)| events);
        let warning = |line: &str| line.contains("Warning") && words.iter().all(|word| line.contains(word));
        Ok(events.lines().any(warning).then_some(()))
    })
    .map_err(|error| error.context(cluster.kubectl(&["describe", "service", name]).unwrap_or_default()))
}

/// Names at ake-api that are a Service's.
fn objects_of(tenant: &Tenant<'_>, cluster: &Cluster<'_>, uid: &str) -> Result<Vec<String>> {
    let state = tenant.api()?.get("ake", &format!("/v1/clusters/{}", cluster.id))?;
    let kinds = ["addresses", "pools", "load_balancers"];
    let names = kinds.iter().filter_map(|kind| state[kind].as_object()).flat_map(|all| all.keys().cloned());
    Ok(names.filter(|name| name.contains(uid)).collect())
}

#[test]
fn a_service_that_asks_for_what_cannot_be_is_told_what_and_why() {
    with_neighbour(|tenant, cluster| {
        let taken = cluster.vip("web")?.to_string();
        let octavia = "loadbalancer.openstack.org";
        let cases: [(&str, String, &str, &[&str]); 7] = [
            ("proxy", format!("{octavia}/proxy-protocol"), "v2", &["direct server return cannot insert"]),
            (
                "forwarded",
                format!("{octavia}/x-forwarded-for"),
                "true",
                &["direct server return does not read HTTP"],
            ),
            (
                "tls",
                format!("{octavia}/default-tls-container-ref"),
                "http://barbican/1",
                &["does not terminate TLS"],
            ),
            ("foreign", "ake.dev/address".into(), "203.0.113.1", &["VIP blocks 203.0.113."]),
            (
                "nonsense",
                "ake.dev/address".into(),
                "first",
                &["an IPv4 or IPv6 address of the cluster's VIP blocks"],
            ),
            ("taken", "ake.dev/address".into(), &taken, &["already taken by address svc-"]),
            ("selector", format!("{octavia}/node-selector"), "=big", &["key=value or key"]),
        ];
        let manifest: String =
            cases.iter().map(|(name, key, value, _)| service(name, 7000, Some((key, value)), "")).collect();
        cluster.apply(&manifest)?;
        let checked = (|| {
            for (name, key, value, words) in &cases {
                // ake-api knows nothing of annotations: it names its own field.
                let field = if *name == "taken" { "address" } else { key };
                warned(cluster, name, &[&[field, *value, "expected"], *words].concat())?;
                let found = cluster.get(&["service", name])?;
                ensure!(
                    found["status"]["loadBalancer"]["ingress"].is_null(),
                    "{name} has an address: {found}"
                );
                let left = objects_of(tenant, cluster, found["metadata"]["uid"].as_str().context("a UID")?)?;
                ensure!(left.is_empty(), "{name} has at ake-api: {left:?}");
            }
            Ok(())
        })();
        cluster.remove(&manifest)?;
        checked
    });
}

/// The cluster with another credential in its cloud.conf, for as long as `test` runs. Then the program is started again, or
/// is to take the right one in while it runs.
fn with_credential(
    cluster: &Cluster<'_>,
    credential: &Credential,
    restarts: bool,
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let file = "/etc/ake/cloud.conf";
    let restart = "systemctl restart ake-cloud-controller-manager";
    let change = |key: &str, value: &str| {
        format!("s|^application-credential-{key}.*|application-credential-{key} = \"{value}\"|")
    };
    let (id, secret) = (change("id", &credential.id), change("secret", &credential.secret));
    cluster.exec(
        MASTER,
        &format!("cp -p {file} /run/cloud.conf && sed -i '{id}; {secret}' {file} && {restart}"),
    )?;
    let tested = test();
    let put_back = format!("cp -p /run/cloud.conf {file}.new && mv {file}.new {file} && rm /run/cloud.conf");
    cluster.exec(MASTER, &if restarts { format!("{put_back} && {restart}") } else { put_back })?;
    tested
}

#[test]
fn a_credential_that_does_not_do_is_told_on_what_waits_for_it() {
    with_neighbour(|tenant, cluster| {
        let report = &mut Report::new("credentials");
        let rules = checkout().join("templates/access-rules.json").display().to_string();
        let soon = SystemTime::now() + Duration::from_secs(20);
        let until = utc(soon)?;
        let words = [
            "application",
            "credential",
            "create",
            "--access-rules",
            &rules,
            "--expiration",
            &until,
            "short",
        ];
        let made = tenant.json(&words)?;
        let text = |key: &str| made[key].as_str().map(ToOwned::to_owned).context("a new credential");
        let expired = Credential { id: text("ID")?, secret: text("Secret")? };
        let mut some: Vec<Value> = serde_json::from_str(&fs::read_to_string(&rules)?)?;
        some.retain(|rule| !(rule["method"] == "POST" && rule["path"] == "/**v2.0/security-group-rules"));
        let lacking = tenant.credential_with("lacking", &serde_json::to_string(&some)?, report)?;
        let wrong = Credential { id: lacking.id.clone(), secret: "marker-of-a-wrong-secret".to_owned() };

        let manifest = service("waiting", 7001, None, "");
        let tested = (|| {
            with_credential(cluster, &lacking, true, || {
                cluster.apply(&manifest)?;
                warned(cluster, "waiting", &["no access rule for POST /v2.0/security-group-rules"])
            })?;
            cluster.vip("waiting")?;
            cluster.remove(&manifest)?;
            std::thread::sleep(soon.duration_since(SystemTime::now()).unwrap_or_default());
            for (credential, restarts) in [(&wrong, true), (&expired, false)] {
                with_credential(cluster, credential, restarts, || {
                    cluster.apply(&manifest)?;
                    warned(cluster, "waiting", &["application credential", &credential.id])
                })?;
                // With the right one it is made.
                cluster.vip("waiting")?;
                cluster.remove(&manifest)?;
            }
            Ok(())
        })();
        for name in ["short", "lacking"] {
            tenant.openstack(&["application", "credential", "delete", name])?;
        }
        tested
    });
}

#[test]
fn without_ake_api_stacks_and_services_say_so_and_go_on_when_it_is_back() {
    with_neighbour(|tenant, cluster| {
        let lab = cluster.lab;
        let manifest = service("waiting", 7002, None, "");
        lab.stop("ake-api")?;
        let begun = Instant::now();
        let failed = (|| {
            cluster.apply(&manifest)?;
            let given = ["create", "-f", "json", "-t"];
            let template = checkout().join("tests/fixtures/vip.yaml").display().to_string();
            tenant.openstack(&[&["stack"], &given[..], &[&template, "bad"]].concat())?;
            let said =
                tenant.settled("bad", "CREATE_COMPLETE").err().context("a stack was made without ake-api")?;
            says(&format!("{said:#}"), &["ake-api", "https://192.0.2.2:9511"])?;
            ensure!(begun.elapsed() < DEADLINE, "said after {} s", begun.elapsed().as_secs());
            warned(cluster, "waiting", &["ake-api", "https://192.0.2.2:9511"])
        })();
        lab.restart("ake-api")?;
        tenant.remove("bad")?;
        failed?;
        cluster.vip("waiting")?;
        cluster.remove(&manifest)
    });
}
