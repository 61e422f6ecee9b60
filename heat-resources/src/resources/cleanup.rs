//! `AKE::Cluster::Cleanup`: the first to act when a cluster goes.

use ake_api_client::{ClusterId, OF_SERVICE};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    plan::{Invalid, Plan, Resource, Seen, Step},
    schema::{Reference, ResourceType, cluster_property},
};

/// Its name in templates.
pub const NAME: &str = "AKE::Cluster::Cleanup";

/// Seconds that the balancer has to let go.
const LIMIT_S: u64 = 180;

/// Its properties.
#[derive(Debug, Clone, Deserialize)]
pub struct Properties {
    cluster: ClusterId,
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    ResourceType {
        name: NAME,
        description: "Made after the servers, and so the first to act when the stack is deleted: it marks the \
            cluster as going away, and waits until the load balancers of its Services are gone.",
        reference: Reference::Own,
        properties: vec![cluster_property()],
        attributes: Vec::new(),
    }
}

impl Resource for Properties {
    fn wanted(&self, _: &Seen) -> Result<Plan, Invalid> {
        Ok(Plan::default())
    }

    fn unwanted(&self, seen: &Seen) -> Plan {
        let Some(state) = &seen.cluster else { return Plan::default() };
        if !state.cluster.deleting {
            return Plan::steps(vec![Step::MarkDeleting]);
        }
        let left: Vec<_> = state
            .load_balancers
            .keys()
            .filter(|name| name.starts_with(OF_SERVICE))
            .map(String::as_str)
            .collect();
        if left.is_empty() {
            return Plan::default();
        }
        Plan::wait(format!("load balancers of the cluster are not gone yet: {}", left.join(", ")), 1, LIMIT_S)
    }

    fn missing(&self, seen: &Seen) -> Option<String> {
        seen.cluster.is_none().then(|| format!("ake-api does not know cluster {}", self.cluster))
    }

    fn attributes(&self, _: &Seen) -> Map<String, Value> {
        Map::new()
    }

    fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
