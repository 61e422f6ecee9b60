//! The example: its values are here, its comments are the documentation of the configuration's types.

use std::{collections::BTreeSet, fmt::Write as _};

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::*;

/// Longest line of the example.
const WIDTH: usize = 118;
/// A project's id, as Keystone makes them.
const PROJECT: &str = "3f2a9c0de1b84f6a8a4f0f3c5b7d9e10";
/// Keys and tables that a small site leaves out.
const LEFT_OUT: &[&str] = &[
    "database_password_file",
    "keystone.password",
    "keystone.ca",
    "network.nodes",
    "network.nodes.project",
    "network.nodes.ranges",
    "device.username",
    "device.password_file",
    "device.partition_prefix",
    "device.traffic_group",
    "device.sync_group",
];

impl Config {
    /// A small site's.
    fn example() -> Self {
        let file = |name: &str| PathBuf::from("/etc/ake").join(name);
        let vip = |version: u8, first: &str, last: &str, block_prefix| Vip {
            network: Some("ake-vips".into()),
            subnet: Some(format!("ake-vips-v{version}")),
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            block_prefix,
        };
        Self {
            listen: "0.0.0.0:9511".parse().unwrap(),
            metrics_listen: Some("127.0.0.1:9510".parse().unwrap()),
            database: "/var/lib/ake/api.sqlite".into(),
            database_password_file: Some(file("database-password")),
            audit_log: "/var/log/ake/audit.jsonl".into(),
            reconcile_seconds: 300,
            orphan_budget: 20,
            check_ports: checks::admitted(),
            tls: Tls { certificate: file("api.crt"), key: file("api.key") },
            keystone: Keystone {
                auth_url: "http://192.0.2.2:5000/v3".into(),
                username: "ake".into(),
                password: Some("...".into()),
                password_file: Some(file("keystone-password")),
                user_domain: "Default".into(),
                project: "service".into(),
                project_domain: "Default".into(),
                region: Some("RegionOne".into()),
                ca: Some(file("keystone-ca.crt")),
                token_cache_seconds: 60,
                token_cache_entries: 10_000,
            },
            limits: Limits::default(),
            quota: Quota::usual(),
            project_quota: [(
                PROJECT.to_owned(),
                Quota { addresses: Some(2000), members: Some(-1), ..Quota::default() },
            )]
            .into(),
            networks: vec![Network {
                network: "provider".into(),
                neutron: true,
                nodes: vec![Nodes { project: PROJECT.into(), ranges: vec!["192.0.2.0/26".parse().unwrap()] }],
                pod_pool: "10.240.0.0/12".parse().unwrap(),
                pod_prefix: 16,
                pod_pool_v6: Some("fd00:240::/44".parse().unwrap()),
                pod_prefix_v6: Some(56),
                vips: vec![
                    vip(4, "203.0.113.16", "203.0.113.239", 28),
                    vip(6, "2001:db8:113::10", "2001:db8:113::ffef", 124),
                ],
            }],
            device: Device {
                driver: DriverKind::Xdp,
                endpoints: vec!["https://192.168.77.2:9512".into()],
                ca: file("balancer-ca.crt"),
                certificate: Some(file("balancer-client.crt")),
                key: Some(file("balancer-client.key")),
                username: Some("ake".into()),
                password_file: Some(file("bigip-password")),
                partition_prefix: Some("ake-".into()),
                traffic_group: Some("/Common/traffic-group-1".into()),
                sync_group: Some("/Common/pair".into()),
                check_sources: vec!["192.168.77.2/32".parse().unwrap(), "fd00:77::2/128".parse().unwrap()],
            },
        }
    }
}

/// Everything that is said of a key or a table, by its path.
struct Words {
    schema: Value,
}

impl Words {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        Self { schema: settings.into_generator().into_root_schema_for::<Config>().to_value() }
    }

    /// What is under a key, wherever it stands: in an object, in the objects of a list or of a map, or in one of several
    /// shapes.
    fn under<'a>(at: &'a Value, key: &str) -> Option<&'a Value> {
        let shapes = ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| at[word].as_array()).flatten();
        let found = at["properties"].get(key).or_else(|| {
            let inner = [&at["items"], &at["additionalProperties"]];
            inner.into_iter().filter(|inner| inner.is_object()).find_map(|inner| Self::under(inner, key))
        });
        found.or_else(|| shapes.into_iter().find_map(|shape| Self::under(shape, key)))
    }

    /// What is said of a key or a table.
    fn of(&self, path: &str) -> Option<String> {
        let mut at = &self.schema;
        for key in path.split('.') {
            // a key of a map stands for any, and the map speaks for it
            at = Self::under(at, key).or_else(|| at["additionalProperties"].is_object().then_some(at))?;
        }
        at["description"].as_str().map(ToOwned::to_owned)
    }

    /// Every key that there is.
    fn keys(&self) -> BTreeSet<String> {
        fn collect(at: &Value, keys: &mut BTreeSet<String>) {
            match at {
                Value::Object(object) => {
                    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
                        keys.extend(properties.keys().cloned());
                    }
                    object.values().for_each(|value| collect(value, keys));
                }
                Value::Array(all) => all.iter().for_each(|value| collect(value, keys)),
                _ => {}
            }
        }
        let mut keys = BTreeSet::new();
        collect(&self.schema, &mut keys);
        keys
    }
}

/// A comment in lines of the house's width.
fn comment(words: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in words.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.len() + 1 + word.len() > WIDTH {
            lines.push(format!("# {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

fn text() -> String {
    let (words, example) = (Words::new(), toml::to_string(&Config::example()).unwrap());
    let mut out = String::from(
        "# ake-api: all keys, with the values of a small site; those with a # before them are left out.\n",
    );
    let (mut table, mut told) = (String::new(), BTreeSet::new());
    for line in example.lines() {
        let header = line.trim_matches(['[', ']']);
        let mut left_out = LEFT_OUT.contains(&header);
        if header != line && !line.contains('=') {
            table = format!("{header}.");
            out.push('\n');
            if told.insert(header.to_owned()) {
                out += &words.of(header).map(|words| comment(&words)).unwrap_or_default();
            }
        } else if let Some((key, _)) = line.split_once(" = ") {
            let path = format!("{table}{key}");
            // what was said of one range need not be said of the next, nor of a project's own quota
            if told.insert(path.clone()) && !path.starts_with("project_quota.") {
                let words = words.of(&path).unwrap_or_else(|| panic!("{path} has no documentation"));
                out += &comment(&words);
            }
            left_out = LEFT_OUT.contains(&path.as_str());
        }
        if !line.is_empty() {
            writeln!(out, "{}{line}", if left_out { "# " } else { "" }).unwrap();
        }
    }
    out
}

/// `AKE_WRITE_REFERENCE=1 cargo test -p ake-api example` writes it anew.
#[test]
fn the_example_is_made_from_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml");
    let wanted = text();
    if std::env::var_os("AKE_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == wanted,
        "api/example.toml is not what the code says: AKE_WRITE_REFERENCE=1 cargo test -p ake-api example writes it anew"
    );
    let missing: Vec<_> = Words::new()
        .keys()
        .into_iter()
        .filter(|key| {
            !written.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} = "))
                    || line.trim_matches(['[', ']']).split('.').any(|part| part == key)
            })
        })
        .collect();
    assert!(missing.is_empty(), "keys without an example: {missing:?}");
}
