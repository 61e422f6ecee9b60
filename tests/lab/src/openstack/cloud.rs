//! What the cloud's administrator has made before anybody thinks of AKE: the services' users and the catalog,
//! as the projects' installation guides say, then tenants, a flavor and the provider network.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::HashMap;

use super::admin::{Admin, list, text};
use super::{PASSWORD, PROJECTS, REGION};

/// The projects that the lab starts with.
pub const TENANTS: [&str; 2] = ["demo", "neighbour"];

/// Keystone's content; only Keystone runs yet.
pub async fn register() -> Result<()> {
    let admin = Admin::login().await?;
    let mut roles = roles(&admin).await?;
    for name in ["service", "heat_stack_user", "heat_stack_owner"] {
        if !roles.contains_key(name) {
            roles.insert(name.to_owned(), admin.make("role", json!({"name": name})).await?);
        }
    }
    let service = admin.make("project", json!({"name": "service", "domain_id": "default"})).await?;
    for project in PROJECTS {
        if project.name == "keystone" {
            continue; // it was bootstrapped
        }
        let user = admin.make("user", user(project.name)).await?;
        for role in ["admin", "service"] {
            grant(&admin, &format!("projects/{service}"), &user, &roles[role]).await?;
        }
        let id = admin.make("service", json!({"name": project.name, "type": project.kind})).await?;
        for interface in ["public", "internal", "admin"] {
            let endpoint = json!({
                "service_id": id, "interface": interface, "region_id": REGION,
                "url": format!("{}{}", project.url(), project.path),
            });
            admin.make("endpoint", endpoint).await?;
        }
    }
    // Heat makes a project per stack in this domain, for the users of its signals
    let domain = admin.make("domain", json!({"name": "heat"})).await?;
    let mut fields = user("heat_domain_admin");
    fields["domain_id"] = json!(domain);
    let user = admin.make("user", fields).await?;
    grant(&admin, &format!("domains/{domain}"), &user, &roles["admin"]).await
}

/// Tenants, a flavor, the provider network; every service runs.
pub async fn furnish() -> Result<()> {
    let admin = Admin::login().await?;
    for name in TENANTS {
        tenant(&admin, name).await?;
    }
    let flavor = json!({"name": "m1.node", "vcpus": 2, "ram": 4096, "disk": 10});
    admin.post("compute", "/flavors", json!({"flavor": flavor})).await?;
    let network = json!({
        "name": "provider", "shared": true,
        "provider:network_type": "flat", "provider:physical_network": "provider",
    });
    let made = admin.post("network", "/v2.0/networks", json!({"network": network})).await?;
    let id = &made["network"]["id"];
    let subnets = json!([
        {
            "name": "provider-v4", "network_id": id, "ip_version": 4, "enable_dhcp": false,
            "cidr": "192.168.77.0/24", "gateway_ip": "192.168.77.1",
            "allocation_pools": [{"start": "192.168.77.10", "end": "192.168.77.199"}],
        },
        {
            "name": "provider-v6", "network_id": id, "ip_version": 6, "enable_dhcp": false,
            "cidr": "fd00:77::/64", "gateway_ip": "fd00:77::1",
            // from ::1000 on, so that the router and the balancers keep their addresses
            "allocation_pools": [{"start": "fd00:77::1000", "end": "fd00:77::ffff"}],
        },
    ]);
    for subnet in list(&subnets) {
        admin.post("network", "/v2.0/subnets", json!({"subnet": subnet})).await?;
    }
    Ok(())
}

/// A project with a user of the same name who has the role `member` and nothing else.
pub async fn tenant(admin: &Admin, name: &str) -> Result<()> {
    let roles = roles(admin).await?;
    let member = roles.get("member").context("Keystone has no role \"member\"")?;
    let project = admin.make("project", json!({"name": name, "domain_id": "default"})).await?;
    let user = admin.make("user", user(name)).await?;
    grant(admin, &format!("projects/{project}"), &user, member).await
}

fn user(name: &str) -> Value {
    json!({"name": name, "password": PASSWORD, "domain_id": "default"})
}

async fn roles(admin: &Admin) -> Result<HashMap<String, String>> {
    let answer = admin.get("identity", "/roles".to_owned()).await?;
    list(&answer["roles"]).map(|role| Ok((text(&role["name"])?, text(&role["id"])?))).collect()
}

async fn grant(admin: &Admin, place: &str, user: &str, role: &str) -> Result<()> {
    admin.put("identity", &format!("/{place}/users/{user}/roles/{role}")).await?;
    Ok(())
}
