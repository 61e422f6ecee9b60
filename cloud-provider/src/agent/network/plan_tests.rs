use proptest::prelude::*;

use super::*;
use crate::agent::{config::tests::sample, netlink::Uplink};

fn config(role: &str) -> NodeConfig {
    NodeConfig::parse(&sample(role).to_string()).unwrap()
}

fn node(name: &str, address: &str, range: &str) -> NodeView {
    let pod_ranges = if range.is_empty() { vec![] } else { vec![range.parse().unwrap()] };
    NodeView { name: name.into(), addresses: vec![address.parse().unwrap()], pod_ranges }
}

fn nodes() -> Vec<NodeView> {
    vec![
        node("demo-worker-0", "192.168.77.30", "10.240.0.0/24"),
        node("demo-worker-1", "192.168.77.31", "10.240.1.0/24"),
    ]
}

fn empty() -> Observed {
    Observed {
        uplink: Some(Uplink {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            addresses: vec!["192.168.77.30/24".parse().unwrap()],
        }),
        ..Observed::default()
    }
}

/// What would be seen after the plan's steps.
fn after(seen: &Observed, plan: &Plan) -> Observed {
    let mut seen = seen.clone();
    for step in &plan.steps {
        match step {
            Step::Set(name, _) => seen.settings.retain(|(differs, _)| differs != name),
            Step::Guard(table) => seen.guard = Some(table.mark.clone()),
            Step::Route(route) => {
                seen.routes.retain(|other| other.to != route.to);
                seen.routes.push(*route);
            }
            Step::RemoveRoute(route) => seen.routes.retain(|other| other != route),
            Step::Cni(text) => seen.cni = Some(text.clone()),
        }
    }
    seen
}

fn words(plan: &Plan) -> Vec<String> {
    let words = plan.steps.iter().map(ToString::to_string);
    words.map(|word| word.split(" revision_").next().unwrap().to_owned()).collect()
}

/// Up to six nodes of a few names, addresses on and off the link, and ranges; some not complete yet.
fn any_nodes() -> impl Strategy<Value = Vec<NodeView>> {
    let parts = (20_u8..28, proptest::option::of(0_u8..8), any::<bool>());
    proptest::collection::btree_map(0_u8..8, parts, 0..6).prop_map(|nodes| {
        let view = |(name, (host, range, on_link)): (u8, (u8, Option<u8>, bool))| {
            let net = if on_link { "192.168.77" } else { "192.0.2" };
            let range = range.map(|range| format!("10.240.{range}.0/24")).unwrap_or_default();
            node(&format!("demo-worker-{name}"), &format!("{net}.{host}"), &range)
        };
        nodes.into_iter().map(view).collect()
    })
}

proptest! {
    #[test]
    fn whatever_was_there_one_plan_reaches_what_is_wanted(before in any_nodes(), now in any_nodes(), master: bool) {
        let config = config(if master { "master" } else { "worker" });
        let old = plan(&Wanted::new(&config, None, Some(&before)), &empty());
        let seen = after(&empty(), &old);
        let wanted = Wanted::new(&config, None, Some(&now));
        let new = plan(&wanted, &seen);
        prop_assert_eq!(plan(&wanted, &after(&seen, &new)).steps, vec![]);
    }
}

#[test]
fn a_new_worker_is_guarded_then_routed_then_ready_and_a_second_look_writes_nothing() {
    let (config, nodes) = (config("worker"), nodes());
    let wanted = Wanted::new(&config, None, Some(&nodes));
    let first = plan(&wanted, &empty());
    assert_eq!(
        words(&first),
        ["put guard rules", "route 10.240.1.0/24 via 192.168.77.31", "write the CNI configuration"]
    );
    assert_eq!(plan(&wanted, &after(&empty(), &first)), Plan::default());
}

#[test]
fn a_master_has_routes_to_all_workers_and_no_pods() {
    let (config, nodes) = (config("master"), nodes());
    let first = plan(&Wanted::new(&config, None, Some(&nodes)), &empty());
    assert_eq!(
        words(&first),
        ["put guard rules", "route 10.240.0.0/24 via 192.168.77.30", "route 10.240.1.0/24 via 192.168.77.31"]
    );
}

#[test]
fn loops_are_stopped_before_the_api_server_has_told_anything() {
    let config = config("worker");
    assert_eq!(words(&plan(&Wanted::new(&config, None, None), &empty())), ["put guard rules"]);
}

#[test]
fn a_node_that_went_takes_its_route_along_and_one_that_moved_has_it_replaced() {
    let (config, mut nodes) = (config("worker"), nodes());
    let seen = after(&empty(), &plan(&Wanted::new(&config, None, Some(&nodes)), &empty()));
    nodes[1].addresses = vec!["192.168.77.32".parse().unwrap()];
    let moved = plan(&Wanted::new(&config, None, Some(&nodes)), &seen);
    assert_eq!(words(&moved), ["put guard rules", "route 10.240.1.0/24 via 192.168.77.32"]);
    nodes.pop();
    let gone = plan(&Wanted::new(&config, None, Some(&nodes)), &seen);
    assert_eq!(words(&gone), ["put guard rules", "remove the route to 10.240.1.0/24 via 192.168.77.31"]);
}

#[test]
fn nothing_is_removed_by_an_empty_view_or_one_without_this_node() {
    for role in ["worker", "master"] {
        let (config, nodes) = (config(role), nodes());
        let seen = after(&empty(), &plan(&Wanted::new(&config, None, Some(&nodes)), &empty()));
        let steps = plan(&Wanted::new(&config, None, Some(&[])), &seen).steps;
        assert!(
            !steps.iter().any(|step| matches!(step, Step::RemoveRoute(_) | Step::Cni(_))),
            "{role}: {steps:?}"
        );
    }
}

#[test]
fn a_restart_before_the_nodes_are_known_leaves_the_guard_alone() {
    let (config, nodes) = (config("worker"), nodes());
    let seen = after(&empty(), &plan(&Wanted::new(&config, None, Some(&nodes)), &empty()));
    assert_eq!(plan(&Wanted::new(&config, None, None), &seen), Plan::default());
    assert_eq!(plan(&Wanted::new(&config, None, Some(&[])), &seen), Plan::default());
}

#[test]
fn a_node_off_the_link_is_told_and_does_not_stop_the_others() {
    let (config, mut nodes) = (config("worker"), nodes());
    nodes.push(node("far", "192.0.2.9", "10.240.2.0/24"));
    let plan = plan(&Wanted::new(&config, None, Some(&nodes)), &empty());
    assert_eq!(plan.skipped.len(), 1);
    assert!(plan.skipped[0].contains("far") && plan.skipped[0].contains("10.240.2.0/24"));
    assert_eq!(plan.steps.len(), 3);
}

#[test]
fn a_node_without_a_range_or_address_yet_is_waited_for() {
    let (config, mut nodes) = (config("worker"), nodes());
    nodes[0].pod_ranges.clear();
    nodes[1].addresses.clear();
    assert_eq!(words(&plan(&Wanted::new(&config, None, Some(&nodes)), &empty())), ["put guard rules"]);
}

#[test]
fn a_setting_that_somebody_changed_is_set_again() {
    let config = config("worker");
    let seen = Observed { settings: vec![("net/ipv4/ip_forward", "0".into())], ..empty() };
    let plan = plan(&Wanted::new(&config, None, None), &seen);
    assert_eq!(plan.steps[0], Step::Set("net/ipv4/ip_forward", "1"));
}

#[test]
fn without_an_uplink_it_is_waited() {
    let config = config("worker");
    let plan = plan(&Wanted::new(&config, None, None), &Observed::default());
    assert!(plan.steps.is_empty() && plan.skipped[0].contains("default route"));
}

#[test]
fn a_node_is_known_by_the_address_kubelet_was_given_until_it_has_others() {
    let mut object: Node = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "w", "annotations": {PROVIDED_ADDRESS: "192.168.77.40"}},
        "spec": {"podCIDR": "10.240.4.0/24", "podCIDRs": ["10.240.4.0/24"]}
    }))
    .unwrap();
    assert_eq!(NodeView::of(&object), node("w", "192.168.77.40", "10.240.4.0/24"));
    object.status = serde_json::from_value(serde_json::json!({"addresses": [
        {"type": "Hostname", "address": "w"}, {"type": "InternalIP", "address": "192.168.77.41"}
    ]}))
    .unwrap();
    assert_eq!(NodeView::of(&object), node("w", "192.168.77.41", "10.240.4.0/24"));
}
