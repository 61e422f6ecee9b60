//! Which Kubernetes a cluster is. A cluster's id comes from a file, and a copied file makes two Kubernetes one cluster:
//! each would take for orphans what is the other's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterId;

/// The UID of a Kubernetes' namespace `kube-system`: made with it, kept by its etcd, and the same in no other one.
pub type KubernetesId = uuid::Uuid;

/// `PUT /clusters/{cluster}/kubernetes`: which Kubernetes writes for a cluster from now on, whatever is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["uid"]))]
pub struct KubernetesRequest {
    /// The UID of its namespace `kube-system`; `null` for whichever writes next.
    // One that is left out is no word at all.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schemars(with = "Option<KubernetesId>")]
    pub uid: Option<KubernetesId>,
}

/// What the name of a Service's own load balancer or address begins with; its UID follows.
pub const OF_SERVICE: &str = "svc-";

/// What the name of a pool begins with that is one Service's alone; its UID follows.
pub const LOCAL: &str = "local-";

/// What the name of an address begins with that Services share under a key; a hash and the family follow.
pub const SHARED: &str = "share-";

/// What the name of an address begins with that stays with a Service's name; a hash and the family follow.
pub const KEPT: &str = "kept-";

/// How many characters of a hash stand in a name.
pub const HASH: usize = 12;

/// Whether a name is `prefix`, a hash and a family, as those are that stand for something longer. Others that begin alike
/// are what people gave.
#[must_use]
pub fn is_hashed(name: &str, prefix: &str) -> bool {
    let hash = name.strip_prefix(prefix);
    let hash = hash.and_then(|rest| rest.strip_suffix("-ipv4").or_else(|| rest.strip_suffix("-ipv6")));
    hash.is_some_and(|hash| hash.len() == HASH)
}

/// Whether a load balancer, an address or a pool of this name is there for Services of a Kubernetes. A name that people
/// gave and that begins as that of a single Service counts as one.
#[must_use]
pub fn is_of_services(name: &str) -> bool {
    let is_ones = [OF_SERVICE, LOCAL].iter().any(|prefix| name.starts_with(prefix));
    is_ones || [SHARED, KEPT].iter().any(|prefix| is_hashed(name, prefix))
}

/// What to do where a cluster is another Kubernetes than the one of this UID, in words for people.
#[must_use]
pub fn how_to_be_let_in(cluster: ClusterId, uid: KubernetesId) -> String {
    format!(
        "A Kubernetes with a copied cloud.conf wants a cluster-id of its own; if {uid} was made anew in the other one's \
         place, the project's owner says so: PUT /v1/clusters/{cluster}/kubernetes {{\"uid\": \"{uid}\"}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_services_is_told_by_its_name_and_what_people_named_is_theirs() {
        for (name, is) in [
            ("svc-6f3a", true),
            ("svc-6f3a-ipv6", true),
            ("local-6f3a", true),
            ("share-0123456789ab-ipv4", true),
            ("kept-0123456789ab-ipv6", true),
            ("share-of-mine", false),
            ("kept-ipv4", false),
            ("kept-0123456789ab", false),
            ("nodes", false),
            ("api", false),
        ] {
            assert_eq!(is_of_services(name), is, "{name}");
        }
    }
}
