//! Which Kubernetes the cluster is, by ake-api: two of one cluster-id would take for orphans what is the other's.

use std::collections::BTreeSet;

use ake_api_client::{ClusterState, how_to_be_let_in, is_of_services};

use super::{apply::StepError, batch::Writer, names, wanted::World};
use crate::{cloud::Cloud, cluster::Leadership};

/// Why nothing may be planned: the cluster is another Kubernetes, or most likely so.
#[must_use]
pub fn stopped(world: &World) -> Option<String> {
    let state = &world.state;
    let (id, own) = (state.cluster.id, world.kubernetes);
    let what_to_do = format!("Nothing is done. {}", how_to_be_let_in(id, own));
    match state.cluster.kubernetes {
        Some(other) if other != own => {
            let left = left(state)?;
            Some(format!(
                "cluster {id} at ake-api is Kubernetes {other} (the UID of its namespace kube-system), which has {left} there \
                 among others, and this one is {own}. {what_to_do}"
            ))
        }
        Some(_) => None,
        None => {
            let known: BTreeSet<&str> = world.services.values().map(|service| service.uid.as_str()).collect();
            let (ours, others): (Vec<&str>, Vec<&str>) =
                names(state).filter_map(|name| names::owner(name)).partition(|uid| known.contains(uid));
            let other = others.first().filter(|_| ours.is_empty())?;
            Some(format!(
                "cluster {id} at ake-api has load balancers for Services of which this Kubernetes ({own}, the UID of its \
                 namespace kube-system) knows none, the one of UID {other} among others; which Kubernetes it is, ake-api \
                 was not told yet. {what_to_do}"
            ))
        }
    }
}

/// The name of something that is there for Services of a Kubernetes. As long as there is any, no other one is let in.
#[must_use]
pub fn left(state: &ClusterState) -> Option<&String> {
    names(state).find(|name| is_of_services(name))
}

fn names(state: &ClusterState) -> impl Iterator<Item = &String> {
    state.load_balancers.keys().chain(state.addresses.keys())
}

/// Tells ake-api that the cluster is this Kubernetes, and nothing else. `state` and `etag`: what was decided from;
/// afterwards, what there is by now.
pub async fn take(
    cloud: &Cloud,
    leadership: &Leadership,
    state: &mut ClusterState,
    etag: &mut String,
) -> Result<(), StepError> {
    Writer::new(cloud, leadership).claim(state, etag).await
}

/// Whether ake-api is to be told that the cluster is this Kubernetes, before anything else is done: where it knows of none,
/// or where another one has left nothing and `steps` are to be taken. Where none are, both may look on.
#[must_use]
pub fn is_due(world: &World, steps: bool) -> bool {
    match world.state.cluster.kubernetes {
        None => true,
        Some(other) => other != world.kubernetes && steps,
    }
}
