//! Which addresses Services get: two families, shared ones, kept ones, those of a range.

use std::{collections::BTreeMap, net::IpAddr};

use ake_api_client::{Family, Protocol};

use super::{
    super::{
        annotations::{ADDRESS, ADOPT, RANGE, RETAIN, SHARE, SHARE_WITH},
        plan::plan,
        view::{Endpoints, PortView, ServiceView},
        wanted::World,
    },
    model::{annotated, converge, dual_world, key, service, world},
    shown,
};
use crate::cluster::Key;

fn published(world: &World, name: &str) -> Vec<String> {
    let ingress = &world.services[&key(name)].ingress;
    ingress.iter().filter_map(|entry| entry.ip).map(|ip: IpAddr| ip.to_string()).collect()
}

fn refusals(world: &World) -> Vec<String> {
    let refused = plan(world).findings.into_iter().filter(|(_, finding)| finding.refused);
    refused.map(|(key, finding)| format!("{key}: {finding}")).collect()
}

fn on(port: u16, mut service: ServiceView) -> ServiceView {
    service.ports[0].port = port;
    service
}

#[test]
fn two_families_get_two_vips_and_a_change_of_families_touches_one_only() {
    let mut world = dual_world();
    let mut both = service("u1");
    both.families = vec![Family::V6, Family::V4];
    world.services.insert(key("web"), both);
    converge(&mut world);
    assert_eq!(published(&world, "web"), ["2001:db8:113::1", "203.0.113.18"]);

    world.services.get_mut(&key("web")).unwrap().families = vec![Family::V6];
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "remove load balancer svc-u1-ipv4",
            "release address svc-u1-ipv4",
            "close the security group for tcp 80 from 0.0.0.0/0",
            "publish 2001:db8:113::1 in the status of Service default/web",
        ]
    );
    world.services.get_mut(&key("web")).unwrap().families = vec![Family::V6, Family::V4];
    assert_eq!(
        shown(&converge(&mut world)),
        [
            "reserve address svc-u1-ipv4",
            "set load balancer svc-u1-ipv4: TCP 80 -> nodes",
            "open the security group for tcp 80 from 0.0.0.0/0",
            "publish 2001:db8:113::1, 203.0.113.18 in the status of Service default/web",
        ]
    );
}

#[test]
fn source_ranges_are_split_by_family() {
    let mut world = dual_world();
    let mut both = service("u1");
    both.families = vec![Family::V4, Family::V6];
    both.source_ranges = vec!["10.0.0.0/8".into(), "2001:db8::/32".into()];
    world.services.insert(key("web"), both);
    converge(&mut world);
    let ranges = |name: &str| world.state.load_balancers[name].source_ranges.clone();
    assert_eq!(ranges("svc-u1"), ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(ranges("svc-u1-ipv6"), ["2001:db8::/32".parse().unwrap()]);

    // Without a range nobody of that family is let in, so there is nothing to let them into.
    world.services.get_mut(&key("web")).unwrap().source_ranges.pop();
    converge(&mut world);
    assert_eq!(published(&world, "web"), ["203.0.113.18"]);
    let told = plan(&world).findings;
    assert!(!told[0].1.refused && told[0].1.expected.contains("IPv6"), "{told:?}");
}

#[test]
fn each_family_of_a_local_service_goes_to_nodes_with_endpoints_of_that_family() {
    let mut world = dual_world();
    let mut local = service("u1");
    (local.local, local.families) = (true, vec![Family::V4, Family::V6]);
    world.services.insert(key("web"), local);
    let on = |node: &str, ready| BTreeMap::from([(node.to_owned(), Endpoints { ready, ending: 0 })]);
    world.endpoints.insert((key("web"), Family::V4), on("w0", 2));
    world.endpoints.insert((key("web"), Family::V6), on("w1", 1));
    converge(&mut world);
    let members = |pool: &str| world.state.pools[pool].members.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (members("local-u1"), members("local-u1-ipv6")),
        (vec!["w0".to_owned()], vec!["w1".to_owned()])
    );
    world.services.get_mut(&key("web")).unwrap().deleting = true;
    converge(&mut world);
    assert_eq!(world.state.pools.keys().collect::<Vec<_>>(), ["masters"]);
}

#[test]
fn services_with_one_key_share_a_vip_that_goes_with_the_last_of_them() {
    let mut world = world();
    let share = [(SHARE, "web")];
    world.services.insert(key("a"), on(80, annotated("u1", &share)));
    converge(&mut world);
    let vip = published(&world, "a");
    world.services.insert(key("b"), on(443, annotated("u2", &share)));
    let mut udp = on(80, annotated("u3", &share));
    udp.ports[0] = PortView { protocol: Some(Protocol::Udp), protocol_text: "UDP".into(), port: 80 };
    world.services.insert(key("c"), udp);
    converge(&mut world);
    assert_eq!([published(&world, "b"), published(&world, "c")], [vip.clone(), vip.clone()]);
    assert_eq!(world.state.addresses.len(), 2, "the API server's, and this one");

    for name in ["a", "b"] {
        world.services.get_mut(&key(name)).unwrap().deleting = true;
        converge(&mut world);
        assert_eq!(published(&world, "c"), vip, "{name} went");
    }
    world.services.get_mut(&key("c")).unwrap().deleting = true;
    converge(&mut world);
    assert_eq!(world.state.addresses.keys().collect::<Vec<_>>(), ["api"]);
}

#[test]
fn of_two_that_want_one_port_the_one_that_has_it_keeps_it() {
    let mut world = world();
    let share = [(SHARE, "web")];
    let mut late = annotated("u1", &share);
    late.created = 2;
    world.services.insert(key("z"), annotated("u2", &share));
    converge(&mut world);
    world.services.insert(key("a"), late);
    converge(&mut world);
    assert_eq!((published(&world, "z").len(), published(&world, "a").len()), (1, 0));
    let told = refusals(&world);
    assert!(
        told.len() == 1
            && told[0].starts_with("default/a: spec.ports = \"TCP 80\"")
            && told[0].contains("default/z"),
        "{told:?}"
    );
    world.services.get_mut(&key("z")).unwrap().deleting = true;
    converge(&mut world);
    assert_eq!((published(&world, "a").len(), refusals(&world).len()), (1, 0));
}

#[test]
fn across_namespaces_both_agree_or_none_shares() {
    for (theirs, shared) in [("default", true), ("*", true), ("x,default", true), ("x", false)] {
        let mut world = world();
        let other = Key::new("other", "b");
        world.services.insert(key("a"), annotated("u1", &[(SHARE, "web"), (SHARE_WITH, "other")]));
        let mut second = on(81, annotated("u2", &[(SHARE, "web"), (SHARE_WITH, theirs)]));
        second.created = 1;
        world.services.insert(other.clone(), second);
        converge(&mut world);
        let same = world.services[&other].ingress == world.services[&key("a")].ingress;
        assert_eq!((same, refusals(&world).is_empty()), (shared, shared), "{theirs}");
    }
    // The same key alone joins nobody of another namespace.
    let mut world = world();
    world.services.insert(key("a"), annotated("u1", &[(SHARE, "web")]));
    world.services.insert(Key::new("other", "b"), annotated("u2", &[(SHARE, "web")]));
    converge(&mut world);
    assert_eq!((world.state.addresses.len(), refusals(&world).len()), (3, 0));
}

#[test]
fn nobodys_vip_changes_because_another_one_joins() {
    let mut world = world();
    world.services.insert(key("a"), annotated("u1", &[(SHARE, "web")]));
    converge(&mut world);
    let mut second = on(81, annotated("u2", &[(SHARE, "web"), (ADDRESS, "203.0.113.25")]));
    second.created = 1;
    world.services.insert(key("b"), second);
    converge(&mut world);
    assert_eq!(
        (published(&world, "a").as_slice(), refusals(&world).len()),
        (["203.0.113.18".to_owned()].as_slice(), 1)
    );
}

#[test]
fn who_begins_or_ends_to_share_or_to_keep_its_vip_has_the_same_one_as_before() {
    let mut world = world();
    world.services.insert(key("x"), on(1, service("u0")));
    world.services.insert(key("a"), service("u1"));
    converge(&mut world);
    let vip = published(&world, "a");
    for annotation in [
        Some((SHARE, "web")),
        None,
        Some((RETAIN, "true")),
        Some((SHARE, "web")),
        Some((RETAIN, "true")),
        None,
    ] {
        let annotations = annotation.map(|(name, value)| (name.to_owned(), value.to_owned()));
        world.services.get_mut(&key("a")).unwrap().annotations = annotations.into_iter().collect();
        let taken = shown(&converge(&mut world));
        assert_eq!(published(&world, "a"), vip, "{annotation:?}: {taken:#?}");
        assert_eq!(world.state.addresses.len(), 3, "{annotation:?}: {taken:#?}");
    }
}

#[test]
fn a_vip_that_is_kept_waits_for_the_next_service_of_that_name() {
    let mut world = world();
    let keep = [(RETAIN, "true")];
    world.services.insert(key("a"), annotated("u1", &keep));
    converge(&mut world);
    let vip = published(&world, "a");
    world.services.get_mut(&key("a")).unwrap().deleting = true;
    converge(&mut world);
    assert!(!world.services.contains_key(&key("a")));
    world.services.insert(key("b"), service("u2"));
    converge(&mut world);
    assert_ne!(published(&world, "b"), vip);
    world.services.insert(key("a"), annotated("u3", &keep));
    converge(&mut world);
    assert_eq!(published(&world, "a"), vip);
    // It is given back by one of that name that does not keep it.
    world.services.get_mut(&key("a")).unwrap().annotations.clear();
    converge(&mut world);
    assert_eq!(published(&world, "a"), vip);
    world.services.get_mut(&key("a")).unwrap().deleting = true;
    converge(&mut world);
    assert_eq!(world.state.addresses.len(), 2);
}

#[test]
fn a_kept_vip_outlives_the_cluster_where_that_is_said() {
    let mut world = world();
    world.services.insert(key("a"), annotated("u1", &[(RETAIN, "true")]));
    converge(&mut world);
    let vip = published(&world, "a");
    let name = world.state.load_balancers["svc-u1"].address.clone();
    let retained = |world: &World| world.state.addresses[&name].retained;
    assert!(!retained(&world));
    for (value, outlives) in [("project", true), ("true", false)] {
        world.services.get_mut(&key("a")).unwrap().annotations.insert(RETAIN.into(), value.into());
        let taken = shown(&converge(&mut world));
        assert_eq!((taken.len(), retained(&world)), (1, outlives), "{taken:?}");
        assert_eq!(published(&world, "a"), vip);
    }
    world.services.get_mut(&key("a")).unwrap().annotations.insert(RETAIN.into(), "for ever".into());
    assert!(refusals(&world)[0].contains("true, false or project"));
}

#[test]
fn a_service_adopts_what_was_there_before() {
    let port = "99999999-9999-9999-9999-999999999991";
    let mut world = dual_world();
    let mut both = annotated("u1", &[(ADOPT, "198.51.100.7")]);
    both.families = vec![Family::V4, Family::V6];
    world.services.insert(key("a"), both);
    let taken = shown(&converge(&mut world));
    assert_eq!(published(&world, "a"), ["198.51.100.7", "2001:db8:113::1"]);
    assert!(taken.contains(&"adopt 198.51.100.7 as address svc-u1".to_owned()), "{taken:?}");

    // Of a port that is not known, ake-api finds out where there is no VIP yet.
    let annotations = &mut world.services.get_mut(&key("a")).unwrap().annotations;
    annotations.insert(ADOPT.into(), format!("198.51.100.7,{port}"));
    assert_eq!(shown(&converge(&mut world)), Vec::<String>::new());
    world.services.insert(key("b"), annotated("u2", &[(ADOPT, port)]));
    let taken = shown(&converge(&mut world));
    assert!(taken.contains(&format!("adopt {port} as address svc-u2")), "{taken:?}");

    // Another one takes its place, and what was there goes first.
    world.services.get_mut(&key("a")).unwrap().annotations.insert(ADOPT.into(), "198.51.100.8".into());
    converge(&mut world);
    assert_eq!(published(&world, "a")[0], "198.51.100.8");
    for (value, expected) in [
        ("web", "the id of a port"),
        ("198.51.100.7,198.51.100.8", "at most one address of each family"),
        (&format!("198.51.100.7,2001:db8::7,{port}"), "of each family of the Service"),
        (&format!("{port},99999999-9999-9999-9999-999999999992"), "one port for those without"),
    ] {
        world.services.get_mut(&key("a")).unwrap().annotations.insert(ADOPT.into(), value.into());
        assert!(refusals(&world)[0].contains(expected), "{:?}", refusals(&world));
    }
}

#[test]
fn a_service_that_has_a_vip_adopts_a_port_too_or_is_told_why_not() {
    let port = "99999999-9999-9999-9999-999999999991";
    let mut world = world();
    world.services.insert(key("a"), service("u1"));
    converge(&mut world);
    let before = published(&world, "a");
    world.services.insert(key("a"), ServiceView { finalizer: true, ..annotated("u1", &[(ADOPT, port)]) });
    // Ports are looked at, and it is none of the project, or somebody uses it.
    world.free_ports = Some([].into());
    converge(&mut world);
    assert_eq!(published(&world, "a"), before);
    let findings = plan(&world).findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        !findings[0].1.refused && findings[0].1.to_string().contains("a port of the project"),
        "{findings:?}"
    );

    let vip = "198.51.100.9";
    world.free_ports = Some([(port.to_owned(), vec![vip.parse().unwrap()])].into());
    let taken = shown(&converge(&mut world));
    assert_eq!(published(&world, "a"), [vip], "{taken:?}");
    assert!(taken.contains(&format!("adopt {port} as address svc-u1")), "{taken:?}");
    // It is the same one from then on.
    assert_eq!(shown(&converge(&mut world)), Vec::<String>::new());
    assert_eq!(plan(&world).findings, []);
}

#[test]
fn who_adopts_what_another_service_has_is_told_by_that_field() {
    let mut world = world();
    world.services.insert(key("a"), annotated("u1", &[(ADDRESS, "203.0.113.25")]));
    converge(&mut world);
    for (name, at) in
        [(ADOPT, "metadata.annotations[ake.dev/adopt-address] ="), (ADDRESS, "spec.loadBalancerIP or")]
    {
        world.services.insert(key("b"), annotated("u2", &[(name, "203.0.113.25")]));
        let told = refusals(&world);
        assert!(
            told.len() == 1 && told[0].contains(at) && told[0].contains("taken by address svc-u1"),
            "{told:?}"
        );
    }
}

/// `ake-api rebuild` finds a VIP that Services share by the balancer, which knows no name of it: it is called after the
/// first load balancer on it. Its own name comes back without a change to any load balancer's VIP, members or ports.
#[test]
fn what_a_rebuilt_database_calls_otherwise_gets_its_own_name_back() {
    let share = [(SHARE, "web")];
    for annotations in [&share, &[(RETAIN, "true")]] {
        let mut world = world();
        world.services.insert(key("a"), annotated("u1", annotations));
        if annotations == &share {
            world.services.insert(key("b"), on(443, annotated("u2", annotations)));
        }
        converge(&mut world);
        let (before, services) = (world.state.clone(), world.services.clone());
        let own = world.state.load_balancers["svc-u1"].address.clone();
        let address = world.state.addresses.remove(&own).unwrap();
        world.state.addresses.insert("svc-u1".into(), address);
        let on_it = world.state.load_balancers.values_mut().filter(|balancer| balancer.address == own);
        on_it.for_each(|balancer| balancer.address = "svc-u1".into());
        converge(&mut world);
        let without_about = |mut state: ake_api_client::ClusterState| {
            state.addresses.values_mut().for_each(|address| address.about = None);
            state
        };
        assert_eq!(without_about(world.state), without_about(before));
        assert_eq!(world.services, services);
    }
}

#[test]
fn a_vip_can_be_of_a_range() {
    let mut world = world();
    let range = [(RANGE, "203.0.113.24/30,198.51.100.0/24")];
    world.services.insert(key("a"), annotated("u1", &range));
    world.services.insert(key("b"), annotated("u2", &range));
    converge(&mut world);
    // The second of the ranges is nothing to this cluster, which is told.
    assert_eq!(refusals(&world).len(), 2);
    for name in ["a", "b"] {
        let annotations = &mut world.services.get_mut(&key(name)).unwrap().annotations;
        annotations.insert(RANGE.into(), "203.0.113.24/30".into());
    }
    converge(&mut world);
    assert_eq!([published(&world, "a"), published(&world, "b")], [["203.0.113.24"], ["203.0.113.25"]]);

    world.services.get_mut(&key("a")).unwrap().annotations.insert(RANGE.into(), "203.0.113.25/32".into());
    converge(&mut world);
    assert_eq!(published(&world, "a"), ["203.0.113.24"], "it stays as it was");
    let told = refusals(&world);
    assert!(told[0].contains("a free address"), "{told:?}");
    world.services.get_mut(&key("b")).unwrap().deleting = true;
    converge(&mut world);
    assert_eq!(published(&world, "a"), ["203.0.113.25"]);
}
