//! How members are checked, and from where.

use std::collections::BTreeMap;

use ake_api_client::{Check, Family, Protocol};

use super::{
    super::{
        annotations::{HEALTH_CHECK, SHARE},
        plan::plan,
        view::{Endpoints, ServiceView},
    },
    model::{annotated, converge, dual_world, key, service, world},
};
use crate::nodes::view::NodeAddress;

#[test]
fn the_vip_itself_is_asked_where_checks_are_let_in() {
    let vip = |address: &str| Check::Vip { address: address.into(), port: 80 };
    let ranges = |ranges: &'static [&str]| {
        move |view: &mut ServiceView| view.source_ranges = ranges.iter().map(|r| (*r).into()).collect()
    };
    let udp = |view: &mut ServiceView| view.ports[0].protocol = Some(Protocol::Udp);
    let wish = |wish: &'static str| {
        move |view: &mut ServiceView| drop(view.annotations.insert(HEALTH_CHECK.into(), wish.into()))
    };
    type Edit = Box<dyn Fn(&mut ServiceView)>;
    let cases: [(Edit, usize); 6] = [
        (Box::new(|_| {}), 2),
        (Box::new(ranges(&["192.168.77.0/24"])), 2),
        (Box::new(ranges(&["10.0.0.0/8"])), 1),
        (Box::new(udp), 1),
        (Box::new(wish("node")), 1),
        (Box::new(wish("none")), 0),
    ];
    for (index, (edit, checks)) in cases.into_iter().enumerate() {
        let mut world = world();
        let mut local = service("u1");
        local.local = true;
        edit(&mut local);
        world.services.insert(key("web"), local);
        converge(&mut world);
        let pool = &world.state.pools["local-u1"];
        assert_eq!(
            (pool.checks.len(), pool.checks.contains(&vip("svc-u1"))),
            (checks, checks == 2),
            "{index}"
        );
    }
    // Where it was asked for and cannot be, that is told; by itself it is asked where it can be.
    let with = |edit: fn(&mut ServiceView)| {
        let mut world = world();
        let mut asked = annotated("u1", &[(HEALTH_CHECK, "vip")]);
        edit(&mut asked);
        world.services.insert(key("web"), asked);
        converge(&mut world);
        assert_eq!(world.state.pools["local-u1"].checks.len(), 1);
        let findings = plan(&world).findings;
        assert!(findings.len() == 1 && !findings[0].1.refused, "{findings:?}");
        findings[0].1.to_string()
    };
    let of_udp = with(|view| view.ports[0].protocol = Some(Protocol::Udp));
    assert!(of_udp.contains("[ake.dev/health-check] = \"vip\"") && of_udp.contains("a TCP port"), "{of_udp}");
    let kept_out = with(|view| (view.local, view.source_ranges) = (true, vec!["10.0.0.0/8".into()]));
    assert!(kept_out.contains("source ranges with 192.168.77.2/32"), "{kept_out}");
    let mut by_itself = world();
    let local = ServiceView { local: true, source_ranges: vec!["10.0.0.0/8".into()], ..service("u1") };
    by_itself.services.insert(key("web"), local);
    converge(&mut by_itself);
    assert_eq!(plan(&by_itself).findings, []);

    // With policy Cluster it is asked for, and makes a pool of the Service's own; shared, it is the shared VIP's name.
    let mut world = world();
    world.services.insert(key("web"), annotated("u1", &[(HEALTH_CHECK, "vip"), (SHARE, "k")]));
    converge(&mut world);
    let address = world.state.load_balancers["svc-u1"].address.clone();
    let pool = &world.state.pools["local-u1"];
    assert_eq!((pool.members.len(), pool.checks.contains(&vip(&address))), (2, true));
}

#[test]
fn a_local_service_is_checked_in_its_own_family() {
    let v6 = "fd00:77::20";
    for (families, expected) in [
        (vec![Family::V6], v6),
        (vec![Family::V6, Family::V4], v6),
        (vec![Family::V4, Family::V6], "192.168.77.20"),
    ] {
        let mut world = dual_world();
        let node = world.nodes.get_mut("w0").unwrap();
        node.addresses.push(NodeAddress { kind: "InternalIP".into(), address: v6.into() });
        world.ports.get_mut("server-0").unwrap()[0].addresses.push(v6.parse().unwrap());
        let mut local = service("u1");
        (local.local, local.families) = (true, families);
        world.services.insert(key("web"), local);
        for family in [Family::V4, Family::V6] {
            let on = BTreeMap::from([("w0".to_owned(), Endpoints { ready: 1, ending: 0 })]);
            world.endpoints.insert((key("web"), family), on);
        }
        converge(&mut world);
        let member = &world.state.pools["local-u1"].members["w0"];
        assert_eq!(member.address.to_string(), expected);
        let is_v6 = expected == v6;
        let checks = world.rules.iter().flatten().filter(|rule| rule.spec.port_range_min == Some(30_000));
        let admitted: Vec<_> = checks.map(|rule| rule.spec.ethertype == "IPv6").collect();
        assert_eq!(admitted, [is_v6]);
    }
}
