//! AKE's resources by real stacks without machines: what a tenant gets, and what is said of bad input.
//! Each test has a project of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use ake_lab::Lab;
use anyhow::{Context, Error, Result, bail, ensure};
use scenarios::{
    api::Api,
    checkout, complaint, output, raw,
    stacks::{DEADLINE, create, new_id, new_project, nothing_left, refusal, run, says, with_project},
    tenant::Tenant,
};
use serde_json::{Value, json};

#[test]
fn a_vip_comes_from_the_clusters_block_and_goes_with_the_stack() {
    with_project("vips", |lab, tenant| {
        create(lab, tenant, "one", "vip.yaml", &[])?;
        let address: Ipv4Addr = tenant.stack_output("one", "address")?.parse()?;
        ensure!(address.octets()[..3] == [203, 0, 113], "{address} is not of the VIP range");
        let shown = output(&mut lab.operator(&["show", &address.to_string()]))?;
        ensure!(shown.contains("one"), "ake-api show {address} does not name the cluster:\n{shown}");
        // A second cluster of the same name in another project has a block of its own.
        let (other, before) = new_project(lab, "vips-too")?;
        create(lab, &other, "one", "vip.yaml", &[])?;
        let theirs: Ipv4Addr = other.stack_output("one", "address")?.parse()?;
        ensure!(
            theirs != address && theirs.octets()[3] / 16 != address.octets()[3] / 16,
            "{theirs} and {address}"
        );
        tenant.remove("one")?;
        let kept = output(&mut lab.operator(&["show", &theirs.to_string()]))?;
        ensure!(kept.contains("one"), "the other project's VIP went along:\n{kept}");
        other.remove("one")?;
        nothing_left(&other, &before)
    });
}

/// The project's retained addresses, as ake-api lists them and as Neutron's ports keep them.
fn retained(lab: &Lab, tenant: &Tenant<'_>) -> Result<(Vec<Value>, Vec<Value>)> {
    let api = tenant.api()?;
    let listed = api.get("ake", "/v1/addresses")?;
    let all = listed.as_array().into_iter().flatten();
    let listed = all.filter(|one| one["cluster"].is_null()).map(|one| one["address"].clone()).collect();
    let path = format!("/v2.0/ports?device_owner=ake%3Avip-retained&device_id={}", api.project());
    let ports = Api::of(lab, "admin")?.get("network", &path)?;
    let ips = ports["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|port| port["fixed_ips"].as_array())
        .flatten();
    Ok((listed, ips.map(|ip| ip["ip_address"].clone()).collect()))
}

#[test]
fn a_retained_vip_outlives_its_stack_and_goes_to_the_next_one_of_the_project() {
    with_project("retained", |lab, tenant| {
        create(lab, tenant, "one", "vip.yaml", &["retain=true"])?;
        let address = tenant.stack_output("one", "address")?;
        tenant.remove("one")?;
        let kept = (vec![json!(address)], vec![json!(address)]);
        ensure!(retained(lab, tenant)? == kept, "{address}: {:?}", retained(lab, tenant)?);
        let shown = output(&mut lab.operator(&["show", &address]))?;
        ensure!(shown.contains("retained by project"), "{shown}");

        // Another project's stack does not get it.
        let (other, before) = new_project(lab, "retained-not")?;
        let said = refusal(lab, &other, "vip.yaml", &[&format!("adopt={address}")])?;
        says(&said, &["adopt", &address, "it has retained none such"])?;
        nothing_left(&other, &before)?;

        create(lab, tenant, "two", "vip.yaml", &[&format!("adopt={address}")])?;
        ensure!(tenant.stack_output("two", "address")? == address, "another address");
        let said = tenant.api()?.call("DELETE", "ake", &format!("/v1/addresses/{address}"), None)?;
        ensure!(said.status == 409, "{}: {}", said.status, said.body);
        tenant.remove("two")?;
        ensure!(retained(lab, tenant)? == kept, "after the second: {:?}", retained(lab, tenant)?);

        let said = tenant.api()?.call("DELETE", "ake", &format!("/v1/addresses/{address}"), None)?;
        ensure!(said.status == 204, "{}: {}", said.status, said.body);
        ensure!(retained(lab, tenant)? == (vec![], vec![]), "left: {:?}", retained(lab, tenant)?);
        Ok(())
    });
}

/// One guarded change of a port by somebody else: reads it, and writes what `change` makes of it unless it changed
/// meanwhile. False where it did.
fn changed_by_another(
    lab: &Lab,
    admin: &Api<'_>,
    port: &str,
    change: impl Fn(&Value) -> Value,
) -> Result<bool> {
    let path = format!("/v2.0/ports/{port}");
    let seen = admin.get("network", &path)?["port"].clone();
    let mut command = lab.client("curl");
    command.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT"]);
    command.args(["-H", &format!("X-Auth-Token: {}", admin.token()), "-H", "Content-Type: application/json"]);
    command.args(["-H", &format!("If-Match: revision_number={}", seen["revision_number"])]);
    command.args(["-d", &json!({"port": change(&seen)}).to_string()]);
    match output(command.arg(format!("{}{path}", admin.url("network")?)))?.as_str() {
        "200" => Ok(true),
        "412" => Ok(false),
        other => bail!("PUT {path}: {other}"),
    }
}

#[test]
fn what_others_put_on_a_nodes_port_survives_though_they_write_at_the_same_time() {
    with_project("pairs", |lab, tenant| {
        let (api, admin) = (tenant.api()?, Api::of(lab, "admin")?);
        let cluster = format!("/v1/clusters/{}", new_id());
        let granted = |method: &str, service: &str, path: &str, body: Option<&Value>| -> Result<Value> {
            // where others keep changing a port, whoever asks is told to ask again
            for _ in 0..20 {
                let said = api.call(method, service, path, body)?;
                if said.status != 503 {
                    ensure!(said.granted(), "{method} {path}: {}: {}", said.status, said.body);
                    return Ok(said.body);
                }
            }
            bail!("{method} {path}: not done in 20 tries")
        };
        let wish = json!({"name": "pairs", "network": "provider"});
        let state = granted("PUT", "ake", &cluster, Some(&wish))?;
        let network = &state["cluster"]["network"];
        let made = json!({"port": {"network_id": network, "name": "node"}});
        let port = granted("POST", "network", "/v2.0/ports", Some(&made))?["port"].clone();
        let id = port["id"].as_str().context("an id")?;
        let conflicts = || -> Result<usize> {
            let noted = fs::read_to_string(lab.access_log("neutron"))?;
            let line = format!(" PUT /v2.0/ports/{id} 412 ");
            Ok(noted.lines().filter(|text| text.contains(&line) && text.contains("ake-api")).count())
        };

        let (over, wrote) = (AtomicBool::new(false), AtomicUsize::new(0));
        let another = |change: &dyn Fn(&Value) -> Value, done: &dyn Fn()| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                if changed_by_another(lab, &admin, id, change)? {
                    done();
                }
            }
            Ok(())
        };
        let with_pair = |seen: &Value| {
            let mut pairs = seen["allowed_address_pairs"].as_array().cloned().unwrap_or_default();
            let count = wrote.load(Ordering::Relaxed);
            if count < 4 {
                pairs.push(json!({"ip_address": format!("10.9.9.{count}")}));
            }
            json!({"allowed_address_pairs": pairs, "description": format!("write {count}")})
        };
        let count = || {
            wrote.fetch_add(1, Ordering::Relaxed);
        };
        // Two more keep the revision moving, so that writes meet.
        let name = |seen: &Value| json!({"name": if seen["name"] == "node" { "edon" } else { "node" }});
        let pods = thread::scope(|scope| -> Result<String> {
            let writers = [
                scope.spawn(|| another(&with_pair, &count)),
                scope.spawn(|| another(&name, &|| ())),
                scope.spawn(|| another(&name, &|| ())),
            ];
            let asked = (|| -> Result<String> {
                let pods = state["cluster"]["pod_range"].as_str().context("a pod range")?;
                let base = pods.split('.').take(2).collect::<Vec<_>>().join(".");
                let path = format!("{cluster}/node-ports/{id}");
                let mut last = String::new();
                let begun = Instant::now();
                for round in 0.. {
                    last = format!("{base}.{}.0/24", round % 200 + 1);
                    let wish = json!({"asker": "controller", "pod_ranges": [last], "vip_blocks": true});
                    granted("PUT", "ake", &path, Some(&wish))?;
                    let is_done = round >= 9 && wrote.load(Ordering::Relaxed) >= 4 && conflicts()? > 0;
                    if is_done || begun.elapsed() > DEADLINE {
                        break;
                    }
                }
                Ok(last)
            })();
            over.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.join().map_err(|_| Error::msg("another writer panicked"))??;
            }
            asked
        })?;
        let wrote = wrote.into_inner();
        let pairs = || -> Result<BTreeSet<String>> {
            let now = admin.get("network", &format!("/v2.0/ports/{id}"))?["port"].clone();
            ensure!(now["security_groups"] == port["security_groups"], "security groups: {now}");
            let all = now["allowed_address_pairs"].as_array().into_iter().flatten();
            Ok(all.filter_map(|pair| pair["ip_address"].as_str()).map(ToOwned::to_owned).collect())
        };
        let theirs: BTreeSet<String> = (0..4).map(|n| format!("10.9.9.{n}")).collect();
        let blocks =
            state["cluster"]["vip_blocks"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let ours: BTreeSet<String> = blocks.map(ToOwned::to_owned).chain([pods]).collect();
        println!("{wrote} writes of another's pairs, {} conflicts met", conflicts()?);
        ensure!(
            wrote >= 4 && conflicts()? > 0,
            "nothing was tried: {wrote} writes, {} conflicts",
            conflicts()?
        );
        ensure!(pairs()? == &theirs | &ours, "{:?}, expected {theirs:?} and {ours:?}", pairs()?);
        granted("DELETE", "ake", &format!("{cluster}/node-ports/{id}?asker=controller"), None)?;
        ensure!(pairs()? == theirs, "after ours went: {:?}", pairs()?);
        granted("DELETE", "network", &format!("/v2.0/ports/{id}"), None)?;
        granted("DELETE", "ake", &cluster, None)?;
        Ok(())
    });
}

#[test]
fn heat_shows_what_rust_declares() {
    run(|lab| {
        let declared: Vec<Value> =
            serde_json::from_str(&output(Command::new(lab.built("ake-heat")?).arg("schema"))?)?;
        let demo = Tenant::new(lab, "demo")?;
        for kind in &declared {
            let name = kind["name"].as_str().expect("a name");
            let shown = if name == "AKE::LB::VIP" {
                demo.json(&["orchestration", "resource", "type", "show", name])?
            } else {
                demo.api()?.get("orchestration", &format!("/resource_types/{name}"))?
            };
            for property in kind["properties"].as_array().into_iter().flatten() {
                let key = property["name"].as_str().expect("a name");
                let description = property["description"].as_str().expect("a description");
                ensure!(
                    shown["properties"][key]["description"] == description,
                    "{name}.{key}: Rust says {description:?}, Heat shows {}",
                    shown["properties"][key]
                );
            }
            for attribute in kind["attributes"].as_array().into_iter().flatten() {
                let key = attribute["name"].as_str().expect("a name");
                ensure!(!shown["attributes"][key].is_null(), "{name}: Heat shows no attribute {key}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_wrong_property_value_is_named_with_what_was_expected() {
    with_project("bad-family", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["family=IPv5"])?;
        says(&said, &["family", "IPv5", "IPv4", "IPv6"])
    });
}

#[test]
fn an_unknown_network_is_named() {
    with_project("bad-network", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["network=nowhere"])?;
        says(&said, &["network", "nowhere"])
    });
}

#[test]
fn an_address_that_is_taken_is_named_with_who_has_it() {
    with_project("bad-address", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["twice=true"])?;
        says(&said, &["address: 203.0.113.", "taken by address first", "/28"])
    });
}

#[test]
fn a_wrong_login_is_refused_by_keystone_and_by_ake_api_alike() {
    run(|lab| {
        let mut command = lab.client("curl");
        command.args(["-sk", "-H", "X-Auth-Token: not-a-token", "https://192.0.2.2:9511/v1/clusters"]);
        let said = output(&mut command)?;
        ensure!(said.contains("unauthorized") && said.contains("X-Auth-Token"), "{said}");
        let out = raw(lab.tenant("demo").args(["--os-password", "wrong", "stack", "list"]))?;
        ensure!(complaint(&out).contains("401"), "{}", complaint(&out));
        Ok(())
    });
}

/// Python with Heat's code and a plugin, in the tests' folder of the plugin.
fn with_heat(lab: &ake_lab::Lab, plugin: &std::path::Path) -> Command {
    let mut command = Command::new(lab.programs().services.join("bin/python"));
    command.current_dir(checkout().join("heat-resources/plugin/tests"));
    command
        .env("AKE_HEAT_PLUGIN", plugin)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONWARNINGS", "ignore");
    command
}

#[test]
fn the_plugin_does_as_its_own_tests_say_inside_heats_engine() {
    run(|lab| {
        let plugin = lab.dirs().openstack().join("heat-plugins/ake_heat/plugin");
        let out = raw(with_heat(lab, &plugin).args(["-m", "unittest", "test_life", "test_templates"]))?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    });
}
