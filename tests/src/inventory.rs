//! What a project has, wherever that is listed: to its owner, and to the administrator what AKE and Heat keep for it in
//! projects of their own.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::api::Api;

/// Lists that a project's owner can read: the kind, the service, the path, and under which key the list is (none: it is all
/// of the answer).
const OWN: [(&str, &str, &str, &str); 15] = [
    ("stack", "orchestration", "/stacks", "stacks"),
    ("server", "compute", "/servers", "servers"),
    ("keypair", "compute", "/os-keypairs", "keypairs"),
    ("server group", "compute", "/os-server-groups", "server_groups"),
    ("port", "network", "/v2.0/ports", "ports"),
    ("security group", "network", "/v2.0/security-groups", "security_groups"),
    ("network", "network", "/v2.0/networks", "networks"),
    ("subnet", "network", "/v2.0/subnets", "subnets"),
    ("volume", "block-storage", "/volumes", "volumes"),
    ("attachment", "block-storage", "/attachments", "attachments"),
    ("snapshot", "block-storage", "/snapshots", "snapshots"),
    ("image", "image", "/v2/images", "images"),
    ("cluster", "ake", "/v1/clusters", ""),
    ("address", "ake", "/v1/addresses", ""),
    ("trust", "identity", "/OS-TRUST/trusts?trustor_user_id={user}", "trusts"),
];

/// Lists of the administrator's, of which what is `{project}`'s is told by its name, its description or its device.
const KEPT: [(&str, &str, &str, &str); 3] = [
    ("VIP block", "network", "/v2.0/ports?device_owner=ake%3Avip-block", "ports"),
    ("retained address", "network", "/v2.0/ports?device_owner=ake%3Avip-retained", "ports"),
    ("project of Heat's", "identity", "/projects?name__startswith={project}-", "projects"),
];

/// One line for each thing, sorted.
pub(crate) fn of(own: &Api<'_>, admin: &Api<'_>) -> Result<Vec<String>> {
    let filled = |path: &str| path.replace("{user}", own.user()).replace("{project}", own.project());
    let mut found = Vec::new();
    for (api, lists, is_admins) in [(own, &OWN[..], false), (admin, &KEPT[..], true)] {
        let asked: Vec<_> = lists.iter().map(|(_, service, path, _)| (*service, filled(path))).collect();
        for ((kind, service, path, key), answer) in lists.iter().zip(api.all(&asked)?) {
            let rows = if key.is_empty() { &answer } else { &answer[*key] };
            let rows = rows.as_array().with_context(|| format!("{service} {path}: {answer}"))?;
            let of_project = |row: &&Value| !is_admins || row.to_string().contains(own.project());
            found.extend(rows.iter().filter(of_project).map(|row| format!("{kind} {}", name(row))));
        }
    }
    found.extend(heats_users(admin)?);
    found.sort();
    Ok(found)
}

fn name(row: &Value) -> &str {
    let keys = [&row["id"], &row["keypair"]["name"], &row["address"]];
    keys.iter().find_map(|value| value.as_str()).unwrap_or_default()
}

/// Users that Heat made for a stack's signals, and whose project, which it made for the stack too, is gone. Others' stacks
/// come and go between two lists, so what is told was seen twice.
fn heats_users(admin: &Api<'_>) -> Result<Vec<String>> {
    let first = users_of_no_project(admin)?;
    let again = if first.is_empty() { Vec::new() } else { users_of_no_project(admin)? };
    Ok(first.into_iter().filter(|user| again.contains(user)).collect())
}

fn users_of_no_project(admin: &Api<'_>) -> Result<Vec<String>> {
    let domains = admin.get("identity", "/domains?name=heat")?;
    let heat = domains["domains"][0]["id"].as_str().context("Heat's domain")?.to_owned();
    let asked = ["users", "projects"].map(|kind| ("identity", format!("/{kind}?domain_id={heat}")));
    let [users, projects] = &admin.all(&asked)?[..] else {
        anyhow::bail!("Keystone answered less than it was asked")
    };
    let rows =
        |list: &Value, key: &str| list[key].as_array().cloned().with_context(|| format!("{key}: {list}"));
    let projects = rows(projects, "projects")?;
    let of_none = |user: &Value| {
        let of = &user["default_project_id"];
        of.is_string() && !projects.iter().any(|project| project["id"] == *of)
    };
    let users = rows(users, "users")?;
    Ok(users
        .iter()
        .filter(|user| of_none(user))
        .map(|user| format!("user of Heat's {}", name(user)))
        .collect())
}
