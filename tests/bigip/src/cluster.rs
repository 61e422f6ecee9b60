//! What a unit says of itself and of its pair: version, failover, config-sync, statistics.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    answer::{Refusal, VERSION, link},
    config::Config,
    device::Unit,
};

/// /mgmt/tm/cm/device, as unit `me` shows it.
pub(crate) fn devices(units: &[Unit], me: usize) -> Value {
    let items: Vec<_> = units
        .iter()
        .enumerate()
        .map(|(index, unit)| {
            json!({
                "kind": "tm:cm:device:devicestate", "name": unit.name, "partition": "Common",
                "fullPath": format!("/Common/{}", unit.name), "generation": 1,
                "selfLink": link(&format!("cm/device/~Common~{}", unit.name)),
                "failoverState": if unit.active { "active" } else { "standby" },
                "selfDevice": if index == me { "true" } else { "false" },
                "hostname": unit.name, "version": VERSION, "product": "BIG-IP", "edition": "Final",
                "build": "0.0.16", "platformId": "Z100", "chassisId": "e79d0a24",
            })
        })
        .collect();
    json!({"kind": "tm:cm:device:devicecollectionstate", "selfLink": link("cm/device"), "items": items})
}

/// /mgmt/tm/cm/sync-status.
pub(crate) fn sync_status(units: &[Unit]) -> Value {
    let (color, mode, status) = match units {
        [_] => ("green", "standalone", "Standalone"),
        [one, other, ..] if one.peer_lost || other.peer_lost => ("red", "high-availability", "Disconnected"),
        [one, other, ..] if one.config.objects == other.config.objects => {
            ("green", "high-availability", "In Sync")
        }
        _ => ("yellow", "high-availability", "Changes Pending"),
    };
    let summary = if status == "In Sync" { "All devices in the device group are in sync" } else { "" };
    let entries = json!({
        "color": {"description": color}, "mode": {"description": mode},
        "status": {"description": status}, "summary": {"description": summary},
    });
    json!({
        "kind": "tm:cm:sync-status:sync-statusstats", "selfLink": link("cm/sync-status"),
        "entries": {"https://localhost/mgmt/tm/cm/sync-status/0": {"nestedStats": {"entries": entries}}},
    })
}

/// /mgmt/tm/sys/version.
pub(crate) fn version() -> Value {
    let entries = json!({
        "Build": {"description": "0.0.16"}, "Edition": {"description": "Final"},
        "Product": {"description": "BIG-IP"}, "Title": {"description": "Main Package"},
        "Version": {"description": VERSION},
    });
    json!({
        "kind": "tm:sys:version:versionstats", "selfLink": link("sys/version"),
        "entries": {"https://localhost/mgmt/tm/sys/version/0": {"nestedStats": {"entries": entries}}},
    })
}

/// /mgmt/tm/sys/provision: LTM alone.
pub(crate) fn provision() -> Value {
    let item = json!({
        "kind": "tm:sys:provision:provisionstate", "name": "ltm", "fullPath": "ltm", "generation": 1,
        "selfLink": link("sys/provision/ltm"), "level": "nominal",
    });
    json!({"kind": "tm:sys:provision:provisioncollectionstate", "selfLink": link("sys/provision"), "items": [item]})
}

/// /mgmt/tm/ltm/virtual/stats.
pub(crate) fn virtual_stats(config: &Config) -> Value {
    let entries: serde_json::Map<String, Value> = config
        .of("ltm/virtual")
        .map(|(path, fields)| {
            let named = path.replace('/', "~");
            let stats = json!({
                "clientside.bitsIn": {"value": 8000}, "clientside.pktsIn": {"value": 10},
                "clientside.totConns": {"value": 1}, "tmName": {"description": path},
                "destination": {"description": fields.get("destination").cloned().unwrap_or_default()},
                "status.availabilityState": {"description": "available"},
                "status.enabledState": {"description": "enabled"},
            });
            let url = format!("https://localhost/mgmt/tm/ltm/virtual/{named}/~Common~{}/stats", named.len());
            (url, json!({"nestedStats": {"entries": stats}}))
        })
        .collect();
    json!({"kind": "tm:ltm:virtual:virtualcollectionstats", "selfLink": link("ltm/virtual/stats"), "entries": entries})
}

/// /mgmt/shared/identified-devices/config/device-info.
pub(crate) fn device_info(name: &str) -> Value {
    json!({
        "baseMac": "fa:16:3e:00:00:01", "hostMac": "fa:16:3e:00:00:01", "platform": "Z100", "cpu": "x86",
        "halUuid": "2b8ff8b4", "chassisSerialNumber": "e79d0a24", "hostname": name, "version": VERSION,
        "product": "BIG-IP", "edition": "Final", "build": "0.0.16", "managementAddress": "127.0.0.1",
        "kind": "shared:resolver:device-groups:deviceinfostate",
        "selfLink": "https://localhost/mgmt/shared/identified-devices/config/device-info",
    })
}

/// A collection of the device in which there is nothing here.
pub(crate) fn empty(path: &[&str]) -> (StatusCode, Value) {
    let kind = format!("tm:{}:{}collectionstate", path.join(":"), path.last().unwrap_or(&""));
    (StatusCode::OK, json!({"kind": kind, "selfLink": link(&path.join("/"))}))
}

/// /mgmt/tm/sys/folder/~P: the folder that every partition is.
pub(crate) fn folder(config: &Config, name: &str) -> (StatusCode, Value) {
    let partition = name.trim_start_matches('~');
    if !config.has("auth/partition", partition) {
        let refusal = Refusal::not_found("folder", &format!("/{partition}"));
        return (refusal.status, refusal.body());
    }
    let shown = json!({
        "kind": "tm:sys:folder:folderstate", "name": partition, "fullPath": format!("/{partition}"),
        "selfLink": link(&format!("sys/folder/~{partition}")), "deviceGroup": "none", "hidden": "false",
        "inheritedDevicegroup": "true", "inheritedTrafficGroup": "true", "noRefCheck": "false",
        "trafficGroup": "/Common/traffic-group-1",
    });
    (StatusCode::OK, shown)
}

/// The profiles of a virtual server, which are a collection of their own.
pub(crate) fn profiles(config: &Config, path: &str) -> (StatusCode, Value) {
    let Some((_, fields)) = config.of("ltm/virtual").find(|(own, _)| *own == path) else {
        let refusal = Refusal::not_found("Virtual Server", path);
        return (refusal.status, refusal.body());
    };
    let own = format!("ltm/virtual/{}/profiles", path.replace('/', "~"));
    let mut items = fields.get("profiles").and_then(Value::as_array).cloned().unwrap_or_default();
    for item in &mut items {
        item["kind"] = "tm:ltm:virtual:profiles:profilesstate".into();
        let name = item["fullPath"].as_str().unwrap_or_default().replace('/', "~");
        item["selfLink"] = link(&format!("{own}/{name}")).into();
    }
    let kind = "tm:ltm:virtual:profiles:profilescollectionstate";
    (StatusCode::OK, json!({"kind": kind, "selfLink": link(&own), "items": items}))
}
