//! The balancers' own news: what they say of members is taken in as soon as they say it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ake_api_client::ClusterId;
use lb_driver::{
    driver::{Driver, MemberStatus, Status},
    model::{Owner, State},
};
use tokio_util::sync::CancellationToken;

use super::{Devices, Seen, View};

/// Longest wait for news of one balancer.
const LONGEST: Duration = Duration::from_secs(10);
/// Wait after a balancer did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Takes in what one balancer says of its members, until `stop`.
pub(super) async fn follow(url: String, driver: Arc<dyn Driver>, devices: Devices, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let seen = devices.view().devices.get(&url).and_then(|seen| seen.status.as_ref()?.mark);
        let Some(answer) = stop.run_until_cancelled(driver.news(seen, LONGEST)).await else { return };
        let failed = answer.is_err();
        devices.heard(&url, answer.ok());
        if failed && stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

/// What clusters are shown otherwise by `new` than by `old`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Perhaps all.
    All,
    /// These.
    Those(BTreeSet<ClusterId>),
}

/// Compares what was seen of the balancers.
pub(super) fn changed(old: &View, new: &View) -> Changed {
    let mut those = BTreeSet::new();
    if old.devices.len() != new.devices.len() {
        return Changed::All;
    }
    for (url, new) in &new.devices {
        match old.devices.get(url) {
            Some(old) if old.failure == new.failure => compare(old, new, &mut those),
            _ => return Changed::All,
        }
    }
    Changed::Those(those)
}

fn compare(old: &Seen, new: &Seen, those: &mut BTreeSet<ClusterId>) {
    differing(&old.fitted.refused, &new.fitted.refused, PartialEq::eq, those);
    if !same(old.state.as_ref(), new.state.as_ref()) {
        let (none, nothing) = (State::default(), State::default());
        let old = old.state.as_deref().unwrap_or(&none);
        let new = new.state.as_deref().unwrap_or(&nothing);
        differing(&old.load_balancers, &new.load_balancers, PartialEq::eq, those);
    }
    if !same(old.status.as_ref(), new.status.as_ref()) {
        let (none, nothing) = (Status::default(), Status::default());
        let old = old.status.as_deref().unwrap_or(&none);
        let new = new.status.as_deref().unwrap_or(&nothing);
        let told = |status: &MemberStatus| (status.healthy, status.reason.clone());
        let equal = |old: &lb_driver::driver::PoolStatus, new: &lb_driver::driver::PoolStatus| {
            old.members.len() == new.members.len()
                && old
                    .members
                    .iter()
                    .zip(&new.members)
                    .all(|((a, old), (b, new))| a == b && told(old) == told(new))
        };
        differing(&old.pools, &new.pools, equal, those);
    }
}

fn same<T>(old: Option<&Arc<T>>, new: Option<&Arc<T>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    }
}

/// The clusters of what stands in one of the two alone, or otherwise in each.
fn differing<T>(
    old: &std::collections::BTreeMap<Owner, T>,
    new: &std::collections::BTreeMap<Owner, T>,
    equal: impl Fn(&T, &T) -> bool,
    those: &mut BTreeSet<ClusterId>,
) {
    let gone = old.keys().filter(|owner| !new.contains_key(*owner));
    let other = new.iter().filter(|(owner, new)| !old.get(*owner).is_some_and(|old| equal(old, new)));
    let owners = gone.chain(other.map(|(owner, _)| owner));
    those.extend(owners.filter_map(|owner| owner.cluster().parse::<ClusterId>().ok()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-1111-1111-1111-111111111111";
    const B: &str = "22222222-2222-2222-2222-222222222222";

    fn status(healthy: [Option<bool>; 2], flows: u64) -> Arc<Status> {
        let mut status = Status::default();
        for (cluster, healthy) in [A, B].into_iter().zip(healthy) {
            let owner = Owner::new("p", cluster, "nodes").unwrap();
            let member = MemberStatus { healthy, new_flows: flows, ..MemberStatus::default() };
            status.pools.entry(owner).or_default().members.insert("w0".into(), member);
        }
        Arc::new(status)
    }

    fn view(status: Arc<Status>, failure: Option<&str>) -> View {
        let seen = Seen { status: Some(status), failure: failure.map(Into::into), ..Seen::default() };
        View { answered: 0, devices: [("memory".to_owned(), seen)].into() }
    }

    #[test]
    fn only_clusters_that_look_otherwise_are_named() {
        let old = view(status([Some(true), Some(true)], 1), None);
        let counted = view(status([Some(true), Some(true)], 9), None);
        assert_eq!(changed(&old, &counted), Changed::Those(BTreeSet::new()), "flows are no news");
        let fell = view(status([Some(true), Some(false)], 1), None);
        assert_eq!(changed(&old, &fell), Changed::Those([B.parse().unwrap()].into()));
        assert_eq!(changed(&old, &view(status([None, None], 1), Some("down"))), Changed::All);
        assert_eq!(changed(&View::default(), &old), Changed::All);
    }
}
