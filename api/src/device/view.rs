//! What a cluster is told about the balancers.

use lb_driver::driver::MemberStatus;

use super::{View, translate};
use crate::store::Loaded;

/// Whether all balancers have a load balancer as it is wanted, and if not, why.
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
    for seen in view.devices.values() {
        let has =
            seen.state.as_ref().is_some_and(|state| state.load_balancers.get(&owner) == Some(&balancer));
        if !has {
            let reason =
                seen.failure.clone().unwrap_or_else(|| "the balancer does not have it yet".to_owned());
            return (false, Some(reason));
        }
    }
    (true, None)
}

/// What the balancers say of a member: healthy if one says so.
#[must_use]
pub fn member_health(view: &View, cluster: &Loaded, pool: &str, member: &str) -> MemberStatus {
    let Ok(owner) = translate::owner(&cluster.record, pool) else { return MemberStatus::default() };
    let said =
        view.devices.values().filter_map(|seen| seen.status.as_ref()?.pools.get(&owner)?.members.get(member));
    said.clone()
        .find(|status| status.healthy == Some(true))
        .or_else(|| said.clone().find(|status| status.healthy.is_some()))
        .or_else(|| said.clone().next())
        .cloned()
        .unwrap_or_default()
}
