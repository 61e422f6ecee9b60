//! References between objects: what must be there, what may not go, what comes along.

use serde_json::{Value, json};

use crate::{
    answer::Refusal,
    config::Config,
    forms::{Fields, address_port, split_path},
    kinds::Kind,
};

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn paths<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a str> {
    fields
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|item| item["fullPath"].as_str())
}

/// The monitors that a pool's `monitor` names.
fn monitors(fields: &Fields) -> impl Iterator<Item = &str> {
    text(fields, "monitor").unwrap_or_default().split_whitespace().filter(|word| word.starts_with('/'))
}

const MONITORS: [&str; 2] = ["ltm/monitor/tcp", "ltm/monitor/http"];
const PROFILES: [&str; 4] = ["ltm/profile/fastl4", "ltm/profile/tcp", "ltm/profile/udp", "ltm/profile/sctp"];

/// Everything that an object names is there, in its own partition or in /Common.
pub(crate) fn check(config: &Config, kind: &Kind, key: &str, fields: &Fields) -> Result<(), Refusal> {
    let (partition, _) = split_path(crate::config::shown(key));
    let named = |label: &str, homes: &[&'static str], path: &str| {
        if !homes.iter().any(|home| config.has(home, path)) {
            return Err(Refusal::not_found(label, path));
        }
        let (home, _) = split_path(path);
        if home == partition || home == "Common" {
            return Ok(());
        }
        let message = format!(
            "01070726:3: {} {key} in partition {partition} cannot reference {label} {path} in partition {home}.",
            kind.label
        );
        Err(Refusal::mcpd(400, message))
    };
    match kind.path {
        "ltm/pool" => monitors(fields).try_for_each(|monitor| named("monitor", &MONITORS, monitor)),
        "ltm/virtual" => {
            if let Some(pool) = text(fields, "pool") {
                named("Pool", &["ltm/pool"], pool)?;
            }
            paths(fields, "profiles").try_for_each(|path| named("profile", &PROFILES, path))?;
            paths(fields, "persist")
                .try_for_each(|path| named("Persistence profile", &["ltm/persistence/source-addr"], path))?;
            claims(config, key, fields)
        }
        "ltm/node" | "ltm/virtual-address" => {
            let address = text(fields, "address").unwrap_or_default();
            let other = config
                .of(kind_path(kind))
                .any(|(path, other)| path != key && text(other, "address") == Some(address));
            if !other {
                return Ok(());
            }
            let message =
                format!("0107176c:3: Invalid {}, the IP address {address} already exists.", kind.label);
            Err(Refusal::mcpd(400, message))
        }
        _ => Ok(()),
    }
}

fn kind_path(kind: &Kind) -> &'static str {
    Kind::find(kind.path).map_or("", |kind| kind.path)
}

/// Two virtual servers may share an address and a port only where their sources differ.
fn claims(config: &Config, key: &str, fields: &Fields) -> Result<(), Refusal> {
    let claim = |fields: &Fields| {
        let destination = text(fields, "destination").map(|path| split_path(path).1.to_owned());
        let word = |name| text(fields, name).map(str::to_owned);
        (destination, word("source"), word("ipProtocol"))
    };
    let wanted = claim(fields);
    let other = config.of("ltm/virtual").find(|(path, other)| *path != key && claim(other) == wanted);
    let Some((other, _)) = other else { return Ok(()) };
    let message = format!(
        "01070333:3: Virtual Server {key} illegally shares destination address, source address, service port, \
         ip-protocol, and vlan with Virtual Server {other}."
    );
    Err(Refusal::mcpd(400, message))
}

/// What the device makes along with an object: a member's node, a virtual server's address.
pub(crate) fn accompany(config: &mut Config, kind: &Kind, key: &str, fields: &Fields) -> Result<(), Refusal> {
    match kind.path {
        "ltm/pool/members" => config.node_of(key, fields),
        "ltm/virtual" => {
            let destination = text(fields, "destination").unwrap_or_default();
            let (partition, rest) = split_path(destination);
            let Some((host, _)) = address_port(rest) else { return Ok(()) };
            let there = config.of("ltm/virtual-address").any(|(path, address)| {
                text(address, "address") == Some(host.as_str()) && split_path(path).0 == partition
            });
            let (false, Some(kind)) = (there, Kind::find("ltm/virtual-address")) else { return Ok(()) };
            let Value::Object(body) = json!({"name": host, "partition": partition, "address": host}) else {
                return Ok(());
            };
            config.create(kind, None, &body).map(|_| ())
        }
        _ => Ok(()),
    }
}

/// An address that was made along with its first virtual server goes with the last one.
pub(crate) fn forget_address(config: &mut Config, gone: &Fields) {
    let Some(destination) = text(gone, "destination") else { return };
    let (partition, rest) = split_path(destination);
    let Some((host, _)) = address_port(rest) else { return };
    if address_in_use(config, partition, &host).is_some() {
        return;
    }
    config.objects.retain(|(kind, path), object| {
        let its = *kind == "ltm/virtual-address"
            && split_path(path).0 == partition
            && text(&object.fields, "address") == Some(host.as_str());
        !(its && text(&object.fields, "autoDelete") == Some("true"))
    });
}

fn address_in_use(config: &Config, partition: &str, host: &str) -> Option<String> {
    let uses = |fields: &Fields| {
        let (home, rest) = split_path(text(fields, "destination").unwrap_or_default());
        home == partition && address_port(rest).is_some_and(|(address, _)| address == host)
    };
    config.of("ltm/virtual").find(|(_, fields)| uses(fields)).map(|(path, _)| path.to_owned())
}

/// Nothing may go that something else names.
pub(crate) fn check_unused(config: &Config, kind: &Kind, path: &str) -> Result<(), Refusal> {
    let used = |message: String| Err(Refusal::mcpd(400, message));
    match kind.path {
        "auth/partition" => {
            let prefix = format!("/{path}/");
            let inside = config.objects.keys().any(|(_, key)| key.starts_with(&prefix));
            if !inside {
                return Ok(());
            }
            used(format!(
                "0107082a:3: All objects must be removed from a partition before the partition ({path}) may be \
                 removed, type ID (973)"
            ))
        }
        "ltm/node" => {
            let name = split_path(path).1;
            let by = config.of("ltm/pool/members").find(|(key, _)| {
                let (partition, member) = split_path(crate::config::shown(key));
                partition == split_path(path).0 && address_port(member).is_some_and(|(host, _)| host == name)
            });
            let Some((key, _)) = by else { return Ok(()) };
            let pool = key.split_once(' ').map_or("", |(pool, _)| pool);
            used(format!("01070110:3: Node address '{path}' is referenced by a member of pool '{pool}'."))
        }
        "ltm/pool" => in_use(
            config,
            "ltm/virtual",
            |fields| text(fields, "pool") == Some(path),
            |by| {
                format!(
                    "01070265:3: The Pool ({path}) cannot be deleted because it is in use by a Virtual Server ({by})."
                )
            },
        ),
        "ltm/monitor/tcp" | "ltm/monitor/http" => in_use(
            config,
            "ltm/pool",
            |fields| monitors(fields).any(|monitor| monitor == path),
            |_| format!("01070083:3: Monitor {path} is in use."),
        ),
        "ltm/profile/fastl4" | "ltm/profile/tcp" | "ltm/profile/udp" | "ltm/profile/sctp" => in_use(
            config,
            "ltm/virtual",
            |fields| paths(fields, "profiles").any(|p| p == path),
            |by| {
                format!(
                    "01070265:3: The profile ({path}) cannot be deleted because it is in use by a Virtual Server ({by})."
                )
            },
        ),
        "ltm/persistence/source-addr" => in_use(
            config,
            "ltm/virtual",
            |fields| paths(fields, "persist").any(|p| p == path),
            |by| {
                format!(
                    "01070265:3: The Persistence Profile ({path}) cannot be deleted because it is in use by a Virtual Server ({by})."
                )
            },
        ),
        "ltm/virtual-address" => {
            let object = config.get(kind, path);
            let host = object.and_then(|object| text(&object.fields, "address")).unwrap_or_default();
            let Some(by) = address_in_use(config, split_path(path).0, host) else { return Ok(()) };
            used(format!(
                "01070265:3: The Virtual Address ({path}) cannot be deleted because it is in use by a Virtual Server ({by})."
            ))
        }
        _ => Ok(()),
    }
}

fn in_use(
    config: &Config,
    by: &'static str,
    uses: impl Fn(&Fields) -> bool,
    message: impl Fn(&str) -> String,
) -> Result<(), Refusal> {
    match config.of(by).find(|(_, fields)| uses(fields)) {
        Some((user, _)) => Err(Refusal::mcpd(400, message(user))),
        None => Ok(()),
    }
}
