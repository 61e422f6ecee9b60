use super::*;
use crate::config::{Config, EXAMPLE};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("api.toml"), text)
}

/// The example with a BIG-IP in place of an ake-xdp.
fn bigip(more: &str) -> String {
    let text = EXAMPLE.replace("driver = \"xdp\"", "driver = \"bigip\"");
    let lines = text.lines().filter(|line| {
        !line.starts_with("certificate = \"/etc/ake/balancer")
            && !line.starts_with("key = \"/etc/ake/balancer")
    });
    lines.collect::<Vec<_>>().join("\n") + "\n" + more
}

const LOGIN: &str = "username = \"ake\"\npassword_file = \"/etc/ake/bigip-password\"\n";

#[test]
fn a_big_ip_has_a_user_and_defaults() {
    let device = parse(&bigip(LOGIN)).unwrap().device;
    assert_eq!(device.driver, DriverKind::Bigip);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let device = Device { password_file: Some(file.clone()), ..device };
    let told = device.bigip().unwrap();
    assert_eq!((told.username, told.password.as_str()), ("ake", "secret"));
    assert_eq!((told.partition_prefix, told.traffic_group), ("ake-", "/Common/traffic-group-1"));
    std::fs::write(&file, "\n").unwrap();
    let error = device.bigip().err().unwrap().to_string();
    assert!(error.contains("device.password_file") && error.contains("holds a password"), "{error}");
}

#[test]
fn a_big_ips_mistakes_are_named() {
    for (more, words) in [
        ("", &["device.username = nothing", "bigip"][..]),
        ("username = \"ake\"", &["device.password_file = nothing", "bigip"]),
        (&format!("{LOGIN}password = \"x\""), &["password", "unknown field"]),
        (&format!("{LOGIN}key = \"/etc/ake/k\""), &["device.key = /etc/ake/k", "bigip"]),
    ] {
        let error = parse(&bigip(more)).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{more}: {error}\nlacks {word}");
        }
    }
    let three = r#"["https://a", "https://b", "https://c"]"#;
    let error =
        parse(&bigip(LOGIN).replace(r#"["https://192.168.77.2:9512"]"#, three)).unwrap_err().to_string();
    assert!(error.contains("device.endpoints") && error.contains("both units of a pair"), "{error}");
    let error = parse(&format!("{EXAMPLE}username = \"ake\"\n")).unwrap_err().to_string();
    assert!(error.contains("device.username = ake: expected none"), "{error}");
    let error =
        parse(&EXAMPLE.replace("certificate = \"/etc/ake/balancer", "# = \"")).unwrap_err().to_string();
    assert!(error.contains("device.certificate = nothing") && error.contains("xdp"), "{error}");
}
