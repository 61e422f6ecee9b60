//! From anything to anything, planning and applying comes to an end.

use std::collections::BTreeMap;

use ake_api_client::*;
use proptest::prelude::*;

use super::{
    super::{
        annotations,
        names::{self, Holder, owner},
        plan::plan,
        view::{Endpoints, PortView, ServiceView},
        wanted::World,
    },
    model::{converge, key, node, put_node, world},
};
use crate::nodes::view::EXCLUDED;

prop_compose! {
    fn any_service()(
        wants in prop::bool::weighted(0.9),
        deleting in prop::bool::weighted(0.15),
        local in any::<bool>(),
        client_affinity in any::<bool>(),
        v6 in prop::bool::weighted(0.2),
        ports in prop::collection::btree_set((0..3_u8, 1..5_u16), 1..4),
        ranges in prop::sample::subsequence(vec!["10.0.0.0/8", "192.0.2.0/24", "nonsense"], 0..2),
        selector in prop::option::weighted(0.2, Just("disk=fast")),
        broken in prop::bool::weighted(0.1),
        other in prop::sample::select(vec![
            None, None, None,
            Some((annotations::SHARE, "k")), Some((annotations::RETAIN, "true")),
            Some((annotations::RANGE, "203.0.113.24/30")), Some((annotations::ADDRESS, "203.0.113.28")),
            Some((annotations::HEALTH_CHECK, "vip")), Some((annotations::HEALTH_CHECK, "none")),
        ]),
    ) -> ServiceView {
        let protocols = [(Protocol::Tcp, "TCP"), (Protocol::Udp, "UDP"), (Protocol::Sctp, "SCTP")];
        let port = |(protocol, port): (u8, u16)| {
            let (protocol, text) = protocols[usize::from(protocol)];
            PortView { protocol: Some(protocol), protocol_text: text.into(), port }
        };
        let mut annotations = BTreeMap::new();
        if let Some(selector) = selector {
            annotations.insert(annotations::NODE_SELECTOR.to_owned(), selector.to_owned());
        }
        annotations.extend(other.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if broken {
            annotations.insert("loadbalancer.openstack.org/x-forwarded-for".to_owned(), "true".to_owned());
        }
        ServiceView {
            wants,
            deleting,
            local,
            client_affinity,
            families: if v6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] },
            ports: ports.into_iter().map(port).collect(),
            source_ranges: ranges.into_iter().map(ToOwned::to_owned).collect(),
            annotations,
            health_check_node_port: local.then_some(30_001),
            ..ServiceView::default()
        }
    }
}

type Scene = (Vec<Option<ServiceView>>, Vec<Option<(bool, bool, bool)>>, Vec<u16>);

/// Services by slot, nodes by slot (leaving, excluded, fast), and endpoints per node.
fn any_scene() -> impl Strategy<Value = Scene> {
    (
        prop::collection::vec(prop::option::weighted(0.7, any_service()), 4),
        prop::collection::vec(prop::option::weighted(0.8, any::<(bool, bool, bool)>()), 4),
        prop::collection::vec(0..3_u16, 4),
    )
}

/// Makes the world what the scene says; Services keep finalizer and status, as the API server keeps them.
fn stage(world: &mut World, (services, nodes, endpoints): Scene) {
    world.nodes.clear();
    for (index, node_wanted) in (0_u8..).zip(nodes) {
        let Some((leaving, excluded, fast)) = node_wanted else { continue };
        let mut view = node(index);
        view.to_be_deleted = leaving;
        if excluded {
            view.labels.insert(EXCLUDED.into(), "true".into());
        }
        if fast {
            view.labels.insert("disk".into(), "fast".into());
        }
        put_node(world, index, view);
    }
    for (slot, wanted) in services.into_iter().enumerate() {
        let key = key(&format!("s{slot}"));
        let old = world.services.get(&key).cloned();
        match (old, wanted) {
            (Some(mut old), None) => {
                old.deleting = true;
                world.services.insert(key.clone(), old);
            }
            (old, Some(mut new)) => {
                let old = old.unwrap_or_default();
                new.uid = format!("u{slot}");
                new.finalizer = old.finalizer;
                new.ingress = old.ingress;
                new.deleting |= old.deleting;
                if new.wants && !new.deleting || new.finalizer {
                    world.services.insert(key.clone(), new);
                } else {
                    world.services.remove(&key);
                }
            }
            (None, None) => {}
        }
        let counts = endpoints.iter().enumerate().filter(|(_, count)| **count > 0);
        let counts = counts.map(|(node, count)| (format!("w{node}"), Endpoints { ready: *count, ending: 0 }));
        let counts: BTreeMap<_, _> = counts.collect();
        for family in [Family::V4, Family::V6] {
            world.endpoints.insert((key.clone(), family), counts.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn from_anything_to_anything_there_is_an_end(first in any_scene(), second in any_scene()) {
        let mut world = world();
        world.state.cluster.vip_blocks.push("2001:db8:113::/124".parse().unwrap());
        let heats = world.state.clone();
        for scene in [first, second] {
            stage(&mut world, scene);
            converge(&mut world);
            // A restart reads the same again: no step at all.
            prop_assert_eq!(plan(&world).steps, vec![]);

            let state = &world.state;
            prop_assert_eq!(&state.load_balancers["api"], &heats.load_balancers["api"]);
            prop_assert_eq!(&state.pools["masters"], &heats.pools["masters"]);
            for service in world.services.values().filter(|service| service.wants) {
                let vips = names::all_balancers(&service.uid);
                let vips: Vec<_> = vips.iter().filter_map(|name| Some(state.load_balancers.get(name)?.vip)).collect();
                let published: Vec<_> = service.ingress.iter().filter_map(|entry| entry.ip).collect();
                prop_assert!(published.is_empty() || published == vips, "{:?} {:?}", published, vips);
            }
            // Whatever is there has its Service, which will be asked before it goes.
            for uid in state.addresses.keys().filter_map(|name| owner(name)) {
                prop_assert!(world.services.values().any(|service| service.uid == uid && service.finalizer));
            }
            // Whoever leaves has gone once it has had the time, and nothing else has changed.
            world.drained = plan(&world).leaving.into_keys().collect();
            converge(&mut world);
            prop_assert_eq!(plan(&world).leaving.len(), 0);
            world.drained.clear();
            prop_assert_eq!(plan(&world).steps, vec![]);

            let state = &world.state;
            for address in state.addresses.keys().filter(|name| names::holder(name) == Some(Holder::Shared)) {
                prop_assert!(state.load_balancers.values().any(|balancer| balancer.address == *address));
            }
            if state.load_balancers.len() == 1 {
                let left = world.rules.iter().flatten().map(|rule| rule.spec.port_range_min);
                prop_assert_eq!(left.collect::<Vec<_>>(), vec![Some(10_256)], "for checks of nodes");
                prop_assert_eq!(state.pools.len(), 1);
            }
        }
    }
}
