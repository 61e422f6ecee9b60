//! Clusters of several projects, even of the same name, do not touch each other; nobody reaches what is another's.
//!
//! The one that is tried to be touched is the cluster `neighbour`, which `path.rs` leaves.

use std::{fs, time::Duration};

use ake_lab::Lab;
use anyhow::{Context, Result, ensure};
use scenarios::{
    api::{Api, request},
    checkout,
    cluster::Cluster,
    proofs::{Background, balancers_with, dual_services, fixture, reachable, target},
    report::Report,
    stacks::{new_id, new_project, nothing_left, run, says, with_project, without_health},
    tenant::{Tenant, Wish},
    wait_for,
};
use serde_json::{Value, json};

/// Everything that the neighbour has, as the services tell it; revisions and times of change are among it.
fn all_of(tenant: &Tenant<'_>, cluster: &str) -> Result<Value> {
    let api = tenant.api()?;
    Ok(json!([
        without_health(api.get("ake", &format!("/v1/clusters/{cluster}"))?),
        api.get("network", "/v2.0/ports?sort_key=id&sort_dir=asc")?,
        api.get("network", "/v2.0/security-groups?sort_key=id&sort_dir=asc")?,
        api.get("compute", "/servers")?,
        api.get("block-storage", "/volumes")?,
    ]))
}

/// The neighbour's id, and the first of its objects' of each kind.
struct Victim {
    cluster: String,
    block: String,
    server_address: String,
    port: String,
    server: String,
    worker: String,
}

impl Victim {
    fn of(lab: &Lab) -> Result<Self> {
        let tenant = Tenant::new(lab, "neighbour")?;
        let api = tenant.api()?;
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned).context("a text");
        let clusters = api.get("ake", "/v1/clusters")?;
        let found = clusters.as_array().and_then(|all| all.iter().find(|one| one["name"] == "neighbour"));
        let cluster = text(&found.context("the cluster neighbour: path.rs leaves it")?["id"])?;
        let state = api.get("ake", &format!("/v1/clusters/{cluster}"))?;
        let member = state["pools"]["masters"]["members"].as_object().and_then(|all| all.values().next());
        let server_address = text(&member.context("a master")?["address"])?;
        let ports = api.get("network", &format!("/v2.0/ports?fixed_ips=ip_address%3D{server_address}"))?;
        let servers = api.get("compute", "/servers?name=neighbour-worker-0")?;
        Ok(Self {
            block: text(&state["cluster"]["vip_blocks"][0])?,
            port: text(&ports["ports"][0]["id"])?,
            server: text(&ports["ports"][0]["device_id"])?,
            worker: text(&servers["servers"][0]["id"])?,
            cluster,
            server_address,
        })
    }
}

#[test]
fn a_cluster_of_the_same_name_in_another_project_touches_nothing() {
    run(|lab| {
        let theirs = Tenant::new(lab, "neighbour")?;
        let cluster = Cluster::of(lab, &theirs, "neighbour")?;
        let vip = cluster.vip("web")?;
        reachable(&cluster, vip)?;
        let before = all_of(&theirs, &cluster.id)?;
        let watch = Background::start(lab, &target(vip, 80), "/hostname", 20)?;

        let (tenant, empty) = new_project(lab, "twin")?;
        let report = &mut Report::new("twin");
        // Of two families, where the neighbour has one.
        let families = json!({"ip_families": ["IPv4", "IPv6"]}).to_string();
        let parameters = vec![("kubernetes".to_owned(), families)];
        let twin = tenant.create(&Wish { parameters, ..Wish::of("neighbour", 1) }, report)?;
        twin.apply(&fixture("web.yaml")?.replace("replicas: 2", "replicas: 1"))?;
        let other = twin.vip("web")?;
        reachable(&twin, other)?;
        let lost = a_rule_is_deleted(&tenant, &twin)?;
        dual_services(&twin, report)?;
        a_rule_is_back(&tenant, &lost)?;
        let during = all_of(&theirs, &cluster.id)?;
        let answers = twin.pods("app=web")?;
        // What is looked for at the end is seen where there is something to see.
        let has = tenant.inventory()?;
        for kind in [
            "stack",
            "server",
            "port",
            "security group",
            "cluster",
            "address",
            "trust",
            "VIP block",
            "project of Heat's",
        ] {
            ensure!(has.iter().any(|line| line.starts_with(&format!("{kind} "))), "no {kind} among {has:#?}");
        }
        ensure!(!balancers_with(lab, tenant.api()?.project())?.is_empty(), "no balancer has a project's");
        tenant.remove("neighbour")?;

        let seen = watch.end()?;
        reachable(&cluster, vip)?;
        ensure!(other != vip && twin.id != cluster.id && !answers.is_empty(), "{other}, {answers:?}");
        ensure!(during == before, "changed by a twin:\n{before:#}\n{during:#}");
        ensure!(all_of(&theirs, &cluster.id)? == before, "changed by the end of a twin");
        ensure!(report.close(), "a proof of two families does not hold; see above");
        ensure!(seen.sent > 100 && seen.lost == 0, "requests during a twin's life: {seen:?}");
        let (all, twins) = (balancers_with(lab, &cluster.id)?, balancers_with(lab, &twin.id)?);
        ensure!(
            all.len() == lab.balancers().len() && twins.is_empty(),
            "with the neighbour's: {all:?}; with the twin's: {twins:?}"
        );
        nothing_left(&tenant, &empty)
    });
}

/// The rules of a project that admit a Service's port.
fn rules_for(tenant: &Tenant<'_>, port: u16) -> Result<Vec<Value>> {
    let path = format!("/v2.0/security-group-rules?port_range_min={port}&direction=ingress");
    let rules = tenant.api()?.get("network", &path)?;
    Ok(rules["security_group_rules"].as_array().context("rules")?.clone())
}

/// Somebody takes a rule of the cluster's security group away by hand; what it admitted.
fn a_rule_is_deleted(tenant: &Tenant<'_>, cluster: &Cluster<'_>) -> Result<Value> {
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: closed}, \
         spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 7003}]}}",
    )?;
    cluster.vip("closed")?;
    let rules = rules_for(tenant, 7003)?;
    let rule = rules.first().context("a rule for the port of a Service")?;
    let path = format!("/v2.0/security-group-rules/{}", rule["id"].as_str().context("an id")?);
    ensure!(tenant.api()?.call("DELETE", "network", &path, None)?.granted(), "{path}");
    Ok(rule.clone())
}

/// The controller manager has seen it when it compared, and has put another one in its place.
fn a_rule_is_back(tenant: &Tenant<'_>, lost: &Value) -> Result<()> {
    wait_for("a rule that somebody deleted", Duration::from_secs(180), || {
        let admits = |rule: &Value| {
            [
                "security_group_id",
                "ethertype",
                "protocol",
                "port_range_max",
                "remote_ip_prefix",
                "description",
            ]
            .map(|key| rule[key].to_string())
        };
        let is_back = |rule: &Value| rule["id"] != lost["id"] && admits(rule) == admits(lost);
        Ok(rules_for(tenant, 7003)?.iter().any(is_back).then_some(()))
    })
}

/// Every call below a cluster, with a body that would be taken from its owner.
fn every_call(victim: &Victim) -> Vec<(&'static str, String, Option<Value>)> {
    let name = json!({"name": "mine", "network": "provider"});
    let member = json!({"address": victim.server_address});
    let balancer =
        json!({"address": "api", "listeners": [{"protocol": "TCP", "port": 80, "pool": "masters"}]});
    let bundle = json!({"claim": "c".repeat(43), "ciphertext": "AAAA"});
    let write = json!({"write": "delete-load-balancer", "name": "api"});
    [
        ("GET", "", None),
        ("PUT", "", Some(name)),
        ("DELETE", "", None),
        ("POST", "/deleting", None),
        ("PUT", "/addresses/mine", Some(json!({}))),
        ("DELETE", "/addresses/api", None),
        ("PUT", "/pools/masters", Some(json!({"members": {}}))),
        ("DELETE", "/pools/masters", None),
        ("PUT", "/pools/masters/members/mine", Some(member)),
        ("DELETE", "/pools/masters/members/neighbour-master-0", None),
        ("PUT", "/load-balancers/api", Some(balancer)),
        ("DELETE", "/load-balancers/api", None),
        ("PUT", "/node-ports/PORT", Some(json!({"asker": "heat", "vip_blocks": true}))),
        ("DELETE", "/node-ports/PORT?asker=heat", None),
        ("PUT", "/bundles/master", Some(bundle)),
        ("POST", "/batch", Some(json!({"lease_transitions": 1000, "writes": [write]}))),
    ]
    .into_iter()
    .map(|(method, path, body)| (method, path.replace("PORT", &victim.port), body))
    .collect()
}

#[test]
fn nobody_reads_or_writes_what_is_another_projects() {
    with_project("stranger", |lab, stranger| {
        let victim = Victim::of(lab)?;
        let owner = Tenant::new(lab, "neighbour")?;
        let before = owner.api()?.get("ake", &format!("/v1/clusters/{}", victim.cluster))?;
        let api = stranger.api()?;
        for (method, path, body) in every_call(&victim) {
            let path = format!("/v1/clusters/{}{path}", victim.cluster);
            let said = api.call(method, "ake", &path, body.as_ref())?;
            ensure!(said.status == 404, "{method} {path}: {}: {}", said.status, said.body);
            ensure!(!said.body.to_string().contains("203.0.113."), "{method} {path} tells: {}", said.body);
        }
        ensure!(api.get("ake", "/v1/clusters")? == json!([]), "a stranger sees clusters");

        // Within a cluster of its own, a stranger cannot name what is the neighbour's.
        let own = format!("/v1/clusters/{}", new_id());
        let made = api.call("PUT", "ake", &own, Some(&json!({"name": "mine", "network": "provider"})))?;
        ensure!(made.granted(), "{}", made.body);
        ensure!(api.call("PUT", "ake", &format!("{own}/pools/p"), Some(&json!({})))?.granted(), "a pool");
        let stolen = victim.block.split('/').next().unwrap_or_default();
        let cases = [
            ("/addresses/a", json!({"address": stolen}), stolen),
            ("/pools/p/members/m", json!({"address": victim.server_address}), &victim.server_address),
            (
                "/pools/p/members/m",
                json!({"address": victim.server_address, "port": victim.port}),
                &victim.server_address,
            ),
            (
                &format!("/node-ports/{}", victim.port),
                json!({"asker": "me", "vip_blocks": true}),
                &victim.port,
            ),
        ];
        for (path, body, word) in cases {
            let said = api.call("PUT", "ake", &format!("{own}{path}"), Some(&body))?;
            ensure!((400..500).contains(&said.status), "PUT {path}: {}: {}", said.status, said.body);
            says(&said.body.to_string(), &[word])?;
        }
        ensure!(api.call("DELETE", "ake", &own, None)?.granted(), "DELETE of one's own cluster");
        let after = owner.api()?.get("ake", &format!("/v1/clusters/{}", victim.cluster))?;
        ensure!(after == before, "changed by a stranger:\n{before:#}\n{after:#}");
        Ok(())
    });
}

#[test]
fn a_claim_is_good_for_its_nodes_alone_and_once() {
    run(|lab| {
        let victim = Victim::of(lab)?;
        let claim = |server: &str| -> Result<String> {
            let out = lab.exec(server, &["jq", "-r", ".claim.id", "/etc/ake/node.json"])?;
            Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let (masters, workers) = (claim(&victim.server)?, claim(&victim.worker)?);
        ensure!(masters.len() >= 32 && workers.len() >= 32 && masters != workers, "{masters}, {workers}");
        // From a machine that is none of the cluster's.
        for claim in [&masters, &workers] {
            let said =
                request(lab, "POST", &format!("https://192.0.2.2:9511/v1/claims/{claim}"), None, None)?;
            ensure!(said.status == 403, "{}: {}", said.status, said.body);
        }
        // A worker gets no master's bundle, and its own no second time.
        for (claim, words) in [(&masters, "role"), (&workers, "once")] {
            let line =
                format!("curl -sk -X POST -w ' %{{http_code}}' https://192.0.2.2:9511/v1/claims/{claim}");
            let out = lab.exec(&victim.worker, &["sh", "-c", &line])?;
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            ensure!(!said.contains("ciphertext") && said.contains(" 4"), "a bundle was handed out: {said}");
            says(&said, &[words])?;
        }
        Ok(())
    });
}

#[test]
fn an_application_credential_reaches_the_cluster_that_it_named_first_and_no_other() {
    with_project("bound", |lab, tenant| {
        let login = tenant.api()?;
        let paths = [new_id(), new_id()].map(|id| format!("/v1/clusters/{id}"));
        for path in &paths {
            let said =
                login.call("PUT", "ake", path, Some(&json!({"name": "one", "network": "provider"})))?;
            ensure!(said.granted(), "{}", said.body);
        }
        let mut rules: Vec<Value> =
            serde_json::from_str(&fs::read_to_string(checkout().join("templates/access-rules.json"))?)?;
        rules.push(json!({"service": "ake", "method": "GET", "path": "/**v1/clusters"}));
        let rules = serde_json::to_string(&rules)?;
        let credential = tenant.credential_with("bound", &rules, &mut Report::new("bound"))?;
        let api = Api::with(lab, &credential)?;
        let [first, second] = &paths;
        ensure!(api.get("ake", first)?["cluster"]["name"] == "one", "the first cluster");
        let address = json!({"family": "IPv4"});
        for (method, path, body) in [
            ("GET", second.clone(), None),
            ("PUT", format!("{second}/addresses/a"), Some(&address)),
            ("DELETE", format!("{second}/addresses/a"), None),
            ("POST", format!("{second}/deleting"), None),
            ("DELETE", second.clone(), None),
        ] {
            let said = api.call(method, "ake", &path, body)?;
            ensure!(said.status == 403, "{method} {path}: {}: {}", said.status, said.body);
            says(&said.body.to_string(), &["belongs to another cluster"])?;
        }
        let seen = api.get("ake", "/v1/clusters")?;
        ensure!(
            seen.as_array().is_some_and(|all| all.len() == 1) && seen.to_string().contains(&first[13..]),
            "{seen}"
        );
        let own = api.call("PUT", "ake", &format!("{first}/addresses/a"), Some(&address))?;
        ensure!(own.granted(), "{}", own.body);
        for path in &paths {
            let said = login.call("DELETE", "ake", path, None)?;
            ensure!(said.granted(), "an ordinary login reaches all of its project's: {}", said.body);
        }
        tenant.openstack(&["application", "credential", "delete", "bound"]).map(drop)
    });
}
