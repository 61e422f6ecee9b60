//! A property that is declared in Rust alone is shown by the engine that runs.
//!
//! Heat asks `ake-heat schema` when it starts, so it is started anew: nothing may run beside this.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use ake_heat::schema::{Property, Type};
use ake_lab::Lab;
use anyhow::{Context, Result, ensure};
use scenarios::{stacks::run, tenant::Tenant};
use serde_json::{Value, json};

/// The `ake-heat` that the lab's engine runs; it is what it was when this goes.
struct Program {
    path: PathBuf,
    real: PathBuf,
}

impl Program {
    /// Puts one in its place that declares `types`, and does everything else as before.
    fn declaring(lab: &Lab, types: &str) -> Result<Self> {
        let path = lab.dirs().openstack().join("heat-plugins/ake_heat/bin/ake-heat");
        let real = path.with_file_name("ake-heat.real");
        let schema = path.with_file_name("schema.json");
        fs::write(&schema, types)?;
        fs::rename(&path, &real)?;
        let program = Self { path, real };
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = schema ] && exec cat {}\nexec {} \"$@\"\n",
            schema.display(),
            program.real.display()
        );
        fs::write(&program.path, text)?;
        fs::set_permissions(&program.path, Permissions::from_mode(0o755))?;
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::rename(&self.real, &self.path);
        let _ = fs::remove_file(self.path.with_file_name("schema.json"));
    }
}

/// What a tenant is shown.
fn shown(tenant: &Tenant<'_>) -> Result<Value> {
    tenant.json(&["orchestration", "resource", "type", "show", "AKE::LB::VIP"])
}

#[test]
fn a_property_that_is_declared_in_rust_alone_is_shown_by_the_running_engine() {
    run(|lab| {
        let mut types = ake_heat::resources::types();
        let vip = types.iter_mut().find(|kind| kind.name == "AKE::LB::VIP").context("AKE::LB::VIP")?;
        vip.properties
            .push(Property::new("colour", Type::String, "Of the address.").one_of(&["red", "blue"]));
        let demo = Tenant::new(lab, "demo")?;

        let program = Program::declaring(lab, &serde_json::to_string(&types)?)?;
        let seen = lab.restart("heat").and_then(|()| shown(&demo));
        drop(program);
        lab.restart("heat")?;

        let seen = seen?;
        let colour = &seen["properties"]["colour"];
        ensure!(colour["description"] == "Of the address." && colour["required"] == false, "{seen}");
        ensure!(colour["constraints"][0]["allowed_values"] == json!(["red", "blue"]), "{colour}");
        let after = shown(&demo)?;
        ensure!(after["properties"]["colour"].is_null(), "{after}");
        Ok(())
    });
}
