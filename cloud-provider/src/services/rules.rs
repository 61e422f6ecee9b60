//! The rules of the cluster's security group that Services and health checks need, as a set.
//!
//! A rule of somebody else that admits as much or more will do, so an operator who has put one wide rule into the group
//! is asked for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ake_api_client::{Check, ClusterState, Family, Listener, Protocol};
use ipnetwork::IpNetwork;
use openstack_client::security_groups::{Rule, RuleSpec};

use super::{
    names,
    pools::PROXY_HEALTH_PORT,
    wanted::{Wanted, WantedBalancer},
};

/// Description of a rule that lets clients reach a Service's port.
pub const SERVICE_PORT: &str = "ake: service port";

/// Description of a rule that lets the balancers check nodes.
pub const HEALTH_CHECK: &str = "ake: health check";

/// What a rule admits, in one form for all the ways that Neutron writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admission {
    ethertype: &'static str,
    protocol: String,
    port: u16,
    from: IpNetwork,
}

impl Admission {
    fn new(protocol: Protocol, port: u16, from: IpNetwork) -> Self {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let ethertype = if from.is_ipv6() { "IPv6" } else { "IPv4" };
        Self { ethertype, protocol: protocol.to_owned(), port, from }
    }

    /// The single-port ingress rule that Neutron has, if it is one.
    fn of(rule: &RuleSpec) -> Option<Self> {
        let port = rule.port_range_min.filter(|port| rule.port_range_max == Some(*port))?;
        if rule.direction != "ingress" || rule.remote_group_id.is_some() {
            return None;
        }
        let ethertype = if rule.ethertype == "IPv6" { "IPv6" } else { "IPv4" };
        let protocol = protocol_name(rule.protocol.as_deref()?);
        let from = rule.remote_ip_prefix.unwrap_or_else(|| everybody(ethertype == "IPv6"));
        Some(Self { ethertype, protocol: protocol.to_owned(), port, from })
    }

    /// Whether a rule admits this, and may be more.
    fn is_within(&self, rule: &RuleSpec) -> bool {
        let ethertype = if rule.ethertype == "IPv6" { "IPv6" } else { "IPv4" };
        let protocol = rule.protocol.as_deref().map(protocol_name);
        let from = rule.remote_ip_prefix.unwrap_or_else(|| everybody(ethertype == "IPv6"));
        rule.direction == "ingress"
            && rule.remote_group_id.is_none()
            && ethertype == self.ethertype
            && protocol.is_none_or(|protocol| protocol == self.protocol || protocol == "any")
            && rule.port_range_min.is_none_or(|first| first <= self.port)
            && rule.port_range_max.is_none_or(|last| last >= self.port)
            && from.prefix() <= self.from.prefix()
            && from.contains(self.from.network())
    }

    fn spec(&self, description: &str) -> RuleSpec {
        RuleSpec {
            direction: "ingress".to_owned(),
            ethertype: self.ethertype.to_owned(),
            protocol: Some(self.protocol.clone()),
            port_range_min: Some(self.port),
            port_range_max: Some(self.port),
            remote_ip_prefix: Some(self.from),
            remote_group_id: None,
            description: description.to_owned(),
        }
    }
}

/// Neutron takes numbers for names.
fn protocol_name(protocol: &str) -> &str {
    match protocol {
        "6" => "tcp",
        "17" => "udp",
        "132" => "sctp",
        name => name,
    }
}

fn everybody(v6: bool) -> IpNetwork {
    let nobody: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    IpNetwork::new(nobody, 0).unwrap_or(nobody.into())
}

/// Why a rule shall be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// Goes into the rule's description.
    pub description: &'static str,
    /// UID of a Service that needs it.
    pub uid: Option<String>,
}

/// Rules that shall be, each with its reason.
pub type WantedRules = BTreeMap<Admission, Reason>;

/// What a load balancer needs.
fn of_balancer(balancer: &WantedBalancer) -> Vec<Admission> {
    let all = [everybody(balancer.family == Family::V6)];
    let ranges = if balancer.request.source_ranges.is_empty() {
        all.as_slice()
    } else {
        balancer.request.source_ranges.as_slice()
    };
    let of_listener = |listener: &Listener| {
        let (protocol, port) = (listener.protocol, listener.port);
        ranges.iter().map(move |range| Admission::new(protocol, port, *range))
    };
    balancer.request.listeners.iter().flat_map(of_listener).collect()
}

/// Rules that shall be, for what is wanted.
#[must_use]
pub fn wanted(state: &ClusterState, wanted: &Wanted) -> WantedRules {
    let mut rules = WantedRules::new();
    for balancer in wanted.balancers.values() {
        for what in of_balancer(balancer) {
            let reason = || Reason { description: SERVICE_PORT, uid: Some(balancer.uid.clone()) };
            rules.entry(what).or_insert_with(reason);
        }
    }
    let mut let_checks_in = |port: u16, families: &BTreeSet<bool>, uid: Option<&str>| {
        let sources = state.cluster.check_sources.iter();
        for source in sources.filter(|source| families.contains(&source.is_ipv6())) {
            // Neutron takes no second rule for the same, whatever its description.
            let reason = || Reason { description: HEALTH_CHECK, uid: uid.map(ToOwned::to_owned) };
            rules.entry(Admission::new(Protocol::Tcp, port, *source)).or_insert_with(reason);
        }
    };
    // Whether or not there is a Service yet: the first one shall not wait for it.
    let_checks_in(PROXY_HEALTH_PORT, &wanted.node_families, None);
    let ours = wanted.pools.iter().filter(|(name, _)| names::is_pool_of_services(name));
    let each = ours.flat_map(|(name, pool)| pool.checks.iter().map(move |check| (name, pool, check)));
    for (name, pool, check) in each {
        // A check comes from an address of the family that it goes to.
        let families: BTreeSet<bool> = match &pool.members {
            Some(members) if !members.is_empty() => {
                members.values().map(|member| member.address.is_ipv6()).collect()
            }
            _ => wanted.node_families.clone(),
        };
        match check {
            Check::Tcp { port } | Check::Http { port, .. } => {
                let_checks_in(*port, &families, names::owner(name))
            }
            // It is sent from where clients are let in, to where they are let in.
            Check::Vip { .. } => {}
        }
    }
    // Rules are counted by quotas: none for some where there is one for all.
    let for_all: BTreeSet<Admission> = rules.keys().filter(|what| what.from.prefix() == 0).cloned().collect();
    rules.retain(|what, _| {
        let everybody = Admission { from: everybody(what.from.is_ipv6()), ..what.clone() };
        what.from.prefix() == 0 || !for_all.contains(&everybody)
    });
    rules
}

/// What the group admits.
pub struct Admitted {
    exactly: BTreeSet<Admission>,
    /// Rules that are not ours.
    others: Vec<RuleSpec>,
}

impl Admitted {
    /// By the group's rules.
    #[must_use]
    pub fn new(actual: &[Rule]) -> Self {
        let others = actual.iter().filter(|rule| !is_ours(rule)).map(|rule| rule.spec.clone()).collect();
        Self { exactly: actual.iter().filter_map(|rule| Admission::of(&rule.spec)).collect(), others }
    }

    fn has(&self, what: &Admission) -> bool {
        let for_all = || Admission { from: everybody(what.from.is_ipv6()), ..what.clone() };
        self.exactly.contains(what)
            || self.exactly.contains(&for_all())
            || self.others.iter().any(|rule| what.is_within(rule))
    }

    /// Whether all is admitted that a load balancer needs.
    #[must_use]
    pub fn admit(&self, balancer: &WantedBalancer) -> bool {
        of_balancer(balancer).iter().all(|what| self.has(what))
    }
}

fn is_ours(rule: &Rule) -> bool {
    rule.spec.description == SERVICE_PORT || rule.spec.description == HEALTH_CHECK
}

/// What to add, each with the UID of a Service that needs it, and what to remove. A rule of somebody else
/// that admits the same will do; only ours go.
#[must_use]
pub fn difference(
    wanted: &WantedRules,
    actual: &[Rule],
    admitted: &Admitted,
) -> (Vec<(Option<String>, RuleSpec)>, Vec<Rule>) {
    let missing = wanted.iter().filter(|(what, _)| !admitted.has(what));
    let add = missing.map(|(what, why)| (why.uid.clone(), what.spec(why.description))).collect();
    let superfluous = actual.iter().filter(|rule| {
        is_ours(rule) && Admission::of(&rule.spec).is_none_or(|what| !wanted.contains_key(&what))
    });
    (add, superfluous.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, protocol: &str, port: u16, from: Option<&str>, description: &str) -> Rule {
        Rule {
            id: id.into(),
            security_group_id: "g".into(),
            spec: RuleSpec {
                direction: "ingress".into(),
                ethertype: "IPv4".into(),
                protocol: Some(protocol.into()),
                port_range_min: Some(port),
                port_range_max: Some(port),
                remote_ip_prefix: from.map(|from| from.parse().unwrap()),
                remote_group_id: None,
                description: description.into(),
            },
        }
    }

    fn want(port: u16, from: &str) -> (Admission, Reason) {
        let reason = Reason { description: SERVICE_PORT, uid: None };
        (Admission::new(Protocol::Tcp, port, from.parse().unwrap()), reason)
    }

    #[test]
    fn only_our_own_rules_are_removed() {
        let actual = [
            rule("1", "tcp", 80, Some("0.0.0.0/0"), SERVICE_PORT),
            rule("2", "tcp", 81, Some("0.0.0.0/0"), SERVICE_PORT),
            rule("3", "tcp", 22, Some("0.0.0.0/0"), "ssh"),
            rule("4", "tcp", 22, Some("0.0.0.0/0"), "ake: the template's"),
        ];
        let wanted = WantedRules::from([want(80, "0.0.0.0/0"), want(443, "10.0.0.0/8")]);
        let (add, remove) = difference(&wanted, &actual, &Admitted::new(&actual));
        assert_eq!(add.iter().map(|(_, spec)| spec.port_range_min).collect::<Vec<_>>(), [Some(443)]);
        assert_eq!(remove.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["2"]);
    }

    #[test]
    fn another_way_to_write_the_same_will_do() {
        let actual = [rule("1", "6", 80, None, "by hand")];
        let wanted = WantedRules::from([want(80, "0.0.0.0/0")]);
        let (add, remove) = difference(&wanted, &actual, &Admitted::new(&actual));
        assert!(add.is_empty() && remove.is_empty());
    }

    #[test]
    fn one_wide_rule_of_the_operators_will_do() {
        let mut wide = rule("1", "tcp", 1, None, "all ports");
        wide.spec.port_range_max = Some(65_535);
        for (change, does) in [
            ((|_| {}) as fn(&mut RuleSpec), true),
            (|spec| spec.protocol = None, true),
            (|spec| (spec.port_range_min, spec.port_range_max) = (None, None), true),
            (|spec| spec.remote_ip_prefix = "10.0.0.0/8".parse().ok(), true),
            (|spec| spec.remote_ip_prefix = "10.1.0.0/16".parse().ok(), false),
            (|spec| spec.port_range_max = Some(79), false),
            (|spec| spec.protocol = Some("17".into()), false),
            (|spec| spec.ethertype = "IPv6".into(), false),
            (|spec| spec.direction = "egress".into(), false),
            (|spec| spec.remote_group_id = Some("g".into()), false),
        ] {
            let mut actual = [wide.clone()];
            change(&mut actual[0].spec);
            let wanted = WantedRules::from([want(80, "10.0.0.0/8")]);
            let (add, remove) = difference(&wanted, &actual, &Admitted::new(&actual));
            assert_eq!((add.is_empty(), remove.len()), (does, 0), "{actual:?}");
        }
    }
}
