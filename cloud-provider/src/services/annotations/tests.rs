mod fuzz;

use super::*;

fn service(annotations: &[(&str, &str)]) -> ServiceView {
    ServiceView {
        annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..ServiceView::default()
    }
}

#[test]
fn what_cannot_be_is_named_with_field_value_and_expectation() {
    for (name, value) in [
        ("loadbalancer.openstack.org/proxy-protocol", "v2"),
        ("loadbalancer.openstack.org/x-forwarded-for", "true"),
        ("loadbalancer.openstack.org/default-tls-container-ref", "http://barbican/1"),
        ("loadbalancer.openstack.org/hostname", "a.example"),
        ("loadbalancer.openstack.org/port-id", "6f3a"),
        (ADDRESS, "203.0.113"),
        (ADDRESS, "203.0.113.1, 203.0.113.2"),
        (RANGE, "203.0.113.1"),
        (SHARE, ""),
        (SHARE_WITH, "a"),
        (RETAIN, "yes"),
        (DRAIN, "1h"),
        (DRAIN, "3601"),
        (HEALTH_CHECK, "http"),
        (HEALTH_MONITOR, "on"),
        (KEEP_FLOATING_IP, "1"),
        (INTERNAL, "no"),
        (SOURCE_RANGES, "10.0.0.0/33"),
        (NODE_SELECTOR, "=b"),
    ] {
        let (_, findings) = read(&service(&[(name, value)]));
        assert_eq!(findings.len(), 1, "{name}: {findings:?}");
        assert!(findings[0].refused);
        let text = findings[0].to_string();
        let told = name == SHARE_WITH || text.contains(name) && value.contains(&findings[0].value);
        assert!(told && text.contains("expected"), "{text}");
    }
}

#[test]
fn switched_off_is_not_asked_for() {
    let (_, findings) = read(&service(&[
        ("loadbalancer.openstack.org/proxy-protocol", "false"),
        ("loadbalancer.openstack.org/x-forwarded-for", "False"),
        ("loadbalancer.openstack.org/connection-limit", "-1"),
        (METHOD, "source_ip_port"),
        (INTERNAL, "true"),
        (RETAIN, ""),
    ]));
    assert_eq!(findings, []);
}

#[test]
fn every_annotation_without_effect_is_told_but_not_refused() {
    let names = WITHOUT_EFFECT.iter().map(|(name, _)| format!("{OPENSTACK}{name}"));
    let others = [METHOD, INTERNAL, "ake.dev/adress", "loadbalancer.openstack.org/flavour"];
    for name in names.chain(others.map(ToOwned::to_owned)) {
        let value = if name == INTERNAL { "false" } else { "5" };
        let (_, findings) = read(&service(&[(&name, value)]));
        assert!(matches!(findings.as_slice(), [Finding { refused: false, .. }]), "{name}: {findings:?}");
        assert!(findings[0].field.contains(&name));
    }
}

#[test]
fn what_cloud_provider_openstack_wrote_to_a_service_is_no_reason_to_refuse_it() {
    let (_, findings) = read(&service(&[
        ("loadbalancer.openstack.org/load-balancer-id", "8a7d"),
        ("loadbalancer.openstack.org/load-balancer-address", "203.0.113.9"),
    ]));
    assert!(findings.iter().all(|finding| !finding.refused), "{findings:?}");
}

#[test]
fn wishes_are_read() {
    let mut view = service(&[
        (ADDRESS, "203.0.113.20,2001:db8::20"),
        (RANGE, "203.0.113.16/28"),
        (SHARE, "web"),
        (SHARE_WITH, "a, b"),
        (DRAIN, "90"),
        (HEALTH_MONITOR, "false"),
        (METHOD, "SOURCE_IP"),
        (SOURCE_RANGES, "10.1.2.3/8, 192.0.2.0/24"),
        (NODE_SELECTOR, "a=b, c"),
    ]);
    view.load_balancer_ip = Some("203.0.113.21".into());
    let (wishes, findings) = read(&view);
    assert_eq!(findings, []);
    let addresses: Vec<_> = wishes.addresses.values().map(ToString::to_string).collect();
    assert_eq!(addresses, ["203.0.113.20", "2001:db8::20"]);
    assert_eq!(wishes.ranges.len(), 1);
    assert_eq!((wishes.share.as_deref(), wishes.share_with.len()), (Some("web"), 2));
    assert_eq!(wishes.drain_seconds, 90);
    assert_eq!((wishes.health_check, wishes.client_affinity), (Some(HealthCheck::None), true));
    let ranges: Vec<_> = wishes.source_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "192.0.2.0/24"]);
    assert_eq!(wishes.node_selector["a"].as_deref(), Some("b"));
    assert_eq!(wishes.node_selector["c"], None);
}

#[test]
fn ours_goes_before_openstacks() {
    let (wishes, findings) = read(&service(&[
        (RETAIN, "false"),
        (KEEP_FLOATING_IP, "true"),
        (HEALTH_CHECK, "vip"),
        (HEALTH_MONITOR, "false"),
    ]));
    assert_eq!(findings, []);
    assert_eq!((wishes.retain, wishes.health_check), (Retain::No, Some(HealthCheck::Vip)));
}

#[test]
fn an_address_is_kept_for_its_name_or_for_the_project_and_never_a_shared_one() {
    use Retain::{Cluster, No, Project};
    for (ours, openstacks, expected) in [
        ("", "", No),
        ("true", "", Cluster),
        ("Project", "", Project),
        ("false", "true", No),
        ("", "true", Cluster),
        ("project", "false", Project),
    ] {
        let annotations = [(RETAIN, ours), (KEEP_FLOATING_IP, openstacks)];
        let (wishes, findings) = read(&service(&annotations));
        assert_eq!((wishes.retain, findings), (expected, vec![]), "{annotations:?}");

        let [first, second] = annotations;
        let (_, findings) = read(&service(&[first, second, (SHARE, "web")]));
        let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
        let name = if ours.is_empty() { KEEP_FLOATING_IP } else { RETAIN };
        match expected {
            No => assert_eq!(findings, [], "{annotations:?}"),
            _ => {
                assert!(findings[0].refused && told[0].contains(name) && told[0].contains(SHARE), "{told:?}")
            }
        }
    }
}

#[test]
fn an_address_that_is_adopted_is_the_one_that_is_asked_for() {
    let port = "99999999-9999-9999-9999-999999999991";
    for (adopted, address, refused) in [
        ("198.51.100.7", "198.51.100.7", false),
        ("198.51.100.7", "2001:db8::7", false),
        ("198.51.100.7", "198.51.100.8", true),
        ("2001:db8::7", "198.51.100.8,2001:db8::8", true),
        (port, "198.51.100.8", false),
    ] {
        let mut view = service(&[(ADOPT, adopted), (ADDRESS, address)]);
        view.families = vec![Family::V4, Family::V6];
        let (_, findings) = read(&view);
        assert_eq!(findings.iter().any(|f| f.refused && f.field == field(ADOPT)), refused, "{findings:?}");
    }
}
