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
        (KEEP_FLOATING_IP, "true"),
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
    assert_eq!((wishes.retain, wishes.drain_seconds), (true, 90));
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
    assert_eq!((wishes.retain, wishes.health_check), (false, Some(HealthCheck::Vip)));
}
