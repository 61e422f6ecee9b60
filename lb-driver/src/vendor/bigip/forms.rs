//! Forms of values: what the device gives back in several ways is read as one.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Value;

pub(super) fn none() -> String {
    "none".to_owned()
}

pub(super) fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    Ok(if text.is_empty() { none() } else { text })
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let given = text(deserializer)?;
    given.parse().map_err(|_| serde::de::Error::custom(format!("{given:?}: expected a number")))
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let given = String::deserialize(deserializer)?;
    let bare = given.strip_suffix("%0").unwrap_or(&given);
    bare.parse().map_err(|_| serde::de::Error::custom(format!("{given:?}: expected an address")))
}

/// `/partition/address:port`, `address:port` or `*:port`, each in the way in which we write it.
pub(super) fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let given = String::deserialize(deserializer)?;
    if let Some(port) = given.strip_prefix("*.") {
        return Ok(format!("*:{port}"));
    }
    let (folder, host) = given.rsplit_once('/').map_or(("", given.as_str()), |(folder, host)| (folder, host));
    let Some((address, port)) = address_port(host) else { return Ok(given) };
    let host = with_port(address, port);
    Ok(if folder.is_empty() { host } else { format!("{folder}/{host}") })
}

pub(super) fn named_none<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if text.is_empty() { "none" } else { text })
}

/// The device leaves a blank at the end, and the order is its own. `min 1 of { … }` is none of ours and stays.
pub(super) fn monitors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let given = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let given = given.trim();
    if given == "none" {
        return Ok(String::new());
    }
    if given.starts_with("min ") {
        return Ok(given.to_owned());
    }
    let mut paths: Vec<&str> = given.split(" and ").map(str::trim).filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    Ok(paths.join(" and "))
}

/// What an address is written as in names and destinations, with a port: IPv6 has a dot before it.
pub fn with_port(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("{v6}.{port}"),
    }
}

/// The same, the other way; `any` is port 0.
pub fn address_port(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) =
        if text.matches(':').count() > 1 { text.rsplit_once('.')? } else { text.rsplit_once(':')? };
    let port = if port == "any" { 0 } else { port.parse().ok()? };
    Some((address.strip_suffix("%0").unwrap_or(address).parse().ok()?, port))
}
