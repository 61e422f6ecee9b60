//! AKE's resources by real stacks without machines: what a tenant gets, and what is said of bad input.
//! Each test has a project of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::ensure;
use scenarios::{
    checkout, complaint, output, raw,
    stacks::{create, new_project, nothing_left, refusal, run, says, with_project},
    tenant::Tenant,
};
use serde_json::Value;

/// What Heat says comes within this time, also on a busy computer.
const DEADLINE: Duration = Duration::from_secs(60);

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
        let said = refusal(lab, tenant, "vip.yaml", &["family=IPv5"], DEADLINE)?;
        says(&said, &["family", "IPv5", "IPv4", "IPv6"])
    });
}

#[test]
fn an_unknown_network_is_named() {
    with_project("bad-network", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["network=nowhere"], DEADLINE)?;
        says(&said, &["network", "nowhere"])
    });
}

#[test]
fn an_address_that_is_taken_is_named_with_who_has_it() {
    with_project("bad-address", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["twice=true"], DEADLINE)?;
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
