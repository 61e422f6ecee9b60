//! AKE's resources by real stacks without machines: what a tenant gets, and what is said of bad input.
//! Each test has a project of its own.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use scenarios::{checkout, complaint, lab_of_this_run, output, raw, tenant::Tenant};
use serde_json::Value;

/// Runs a test with a new project; the error is what the test says.
fn with_project(name: &str, test: impl FnOnce(&ake_lab::Lab, &Tenant<'_>) -> Result<()>) {
    let done = (|| {
        let lab = lab_of_this_run()?;
        lab.new_project(name)?;
        let tenant = Tenant::new(&lab, name)?;
        let before = tenant.inventory()?;
        test(&lab, &tenant)?;
        let left: Vec<_> = tenant.inventory()?.into_iter().filter(|line| !before.contains(line)).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })();
    done.unwrap_or_else(|error: anyhow::Error| panic!("{error:#}"));
}

/// `openstack stack create --wait` of a fixture; what Heat says of it in the end.
fn create(
    lab: &ake_lab::Lab,
    tenant: &Tenant<'_>,
    stack: &str,
    fixture: &str,
    parameters: &[&str],
) -> Result<()> {
    let mut command = lab.tenant(tenant.name());
    command
        .args(["stack", "create", "-f", "json", "-t"])
        .arg(checkout().join("tests/fixtures").join(fixture));
    for parameter in parameters {
        command.args(["--parameter", parameter]);
    }
    output(command.arg(stack))?;
    tenant.settled(stack, "CREATE_COMPLETE")
}

fn remove(lab: &ake_lab::Lab, tenant: &Tenant<'_>, stack: &str) -> Result<()> {
    output(lab.tenant(tenant.name()).args(["stack", "delete", "--yes", "--wait", stack])).map(drop)
}

/// What a failing stack says; everything it made is deleted.
fn refusal(lab: &ake_lab::Lab, tenant: &Tenant<'_>, fixture: &str, parameters: &[&str]) -> Result<String> {
    let error = create(lab, tenant, "bad", fixture, parameters).err();
    let text = error.map(|error| format!("{error:#}"));
    if tenant.status("bad").is_ok() {
        remove(lab, tenant, "bad")?;
    }
    text.ok_or_else(|| anyhow::anyhow!("a stack with {parameters:?} was made; it should be refused"))
}

#[test]
fn a_vip_comes_from_the_clusters_block_and_goes_with_the_stack() {
    with_project("vips", |lab, tenant| {
        create(lab, tenant, "one", "vip.yaml", &[])?;
        let address: Ipv4Addr = tenant.stack_output("one", "address")?.parse()?;
        ensure!(address.octets()[..3] == [203, 0, 113], "{address} is not of the VIP range");
        let shown = output(&mut lab.operator(&["show", &address.to_string()]))?;
        ensure!(shown.contains("one"), "ake-api show {address} does not name the cluster:\n{shown}");
        // A second cluster of the same name in another project has a block of its own.
        lab.new_project("vips-too")?;
        let other = Tenant::new(lab, "vips-too")?;
        create(lab, &other, "one", "vip.yaml", &[])?;
        let theirs: Ipv4Addr = other.stack_output("one", "address")?.parse()?;
        ensure!(
            theirs != address && theirs.octets()[3] / 16 != address.octets()[3] / 16,
            "{theirs} and {address}"
        );
        remove(lab, tenant, "one")?;
        let kept = output(&mut lab.operator(&["show", &theirs.to_string()]))?;
        ensure!(kept.contains("one"), "the other project's VIP went along:\n{kept}");
        remove(lab, &other, "one")
    });
}

#[test]
fn heat_shows_what_rust_declares() {
    let done = (|| -> Result<()> {
        let lab = lab_of_this_run()?;
        let declared: Value =
            serde_json::from_str(&output(std::process::Command::new(lab.built("ake-heat")?).arg("schema"))?)?;
        let types = declared["resource_types"].as_array().or(declared.as_array()).expect("a list of types");
        for kind in types {
            let name = kind["name"].as_str().expect("a name");
            let text = output(lab.tenant("demo").args([
                "orchestration",
                "resource",
                "type",
                "show",
                name,
                "-f",
                "json",
            ]))?;
            let shown: Value = serde_json::from_str(&text)?;
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
    })();
    done.unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_wrong_property_value_is_named_with_what_was_expected() {
    with_project("bad-family", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["family=IPv5"])?;
        ensure!(said.contains("family") && said.contains("IPv5") && said.contains("IPv4"), "{said}");
        Ok(())
    });
}

#[test]
fn an_unknown_network_is_named() {
    with_project("bad-network", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["network=nowhere"])?;
        ensure!(said.contains("network") && said.contains("nowhere"), "{said}");
        Ok(())
    });
}

#[test]
fn an_address_that_is_taken_is_named_with_who_has_it() {
    with_project("bad-address", |lab, tenant| {
        let said = refusal(lab, tenant, "vip.yaml", &["twice=true"])?;
        ensure!(said.contains("203.0.113.") && said.contains("first"), "{said}");
        Ok(())
    });
}

#[test]
fn a_wrong_login_is_refused_by_keystone_and_by_ake_api_alike() {
    let done = (|| -> Result<()> {
        let lab = lab_of_this_run()?;
        let mut command = lab.client("curl");
        command.args(["-sk", "-H", "X-Auth-Token: not-a-token", "https://192.0.2.2:9511/v1/clusters"]);
        let said = output(&mut command)?;
        ensure!(said.contains("unauthorized") && said.contains("X-Auth-Token"), "{said}");
        let out = raw(lab.tenant("demo").args(["--os-password", "wrong", "stack", "list"]))?;
        ensure!(complaint(&out).contains("401"), "{}", complaint(&out));
        Ok(())
    })();
    done.unwrap_or_else(|error| panic!("{error:#}"));
}
