//! What a cluster is told about the balancers.

use lb_driver::{driver::MemberStatus, fit::Reason};

use super::{Seen, View, translate};
use crate::store::Loaded;

/// Whether all balancers have a load balancer as it is wanted, and if not, why. One that cannot be read does not count
/// as long as another one says that packets are sent to it: a pair works on when one of the two is off.
#[must_use]
pub fn applied(view: &View, cluster: &Loaded, name: &str) -> (bool, Option<String>) {
    let wanted = match translate::load_balancer(cluster, name) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => return (false, Some("it has no address".to_owned())),
        Err(e) => return (false, Some(e.to_string())),
    };
    if view.devices.is_empty() {
        return (false, Some("no balancer was asked yet".to_owned()));
    }
    let (owner, balancer) = wanted;
    let says_active = |seen: &Seen| seen.status.as_ref().is_some_and(|status| status.active == Some(true));
    let served = view.devices.values().any(|seen| seen.state.is_some() && says_active(seen));
    for seen in view.devices.values() {
        if seen.state.is_none() && served {
            continue;
        }
        if let Some(reasons) = seen.fitted.refused.get(&owner) {
            return (false, Some(refusal(reasons)));
        }
        let has = seen.state.as_ref().and_then(|state| state.load_balancers.get(&owner));
        if has.map(|has| seen.fitted.as_wanted(has)).as_ref() != Some(&balancer) {
            let reason = seen.failure_of(owner.project());
            return (false, Some(reason.unwrap_or_else(|| "the balancer does not have it yet".to_owned())));
        }
    }
    (true, None)
}

/// What the balancers say of a member: healthy if one says so.
#[must_use]
pub fn member_health(view: &View, cluster: &Loaded, pool: &str, member: &str) -> MemberStatus {
    let Ok(owner) = translate::owner(&cluster.record, pool) else { return MemberStatus::default() };
    let said = view.devices.values();
    let said = said.filter_map(|seen| seen.fitted.member(seen.status.as_ref()?, &owner, member));
    said.max_by_key(|status| status.healthy).unwrap_or_default()
}

/// What a tenant reads of what a balancer cannot do.
pub(super) fn refusal(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use ake_api_client::{Affinity, ClusterId, Listener, LoadBalancerRequest, Protocol};
    use lb_driver::{
        driver::{Capabilities, PoolStatus, Status},
        fit::fit,
        model::{State, Version},
    };

    use super::*;
    use crate::{
        decide::wanted::{ClusterRecord, Wanted, WantedMember, WantedPool},
        device::Seen,
    };

    fn cluster(protocol: Protocol) -> Loaded {
        let record =
            ClusterRecord::new(ClusterId::from_u128(1), ["demo", "p", "n"], "10.240.0.0/16".parse().unwrap());
        let member = WantedMember {
            address: "192.168.77.20".parse().unwrap(),
            mac: "fa:16:3e:00:00:01".into(),
            port: "p1".into(),
            weight: 1,
            draining: false,
        };
        let pool = WantedPool { members: BTreeMap::from([("w0".into(), member)]), checks: vec![] };
        let listener = |protocol| Listener { protocol, port: 80, pool: "nodes".into() };
        let request = LoadBalancerRequest {
            address: "svc".into(),
            listeners: vec![listener(Protocol::Tcp), listener(protocol)],
            source_ranges: vec![],
            affinity: Affinity::None,
        };
        let wanted = Wanted {
            addresses: BTreeMap::from([("svc".into(), "203.0.113.17".parse().unwrap())]),
            notes: BTreeMap::new(),
            pools: BTreeMap::from([("nodes".into(), pool)]),
            load_balancers: BTreeMap::from([("svc".into(), request)]),
            node_ports: BTreeMap::new(),
        };
        Loaded { record, wanted, pairs: BTreeMap::new() }
    }

    /// A balancer without SCTP and shared pools that has taken what it can, and says of its members what is given.
    fn view(cluster: &Loaded, said: &[Option<bool>]) -> View {
        let capabilities = Capabilities { sctp: false, shared_pools: false, ..Capabilities::ALL };
        let wanted = translate::state(Version::default(), std::slice::from_ref(cluster)).unwrap();
        let fitted = fit(&wanted, &capabilities, &State::default());
        let pools = fitted.state.pools.keys().cloned().zip(said).map(|(owner, healthy)| {
            let member = MemberStatus { healthy: *healthy, ..MemberStatus::default() };
            (owner, PoolStatus { members: BTreeMap::from([("w0".to_owned(), member)]), ring_size: 1 })
        });
        let seen = Seen {
            status: Some(Arc::new(Status { pools: pools.collect(), ..Status::default() })),
            state: Some(Arc::new(fitted.state.clone())),
            fitted: Arc::new(fitted),
            ..Seen::default()
        };
        View { answered: 1, devices: BTreeMap::from([("https://b".to_owned(), seen)]) }
    }

    #[test]
    fn what_a_balancer_cannot_do_is_not_applied_and_says_why() {
        let cluster = cluster(Protocol::Sctp);
        let reason = "listener SCTP/80: the balancer does not do SCTP".to_owned();
        assert_eq!(applied(&view(&cluster, &[]), &cluster, "svc"), (false, Some(reason)));
    }

    #[test]
    fn what_was_refused_another_project_is_not_told() {
        let cluster = cluster(Protocol::Udp);
        let told = |project: &str| {
            let mut view = view(&cluster, &[]);
            for seen in view.devices.values_mut() {
                seen.state = None;
                seen.failure = Some("refused: theirs, ours".to_owned());
                seen.refused = BTreeMap::from([(project.to_owned(), "no room".to_owned())]);
            }
            applied(&view, &cluster, "svc").1.unwrap()
        };
        assert_eq!((told("p"), told("q")), ("no room".into(), "the balancer does not have it yet".into()));
    }

    #[test]
    fn a_balancer_that_is_off_counts_only_where_no_other_takes_packets() {
        let cluster = cluster(Protocol::Udp);
        let told = |active: Option<bool>, failure: Option<&str>| {
            let mut view = view(&cluster, &[]);
            let seen = view.devices.values_mut().next().unwrap();
            seen.status = Some(Arc::new(Status { active, ..Status::default() }));
            if failure.is_some() {
                seen.state = Some(Arc::new(State::default()));
                seen.failure = failure.map(Into::into);
            }
            let off = Seen { failure: Some("no connection".to_owned()), ..Seen::default() };
            view.devices.insert("https://a".to_owned(), off);
            applied(&view, &cluster, "svc")
        };
        assert_eq!(told(Some(true), None), (true, None));
        let off = (false, Some("no connection".to_owned()));
        assert_eq!(told(Some(false), None), off, "packets go to the one that is not reached");
        assert_eq!(told(None, None), off, "nobody knows where packets go");
        assert_eq!(told(Some(true), Some("refused")), (false, Some("refused".to_owned())));
    }

    #[test]
    fn an_expanded_pool_is_shown_as_the_one_that_was_wanted() {
        let cluster = cluster(Protocol::Udp);
        let healthy = |said: &[_]| {
            let view = view(&cluster, said);
            assert_eq!(applied(&view, &cluster, "svc"), (true, None));
            member_health(&view, &cluster, "nodes", "w0").healthy
        };
        assert_eq!(healthy(&[Some(true), Some(true)]), Some(true));
        assert_eq!(healthy(&[Some(true), Some(false)]), Some(false));
        assert_eq!(healthy(&[]), None);
    }
}
