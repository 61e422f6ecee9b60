//! Forms of values: the device rewrites what it is given, and reads back in its own form.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::{
    answer::{Refusal, link},
    kinds::Kind,
};

pub(crate) type Fields = Map<String, Value>;

/// `/P/name` for a name, whether or not it has its partition.
pub(crate) fn full_path(partition: &str, name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{partition}/{name}") }
}

/// The partition and the name of a full path.
pub(crate) fn split_path(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|rest| rest.split_once('/')).unwrap_or(("", path))
}

/// Address and port of `10.0.0.1:80`, `2001:db8::1.80`, `10.0.0.1:any`.
pub(crate) fn address_port(text: &str) -> Option<(String, u16)> {
    let colons = text.matches(':').count();
    let (address, port) = if colons > 1 { text.rsplit_once('.')? } else { text.rsplit_once(':')? };
    let port = match port {
        "any" | "*" => 0,
        "http" => 80,
        "https" => 443,
        port => port.parse().ok()?,
    };
    Some((address.to_owned(), port))
}

/// The same, the other way.
pub(crate) fn join_port(address: &str, port: u16) -> String {
    if address.contains(':') { format!("{address}.{port}") } else { format!("{address}:{port}") }
}

/// An address in its shortest form; a default route domain's suffix is dropped.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.strip_suffix("%0").unwrap_or(text).parse().ok()
}

/// A range with its host bits cleared.
pub(crate) fn range(text: &str) -> Option<String> {
    let (network, prefix) = match text.split_once('/') {
        Some((network, prefix)) => (address(network)?, prefix.parse::<u8>().ok()?),
        None => (address(text)?, if text.contains(':') { 128 } else { 32 }),
    };
    match network {
        IpAddr::V4(v4) if prefix <= 32 => {
            let kept = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Some(format!("{}/{prefix}", std::net::Ipv4Addr::from_bits(v4.to_bits() & kept)))
        }
        IpAddr::V6(v6) if prefix <= 128 => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Some(format!("{}/{prefix}", std::net::Ipv6Addr::from_bits(v6.to_bits() & kept)))
        }
        _ => None,
    }
}

/// Takes what a body says into an object: known properties, allowed words, the device's own types.
pub(crate) fn take(kind: &Kind, fields: &mut Fields, body: &Fields) -> Result<(), Refusal> {
    let defaults = kind.defaults();
    for (name, value) in body {
        let known = defaults.get(name).is_some() || kind.optional.contains(&name.as_str());
        if !known {
            let said_of_itself =
                ["kind", "selfLink", "generation", "fullPath", "name", "partition", "subPath", "vsIndex"];
            if said_of_itself.contains(&name.as_str()) || name.ends_with("Reference") {
                continue;
            }
            return Err(Refusal::rest(format!("\"{}\" unknown property", dashed(name))));
        }
        let value = match (defaults.get(name), value) {
            (Some(Value::String(_)), Value::Number(number)) => Value::String(number.to_string()),
            (Some(Value::Number(_)), Value::String(text)) => {
                let number: u64 = text.parse().map_err(|_| invalid(name, text))?;
                number.into()
            }
            (_, value) => value.clone(),
        };
        if let (Some((_, words)), Some(word)) =
            (kind.words.iter().find(|(property, _)| property == name), value.as_str())
            && !words.contains(&word)
        {
            return Err(invalid(name, word));
        }
        if matches!(&value, Value::String(text) if text.is_empty() || text == "none")
            && kind.optional.contains(&name.as_str())
        {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value);
        }
    }
    Ok(())
}

pub(crate) fn invalid(name: &str, value: &str) -> Refusal {
    Refusal::rest(format!("invalid property value \"{}\":\"{value}\"", dashed(name)))
}

/// `loadBalancingMode` as tmsh has it: `load-balancing-mode`.
fn dashed(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn text(fields: &Fields, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Brings an object into the form in which the device keeps it.
pub(crate) fn settle(kind: &Kind, partition: &str, name: &str, fields: &mut Fields) -> Result<(), Refusal> {
    match kind.path {
        "ltm/virtual" => settle_virtual(partition, fields),
        "ltm/pool" => {
            if let Some(monitor) = text(fields, "monitor") {
                fields.insert("monitor".into(), monitors(partition, &monitor).into());
            }
            Ok(())
        }
        "ltm/virtual-address" | "ltm/node" => {
            let given = text(fields, "address").unwrap_or_else(|| name.to_owned());
            let any = if given == "any" { "0.0.0.0" } else { &given };
            let parsed = address(any).ok_or_else(|| invalid("address", &given))?;
            fields.insert("address".into(), parsed.to_string().into());
            if kind.path == "ltm/virtual-address" {
                fields.entry("mask").or_insert_with(|| mask(parsed).into());
            }
            states(fields)
        }
        "ltm/pool/members" => states(fields),
        "ltm/monitor/tcp" | "ltm/monitor/http" | "ltm/profile/fastl4" | "ltm/persistence/source-addr" => {
            let parent = match kind.path.rsplit('/').next() {
                Some("fastl4") => "fastL4",
                Some("source-addr") => "source_addr",
                other => other.unwrap_or_default(),
            };
            if name != parent {
                let given = text(fields, "defaultsFrom").unwrap_or_else(|| format!("/Common/{parent}"));
                fields.insert("defaultsFrom".into(), full_path("Common", &given).into());
            }
            if let Some(destination) = text(fields, "destination")
                && destination != "*:*"
            {
                let (host, port) =
                    address_port(&destination).ok_or_else(|| invalid("destination", &destination))?;
                let host = if host == "*" { host } else { canonical(&host, "destination")? };
                fields.insert("destination".into(), join_port(&host, port).into());
            }
            Ok(())
        }
        "ltm/data-group/internal" => records(fields),
        _ => Ok(()),
    }
}

fn canonical(host: &str, property: &str) -> Result<String, Refusal> {
    Ok(address(host).ok_or_else(|| invalid(property, host))?.to_string())
}

fn mask(address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => "255.255.255.255".to_owned(),
        IpAddr::V6(_) => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".to_owned(),
    }
}

/// Only these may be written; what is read back is told by the monitors as well.
fn states(fields: &mut Fields) -> Result<(), Refusal> {
    for (property, words) in
        [("session", ["user-enabled", "user-disabled", ""]), ("state", ["user-up", "user-down", "unchecked"])]
    {
        if let Some(word) = text(fields, property)
            && !words.contains(&word.as_str())
        {
            return Err(invalid(property, &word));
        }
    }
    Ok(())
}

/// Full paths, and the blank that the device leaves behind them.
fn monitors(partition: &str, text: &str) -> String {
    let word = |word: &str| match word {
        "and" | "min" | "of" | "{" | "}" | "default" | "/Common/default" => word.to_owned(),
        count if count.bytes().all(|b| b.is_ascii_digit()) => count.to_owned(),
        name => full_path(partition, name),
    };
    let mut joined = text.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    joined.push(' ');
    joined
}

fn settle_virtual(partition: &str, fields: &mut Fields) -> Result<(), Refusal> {
    let given = text(fields, "destination").ok_or_else(|| Refusal::rest("destination must be specified"))?;
    let path = full_path(partition, &given);
    let (folder, rest) = split_path(&path);
    let (host, port) = address_port(rest).ok_or_else(|| invalid("destination", &given))?;
    let host = canonical(&host, "destination")?;
    let parsed = address(&host).ok_or_else(|| invalid("destination", &given))?;
    fields.insert("destination".into(), format!("/{folder}/{}", join_port(&host, port)).into());
    fields.entry("mask").or_insert_with(|| mask(parsed).into());
    let any = if parsed.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let source = text(fields, "source").unwrap_or_else(|| any.to_owned());
    fields.insert("source".into(), range(&source).ok_or_else(|| invalid("source", &source))?.into());
    if let Some(pool) = text(fields, "pool") {
        fields.insert("pool".into(), full_path(partition, &pool).into());
    }
    if fields.get("disabled") == Some(&Value::Bool(true)) && fields.get("enabled") == Some(&Value::Bool(true))
    {
        fields.remove("enabled");
    }
    let protocol = text(fields, "ipProtocol").unwrap_or_default();
    let default_profile = match protocol.as_str() {
        "tcp" | "udp" | "sctp" => format!("/Common/{protocol}"),
        _ => "/Common/fastL4".to_owned(),
    };
    let profiles = fields.remove("profiles").unwrap_or_else(|| json!([default_profile]));
    fields.insert(
        "profiles".into(),
        references(partition, &profiles, |reference, given| {
            reference["context"] = given.get("context").cloned().unwrap_or_else(|| "all".into());
        }),
    );
    if let Some(persist) = fields.remove("persist") {
        fields.insert(
            "persist".into(),
            references(partition, &persist, |reference, given| {
                reference["tmDefault"] = given.get("tmDefault").cloned().unwrap_or_else(|| "yes".into());
            }),
        );
    }
    Ok(())
}

/// A list of names, whether they came as text or as objects.
fn references(partition: &str, given: &Value, more: impl Fn(&mut Value, &Value)) -> Value {
    let one = |item: &Value| {
        let name = item.as_str().or_else(|| item["name"].as_str()).unwrap_or_default();
        let path = full_path(item["partition"].as_str().unwrap_or(partition), name);
        let (folder, name) = split_path(&path);
        let mut reference = json!({"name": name, "partition": folder, "fullPath": path});
        more(&mut reference, item);
        reference
    };
    match given {
        Value::Array(items) => items.iter().map(one).collect(),
        Value::String(text) if text.is_empty() || text == "none" => json!([]),
        other => json!([one(other)]),
    }
}

fn records(fields: &mut Fields) -> Result<(), Refusal> {
    let kind = text(fields, "type").ok_or_else(|| Refusal::rest("type must be specified"))?;
    let Some(Value::Array(records)) = fields.get_mut("records") else { return Ok(()) };
    for record in records.iter_mut() {
        let name = record["name"].as_str().map(str::to_owned).unwrap_or_else(|| record["name"].to_string());
        let name = if kind == "ip" { range(&name).ok_or_else(|| invalid("records", &name))? } else { name };
        record["name"] = name.into();
        if record.get("data").is_none() {
            record["data"] = "".into();
        }
    }
    records.sort_by_key(|record| record["name"].as_str().map(str::to_owned));
    Ok(())
}

/// The same object in other ways that the device may write: numbers as text, the default route domain by its number,
/// monitors in another order.
pub(crate) fn otherwise(value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    for (name, field) in fields.iter_mut() {
        match (name.as_str(), &field) {
            ("generation", _) => {}
            ("monitor", Value::String(monitors)) => {
                let reversed: Vec<&str> = monitors.trim().split(" and ").collect();
                *field = reversed.into_iter().rev().collect::<Vec<_>>().join(" and ").into();
            }
            ("address", Value::String(address)) => *field = format!("{address}%0").into(),
            ("destination", Value::String(given)) => {
                let (folder, host) = split_path(given);
                if let (false, Some((host, port))) = (folder.is_empty(), address_port(host)) {
                    *field = format!("/{folder}/{}", join_port(&format!("{host}%0"), port)).into();
                }
            }
            (_, Value::Number(number)) => *field = number.to_string().into(),
            _ => {}
        }
    }
}

/// The link of an object.
pub(crate) fn self_link(kind: &Kind, path: &str) -> String {
    let named = |collection: &str, path: &str| format!("{collection}/{}", path.replace('/', "~"));
    if let Some((pool, member)) = path.split_once(' ') {
        return link(&format!("{}/members/{}", named("ltm/pool", pool), member.replace('/', "~")));
    }
    link(&named(kind.path, path))
}
