//! Whether a request can be used at all, before anything else is looked at.

use std::collections::BTreeSet;

use ake_api_client::{BundleRequest, Check, ClusterRequest, Listener, LoadBalancerRequest, NodePortRequest};
use ipnetwork::IpNetwork;

use super::ranges::{Span, is_canonical};
use crate::refusal::Refusal;

/// Longest name of an address, a pool, a load balancer or an asker.
const NAME: usize = 63;
/// Longest name of a member, which is a node's.
const NODE_NAME: usize = 128;
/// Most listeners of one load balancer.
const LISTENERS: usize = 1000;
/// Most checks of one pool.
const CHECKS: usize = 8;
/// Largest ciphertext of a bundle, in characters of base64.
const CIPHERTEXT: usize = 256 * 1024;

/// The name of an address, a pool, a load balancer or an asker.
pub fn name(field: &str, value: &str) -> Result<(), Refusal> {
    name_up_to(field, value, NAME)
}

/// What an address is for, as people read it.
pub fn about(value: Option<&str>) -> Result<(), Refusal> {
    const LONGEST: usize = 200;
    let Some(value) = value else { return Ok(()) };
    if value.chars().count() <= LONGEST && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "about",
        value.escape_debug(),
        format!("expected at most {LONGEST} characters, none of control"),
    ))
}

/// What is to be adopted.
pub fn adopt(value: Option<&str>) -> Result<(), Refusal> {
    let Some(value) = value else { return Ok(()) };
    if value.parse::<std::net::IpAddr>().is_ok() || uuid::Uuid::parse_str(value).is_ok() {
        return Ok(());
    }
    Err(Refusal::invalid(
        "adopt",
        value.escape_debug(),
        "expected the id of a Neutron port, or an address that the project has retained",
    ))
}

/// The name of a member.
pub fn member_name(value: &str) -> Result<(), Refusal> {
    name_up_to("member", value, NODE_NAME)
}

fn name_up_to(field: &str, value: &str, longest: usize) -> Result<(), Refusal> {
    let fits = (1..=longest).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && value.bytes().any(|b| b.is_ascii_alphanumeric());
    if fits {
        return Ok(());
    }
    Err(Refusal::invalid(
        field,
        format!("\"{}\"", value.escape_debug()),
        format!("expected a name of 1 to {longest} characters of a-z, 0-9, - and ."),
    ))
}

/// The id of a Neutron port, as it stands in a path.
pub fn port_id(value: &str) -> Result<(), Refusal> {
    if uuid::Uuid::parse_str(value).is_ok() {
        return Ok(());
    }
    let given = format!("\"{}\"", value.escape_debug());
    Err(Refusal::invalid("port", given, "expected the id of a Neutron port, a UUID"))
}

/// The registration of a cluster.
pub fn cluster(request: &ClusterRequest) -> Result<(), Refusal> {
    if !(1..=255).contains(&request.name.chars().count()) || request.name.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            "name",
            format!("\"{}\"", request.name.escape_debug()),
            "expected a name of 1 to 255 printable characters",
        ));
    }
    if request.network.is_empty() {
        return Err(Refusal::invalid(
            "network",
            "\"\"",
            "expected the id of the Neutron network of the cluster's nodes",
        ));
    }
    Ok(())
}

/// How members are checked.
pub fn checks(checks: &[Check]) -> Result<(), Refusal> {
    if checks.len() > CHECKS {
        return Err(Refusal::invalid(
            "checks",
            format!("{} of them", checks.len()),
            format!("expected at most {CHECKS}"),
        ));
    }
    checks.iter().try_for_each(check)
}

fn check(check: &Check) -> Result<(), Refusal> {
    match check {
        Check::Tcp { port } => port_number("checks.port", *port),
        Check::Vip { address, port } => {
            name("checks.address", address)?;
            port_number("checks.port", *port)
        }
        Check::Http { port, path } => {
            port_number("checks.port", *port)?;
            let fits =
                path.starts_with('/') && path.len() <= 255 && path.bytes().all(|b| b.is_ascii_graphic());
            if fits {
                return Ok(());
            }
            Err(Refusal::invalid(
                "checks.path",
                format!("\"{}\"", path.escape_debug()),
                "expected a path of at most 255 printable ASCII characters that begins with /",
            ))
        }
    }
}

/// A load balancer, as far as it can be judged alone.
pub fn load_balancer(request: &LoadBalancerRequest) -> Result<(), Refusal> {
    name("address", &request.address)?;
    if request.listeners.is_empty() || request.listeners.len() > LISTENERS {
        return Err(Refusal::invalid(
            "listeners",
            format!("{} of them", request.listeners.len()),
            format!("expected 1 to {LISTENERS}"),
        ));
    }
    let mut seen = BTreeSet::new();
    for Listener { protocol, port, pool } in &request.listeners {
        port_number("listeners.port", *port)?;
        name("listeners.pool", pool)?;
        if !seen.insert((*protocol, *port)) {
            return Err(Refusal::invalid(
                "listeners",
                format!("{protocol:?} {port}").to_uppercase(),
                "given twice; expected each protocol and port once",
            ));
        }
    }
    request.source_ranges.iter().try_for_each(|range| canonical("source_ranges", *range))
}

/// The wishes for a node's port, as far as they can be judged without the port.
pub fn node_port(request: &NodePortRequest, pods: &[IpNetwork]) -> Result<(), Refusal> {
    name("asker", &request.asker)?;
    for range in &request.pod_ranges {
        canonical("pod_ranges", *range)?;
        if !pods.iter().any(|all| Span::of(*all).contains(Span::of(*range))) {
            let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
            return Err(Refusal::invalid(
                "pod_ranges",
                range,
                format!("expected a range within the cluster's pod ranges, {}", pods.join(", ")),
            ));
        }
    }
    request.addresses.iter().try_for_each(|address| name("addresses", address))
}

/// A sealed bundle and the role it is for.
pub fn bundle(role: &str, request: &BundleRequest) -> Result<(), Refusal> {
    name("role", role)?;
    let claim_fits = (32..=128).contains(&request.claim.len()) && request.claim.bytes().all(is_claim_byte);
    if !claim_fits {
        // the value is a secret: it is not repeated
        return Err(Refusal::invalid(
            "claim",
            format!("{} characters", request.claim.len()),
            "expected 32 to 128 characters of A-Z, a-z, 0-9, _ and -",
        ));
    }
    use base64::Engine;
    let decoded = base64::engine::general_purpose::STANDARD.decode(&request.ciphertext);
    if request.ciphertext.len() > CIPHERTEXT || !decoded.is_ok_and(|bytes| !bytes.is_empty()) {
        return Err(Refusal::invalid(
            "ciphertext",
            format!("{} characters", request.ciphertext.len()),
            format!("expected base64 of at most {CIPHERTEXT} characters"),
        ));
    }
    Ok(())
}

/// Whether a claim can have this byte.
#[must_use]
pub fn is_claim_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn port_number(field: &str, port: u16) -> Result<(), Refusal> {
    if port == 0 { Err(Refusal::invalid(field, port, "expected a port from 1 to 65535")) } else { Ok(()) }
}

fn canonical(field: &str, range: IpNetwork) -> Result<(), Refusal> {
    if is_canonical(range) {
        return Ok(());
    }
    Err(Refusal::invalid(
        field,
        range,
        format!("has bits behind its prefix; expected {}/{}", range.network(), range.prefix()),
    ))
}

#[cfg(test)]
mod tests {
    use ake_api_client::{Affinity, Protocol};

    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(64);
        for (value, expected) in [
            ("api", true),
            ("svc-0e0f5dd2-6e46-4a3d-a8f4-90f2f0a3cf5b", true),
            ("demo-worker-0.example", true),
            ("", false),
            ("-", false),
            ("Api", false),
            ("a/b", false),
            ("a b", false),
            (long.as_str(), false),
        ] {
            assert_eq!(name("name", value).is_ok(), expected, "{value}");
        }
        assert!(member_name(&long).is_ok());
    }

    #[test]
    fn a_refusal_is_one_line() {
        let forged = "a\nmember was taken";
        for refusal in [name("pool", forged), member_name("\u{1b}[2J"), port_id(forged)] {
            let message = refusal.unwrap_err().message;
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }

    #[test]
    fn load_balancers() {
        let listener = |protocol, port| Listener { protocol, port, pool: "nodes".into() };
        for (listeners, ranges, field) in [
            (vec![listener(Protocol::Tcp, 80), listener(Protocol::Udp, 80)], vec!["10.0.0.0/8"], None),
            (vec![], vec![], Some("listeners")),
            (vec![listener(Protocol::Tcp, 0)], vec![], Some("listeners.port")),
            (vec![listener(Protocol::Tcp, 80), listener(Protocol::Tcp, 80)], vec![], Some("listeners")),
            (vec![listener(Protocol::Tcp, 80)], vec!["10.0.0.1/8"], Some("source_ranges")),
        ] {
            let request = LoadBalancerRequest {
                address: "api".into(),
                listeners,
                source_ranges: ranges.iter().map(|r| r.parse().unwrap()).collect(),
                affinity: Affinity::None,
            };
            assert_eq!(load_balancer(&request).err().and_then(|r| r.field).as_deref(), field);
        }
    }

    #[test]
    fn ways_to_check() {
        for (value, expected) in [
            (Check::Tcp { port: 6443 }, true),
            (Check::Tcp { port: 0 }, false),
            (Check::Http { port: 10256, path: "/healthz".into() }, true),
            (Check::Http { port: 10256, path: "healthz".into() }, false),
            (Check::Http { port: 10256, path: "/a b".into() }, false),
            (Check::Http { port: 10256, path: "/a\r\nHost: x".into() }, false),
            (Check::Vip { address: "svc-1".into(), port: 80 }, true),
            (Check::Vip { address: "svc-1".into(), port: 0 }, false),
            (Check::Vip { address: "203.0.113.17/32".into(), port: 80 }, false),
        ] {
            assert_eq!(check(&value).is_ok(), expected, "{value:?}");
        }
        let many: Vec<_> = (1..=9).map(|port| Check::Tcp { port }).collect();
        assert!(checks(&many[..8]).is_ok() && checks(&many).is_err());
    }

    #[test]
    fn node_ports() {
        let request = |ranges: &[&str]| NodePortRequest {
            asker: "controller".into(),
            pod_ranges: ranges.iter().map(|r| r.parse().unwrap()).collect(),
            addresses: vec![],
            vip_blocks: true,
        };
        let pods = ["10.240.0.0/16".parse().unwrap(), "fd00:a:0:100::/56".parse().unwrap()];
        assert!(node_port(&request(&["10.240.3.0/24", "fd00:a:0:103::/64"]), &pods).is_ok());
        assert!(node_port(&request(&["fd00:a:0:203::/64"]), &pods).is_err());
        let refusal = node_port(&request(&["10.241.3.0/24"]), &pods).unwrap_err();
        assert!(
            refusal.message.contains("10.241.3.0/24") && refusal.message.contains("10.240.0.0/16"),
            "{refusal}"
        );
        assert!(node_port(&request(&["10.240.3.1/24"]), &pods).is_err());
        assert!(node_port(&request(&["0.0.0.0/0"]), &pods).is_err());
    }

    #[test]
    fn a_refused_bundle_does_not_repeat_the_claim() {
        let request = BundleRequest { claim: "short secret".into(), ciphertext: "aGVsbG8=".into() };
        let refusal = bundle("worker", &request).unwrap_err();
        assert!(!refusal.message.contains("short secret"), "{refusal}");
        let good = BundleRequest { claim: "a".repeat(43), ciphertext: "aGVsbG8=".into() };
        assert!(bundle("worker", &good).is_ok());
        assert!(bundle("worker", &BundleRequest { ciphertext: "not base64!".into(), ..good }).is_err());
    }
}
