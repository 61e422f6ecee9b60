use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("api.toml"), text)
}

#[test]
fn the_example_is_a_configuration() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.networks[0].vips.len(), 2);
    assert_eq!(config.device.driver, DriverKind::Xdp);
}

#[test]
fn mistakes_are_named() {
    for (from, to, words) in [
        ("reconcile_seconds = 300", "reconcile_secons = 300", &["reconcile_secons", "unknown field"][..]),
        ("reconcile_seconds = 300", "reconcile_seconds = 0", &["reconcile_seconds = 0", "1 or more"]),
        ("pod_pool = \"10.240.0.0/12\"", "pod_pool = \"10.241.0.0/12\"", &["pod_pool", "10.240.0.0/12"]),
        ("pod_pool = \"10.240.0.0/12\"", "pod_pool = \"10.240.0.0/99\"", &["pod_pool"]),
        ("pod_prefix = 16", "pod_prefix = 8", &["pod_prefix = 8", "12"]),
        ("pod_prefix_v6 = 56", "", &["pod_pool_v6", "both or neither"]),
        ("pod_prefix_v6 = 56", "pod_prefix_v6 = 80", &["pod_prefix_v6 = 80", "48 to 64"]),
        ("pod_pool_v6 = \"fd00:240::/44\"", "pod_pool_v6 = \"10.0.0.0/8\"", &["pod_pool_v6", "IPv6"]),
        ("block_prefix = 28", "block_prefix = 33", &["block_prefix = 33", "24 to 32"]),
        ("last = \"203.0.113.239\"", "last = \"203.0.113.17\"", &["last = 203.0.113.17", "/28"]),
        ("last = \"203.0.113.239\"", "last = \"203.0.113.1\"", &["last = 203.0.113.1", "behind first"]),
        ("https://192.168.77.2:9512", "192.168.77.2", &["device.endpoints = 192.168.77.2", "https://"]),
        ("/var/lib/ake/api.sqlite", "mysql://db/ake", &["database", "no user"]),
        ("/var/lib/ake/api.sqlite", "postgres://ake@db/ake", &["database", "another kind"]),
        ("subnet = \"ake-vips-v4\"\n", "", &["network[0].vip[0].network", "both, or neither"]),
        ("# database_password_file", "database_password_file", &["database_password_file", "SQLite"]),
        ("neutron = true", "neutron = false", &["network[0].nodes = none", "neutron = false"]),
        (
            "[device]",
            "[[network.nodes]]\nproject = \"p\"\nranges = []\n[device]",
            &["network[0].nodes[0].project = p"],
        ),
        ("driver = \"xdp\"", "driver = \"f5\"", &["driver", "f5", "xdp"]),
        ("\"30000-32767\"", "\"9-8\"", &["check_ports", "9-8", "first-last"]),
        ("pools = 500", "pools = -2", &["quota.pools = -2", "-1 for no limit"]),
        (
            "addresses = 2000",
            "addresses = -2",
            &["project_quota.3f2a9c0de1b84f6a8a4f0f3c5b7d9e10.addresses = -2"],
        ),
        ("peer_burst = 500", "peer_burst = 0", &["limits.peer_burst = 0", "1 or more"]),
        ("listen = \"0.0.0.0:9511\"", "listen = \"here\"", &["listen", "invalid socket address"]),
        ("\npassword_file = ", "\npassword = \"x\"\npassword_file = ", &["both", "one of the two"]),
    ] {
        assert!(EXAMPLE.contains(from), "{from}");
        let error = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}\nlacks {word}");
        }
    }
}

#[test]
fn nodes_that_no_neutron_knows_are_one_projects_each() {
    let nodes = |ranges: &[&str]| {
        let all = ranges
            .iter()
            .enumerate()
            .map(|(i, range)| format!("[[network.nodes]]\nproject = \"p{i}\"\nranges = [{range}]\n"));
        let text = EXAMPLE.replacen("neutron = true", "neutron = false", 1);
        parse(&text.replacen("[device]", &(all.collect::<String>() + "[device]"), 1))
    };
    let network =
        nodes(&["\"192.0.2.0/26\", \"fd00::/64\"", "\"192.0.2.64/26\""]).unwrap().networks.remove(0);
    assert_eq!(network.nodes_of("p1"), ["192.0.2.64/26".parse().unwrap()]);
    assert_eq!((network.nodes_of("p0").len(), network.nodes_of("other").len()), (2, 0));
    for (ranges, words) in [
        (
            &["\"192.0.2.0/26\"", "\"192.0.2.32/32\""][..],
            "nodes[1].ranges = 192.0.2.32/32: expected addresses that no other",
        ),
        (&["\"192.0.2.1/26\""], "192.0.2.0/26"),
        (&[""], "nodes[0].ranges = []: expected one range at least"),
    ] {
        let error = nodes(ranges).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_missing_file_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.toml");
    std::fs::write(&path, EXAMPLE.replace("/etc/ake/", "/nowhere/")).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("tls.certificate") && error.contains("/nowhere/"), "{error}");
}
