use super::*;

/// The same of a cluster whose second family is IPv6.
pub(crate) fn dual_stack(role: &str) -> serde_json::Value {
    let mut file = sample(role);
    file["pod_ranges"] = serde_json::json!(["10.240.0.0/16", "fd00:240:0:100::/56"]);
    file["service_ranges"] = serde_json::json!(["10.96.0.0/16", "fd00:96::/112"]);
    file["vip_blocks"] = serde_json::json!(["203.0.113.16/28", "2001:db8:113::10/124"]);
    file
}

/// A valid file of a node of that role.
pub(crate) fn sample(role: &str) -> serde_json::Value {
    serde_json::json!({
        "cluster": "11111111-2222-4333-8444-555555555555", "cluster_name": "demo", "role": role,
        "name": format!("demo-{role}-0"),
        "api": {"url": "https://192.0.2.2:9511", "ca": "-----BEGIN CERTIFICATE-----\n"},
        "claim": {"id": "claim-1", "key": base64::engine::general_purpose::STANDARD.encode([7_u8; 32])},
        "signal": {"url": "http://192.0.2.2:8004/signal", "token": "t"},
        "control_plane": {"vip": "203.0.113.17", "port": 6443,
            "masters": [{"name": "demo-master-0", "address": "192.168.77.20"}]},
        "pod_ranges": ["10.240.0.0/16"], "service_ranges": ["10.96.0.0/16"], "cluster_dns": "10.96.0.10",
        "vip_blocks": ["203.0.113.16/28"], "security_group": "sg-1", "metadata": {}
    })
}

#[test]
fn a_valid_file_is_read() {
    let config = NodeConfig::parse(&sample("worker").to_string()).unwrap();
    assert_eq!(config.role, Role::Worker);
    assert_eq!(config.server(), "https://203.0.113.17:6443");
    assert_eq!(config.masters[0].address, "192.168.77.20".parse::<IpAddr>().unwrap());
    let config = NodeConfig::parse(&sample("master").to_string()).unwrap();
    assert_eq!(config.server(), "https://127.0.0.1:6443");
}

#[test]
fn what_is_wrong_is_named_with_its_value_and_what_was_expected() {
    for (pointer, value, words) in [
        ("/role", "boss", ["role", "boss", "master or worker"]),
        ("/cluster", "demo", ["cluster", "demo", "UUID"]),
        ("/control_plane/vip", "203.0.113", ["control_plane.vip", "203.0.113", "IP address"]),
        ("/pod_ranges/0", "10.240.0.1/16", ["pod_ranges[0]", "10.240.0.1/16", "host bits"]),
        ("/service_ranges/0", "fd00:96::/112", ["service_ranges", "fd00:96::/112", "10.240.0.0/16"]),
        ("/vip_blocks/0", "203.0.113.16", ["vip_blocks[0]", "203.0.113.16", "ADDRESS/PREFIX"]),
        ("/cluster_dns", "10.97.0.10", ["cluster_dns", "10.97.0.10", "10.96.0.0/16"]),
        ("/name", "demo-master-7", ["name", "demo-master-7", "demo-master-0"]),
        ("/name", "no spaces", ["name", "no spaces", "a-z"]),
        ("/api/url", "http://192.0.2.2", ["api.url", "http://192.0.2.2", "https://"]),
        ("/claim/key", "c2hvcnQ=", ["claim.key", "not shown", "32 bytes"]),
    ] {
        let mut file = sample("master");
        *file.pointer_mut(pointer).unwrap() = value.into();
        let error = NodeConfig::parse(&file.to_string()).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{pointer}: {error}");
        }
    }
}

#[test]
fn a_missing_field_is_named() {
    let mut file = sample("worker");
    file.as_object_mut().unwrap().remove("pod_ranges");
    let error = NodeConfig::parse(&file.to_string()).unwrap_err().to_string();
    assert!(error.contains("pod_ranges"), "{error}");
    file["pod_ranges"] = serde_json::json!(["10.240.0.0/16", "10.241.0.0/16"]);
    let error = NodeConfig::parse(&file.to_string()).unwrap_err().to_string();
    assert!(error.contains("one of each family"), "{error}");
}

#[test]
fn the_signal_is_found_in_a_file_that_is_otherwise_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.json");
    let mut file = sample("worker");
    file["pod_ranges"] = serde_json::json!(["nonsense"]);
    std::fs::write(&path, file.to_string()).unwrap();
    let (name, signal, _) = super::signal(&path).unwrap();
    assert_eq!((name.as_str(), signal.token.as_str()), ("demo-worker-0", "t"));
}
