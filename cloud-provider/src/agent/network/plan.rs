//! What to change, from what is and what should be. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;

use super::{
    cni,
    guard::{Pods, Rules, Table},
    observe::{Observed, settings},
};
use crate::agent::{
    config::{NodeConfig, Role},
    netlink::Route,
};

/// Where kubelet writes the address it was started with, before anything else knows one.
const PROVIDED_ADDRESS: &str = "alpha.kubernetes.io/provided-node-ip";

/// What the network needs to know of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods.
    pub pod_ranges: Vec<IpNetwork>,
}

impl NodeView {
    /// Of an object.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        let mut addresses: Vec<IpAddr> = status
            .into_iter()
            .flatten()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect();
        if addresses.is_empty() {
            let annotation =
                node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PROVIDED_ADDRESS));
            addresses.extend(
                annotation
                    .into_iter()
                    .flat_map(|list| list.split(','))
                    .filter_map(|ip| ip.parse::<IpAddr>().ok()),
            );
        }
        let spec = node.spec.as_ref();
        let mut ranges = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        if ranges.is_empty() {
            ranges.extend(spec.and_then(|spec| spec.pod_cidr.clone()));
        }
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            addresses,
            pod_ranges: ranges.iter().filter_map(|range| range.parse().ok()).collect(),
        }
    }
}

/// What should be.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    config: &'a NodeConfig,
    own_address: Option<IpAddr>,
    /// None while the API server has not told.
    nodes: Option<&'a [NodeView]>,
}

impl<'a> Wanted<'a> {
    /// From what this node was told.
    #[must_use]
    pub fn new(config: &'a NodeConfig, own_address: Option<IpAddr>, nodes: Option<&'a [NodeView]>) -> Self {
        Self { config, own_address, nodes }
    }

    fn own(&self) -> Option<&NodeView> {
        self.nodes?.iter().find(|node| node.name == self.config.name)
    }

    /// Rules without this node's own range would cut its pods off: a table that is in force stays until all is known
    /// again, above all after a restart.
    fn may_guard_anew(&self) -> bool {
        match self.config.role {
            Role::Master => true,
            Role::Worker => self.own().is_some_and(|own| !own.pod_ranges.is_empty()),
        }
    }

    /// An empty list, or one without this node, is not a view to remove routes by.
    fn may_remove(&self) -> bool {
        match self.config.role {
            Role::Master => self.nodes.is_some_and(|nodes| !nodes.is_empty()),
            Role::Worker => self.own().is_some(),
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sets a kernel setting.
    Set(&'static str, &'static str),
    /// Replaces the guard table.
    Guard(Table),
    /// Adds or replaces a route.
    Route(Route),
    /// Removes a route of ours.
    RemoveRoute(Route),
    /// Writes the CNI configuration.
    Cni(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(name, value) => write!(f, "set {name} to {value}"),
            Self::Guard(table) => write!(f, "put guard rules {} in force", table.mark),
            Self::Route(route) => write!(f, "route {} via {}", route.to, route.via),
            Self::RemoveRoute(route) => write!(f, "remove the route to {} via {}", route.to, route.via),
            Self::Cni(_) => f.write_str("write the CNI configuration"),
        }
    }
}

/// The changes, in order, and what could not be planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order.
    pub steps: Vec<Step>,
    /// In words for people.
    pub skipped: Vec<String>,
}

/// Plans. The guard goes before routes, and both before the CNI configuration: no pod runs unguarded.
#[must_use]
pub fn plan(wanted: &Wanted<'_>, seen: &Observed) -> Plan {
    let mut plan = Plan::default();
    for (name, value) in settings(wanted.config) {
        if seen.settings.iter().any(|(differs, _)| *differs == name) {
            plan.steps.push(Step::Set(name, value));
        }
    }
    let Some(uplink) = &seen.uplink else {
        plan.skipped.push("no default route yet, so no link to the provider network".into());
        return plan;
    };
    let table = rules(wanted, &uplink.name).render();
    if seen.guard.as_ref() != Some(&table.mark) && (seen.guard.is_none() || wanted.may_guard_anew()) {
        plan.steps.push(Step::Guard(table));
    }
    routes(wanted, seen, uplink.index, &mut plan);
    if let Some(own) = wanted.own().filter(|own| !own.pod_ranges.is_empty()) {
        let text = cni::conflist(&own.pod_ranges, uplink.mtu);
        if wanted.config.role == Role::Worker && seen.cni.as_ref() != Some(&text) {
            plan.steps.push(Step::Cni(text));
        }
    }
    plan
}

fn rules(wanted: &Wanted<'_>, uplink: &str) -> Rules {
    let config = wanted.config;
    let pods = (config.role == Role::Worker).then(|| {
        let known = wanted.nodes.into_iter().flatten().flat_map(|node| node.addresses.iter().copied());
        let masters = config.masters.iter().map(|master| master.address);
        Pods {
            all: config.pod_ranges.clone(),
            own: wanted.own().map(|own| own.pod_ranges.clone()).unwrap_or_default(),
            nodes: known.chain(masters).chain(wanted.own_address).collect(),
        }
    });
    Rules { uplink: uplink.to_owned(), vip_blocks: config.vip_blocks.clone(), pods }
}

fn routes(wanted: &Wanted<'_>, seen: &Observed, link: u32, plan: &mut Plan) {
    let on_link = |address: IpAddr| {
        seen.uplink.iter().flat_map(|uplink| &uplink.addresses).any(|network| network.contains(address))
    };
    let mut targets: BTreeMap<IpNetwork, Route> = BTreeMap::new();
    for node in wanted.nodes.into_iter().flatten().filter(|node| node.name != wanted.config.name) {
        for range in &node.pod_ranges {
            let Some(via) = node.addresses.iter().copied().find(|ip| ip.is_ipv4() == range.is_ipv4()) else {
                continue;
            };
            if on_link(via) {
                targets.insert(*range, Route { to: *range, via, link });
            } else {
                let name = &node.name;
                plan.skipped
                    .push(format!("no route to {range}: node {name} at {via} is not on this node's link"));
            }
        }
    }
    let there: BTreeSet<_> = seen.routes.iter().copied().collect();
    plan.steps.extend(targets.values().filter(|route| !there.contains(route)).copied().map(Step::Route));
    if wanted.may_remove() {
        // A route to a wanted network has been replaced by the new one.
        let gone = there.iter().filter(|route| !targets.contains_key(&route.to));
        plan.steps.extend(gone.copied().map(Step::RemoveRoute));
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
