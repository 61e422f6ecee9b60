//! Names of what Services have at ake-api. They tell whose an object is, so nothing else has to be remembered.

use ake_api_client::{Family, HASH, KEPT, LOCAL, OF_SERVICE, SHARED, is_hashed};
use sha2::{Digest, Sha256};

use super::annotations::NodeSelector;
use crate::cluster::Key;

/// Name of the pool of all nodes.
pub const NODES: &str = "nodes";

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder<'a> {
    /// The one Service of this UID; it goes with it.
    Service(&'a str),
    /// Services that share it under a key; it goes with the last of them.
    Shared,
    /// A Service's name, whichever Service bears it; it stays when that one goes.
    Kept,
}

/// Names of a Service's load balancers, by family, the first family first.
#[must_use]
pub fn balancers(uid: &str, families: &[Family]) -> Vec<(String, Family)> {
    let name =
        |(index, family): (usize, &Family)| (format!("{OF_SERVICE}{uid}{}", suffix(index, *family)), *family);
    families.iter().enumerate().map(name).collect()
}

/// Names that a Service's load balancers can have, the first family's first.
#[must_use]
pub fn all_balancers(uid: &str) -> [String; 3] {
    ["", "-ipv4", "-ipv6"].map(|suffix| format!("{OF_SERVICE}{uid}{suffix}"))
}

/// Names that anything of this one Service alone can have.
#[must_use]
pub fn all_of(uid: &str) -> [String; 6] {
    let [a, b, c] = all_balancers(uid);
    let [d, e, f] = ["", "-ipv4", "-ipv6"].map(|suffix| format!("{LOCAL}{uid}{suffix}"));
    [a, b, c, d, e, f]
}

/// Name of a pool that is one Service's alone, for one of its families.
#[must_use]
pub fn own_pool(uid: &str, index: usize, family: Family) -> String {
    format!("{LOCAL}{uid}{}", suffix(index, family))
}

/// The first family has none, so that a second one comes and goes without a change to what is there.
fn suffix(index: usize, family: Family) -> &'static str {
    match (index, family) {
        (0, _) => "",
        (_, Family::V4) => "-ipv4",
        (_, Family::V6) => "-ipv6",
    }
}

/// Name of the address that Services share under a key: in one namespace, or, without one, across namespaces.
#[must_use]
pub fn shared_address(namespace: Option<&str>, key: &str, family: Family) -> String {
    let scope = namespace.unwrap_or("*");
    format!("{SHARED}{}{}", hash(&[scope, key]), suffix(1, family))
}

/// Name of the address that stays with a Service's name.
#[must_use]
pub fn kept_address(service: &Key, family: Family) -> String {
    format!("{KEPT}{}{}", hash(&[&service.namespace, &service.name]), suffix(1, family))
}

/// UID of the Service that a load balancer or a pool is for, or that alone has an address.
#[must_use]
pub fn owner(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(OF_SERVICE).or_else(|| name.strip_prefix(LOCAL))?;
    Some(rest.strip_suffix("-ipv4").or_else(|| rest.strip_suffix("-ipv6")).unwrap_or(rest))
}

/// Whose an address is, if it is one of Services.
#[must_use]
pub fn holder(address: &str) -> Option<Holder<'_>> {
    if is_hashed(address, SHARED) {
        return Some(Holder::Shared);
    }
    if is_hashed(address, KEPT) {
        return Some(Holder::Kept);
    }
    address.strip_prefix(OF_SERVICE)?;
    owner(address).map(Holder::Service)
}

/// Whether a pool is one of those that Services share.
#[must_use]
pub fn is_shared_pool(name: &str) -> bool {
    name == NODES || name.strip_prefix("nodes-").is_some_and(|hash| hash.len() == HASH)
}

/// Whether a pool is one of Services.
#[must_use]
pub fn is_pool_of_services(name: &str) -> bool {
    is_shared_pool(name) || owner(name).is_some()
}

/// Name of the pool of the nodes with these labels. One that is not checked is a pool of its own.
#[must_use]
pub fn shared_pool(selector: &NodeSelector, checked: bool) -> String {
    if selector.is_empty() && checked {
        return NODES.to_owned();
    }
    let mut parts = Vec::new();
    for (key, value) in selector {
        parts.extend([key.as_str(), if value.is_some() { "=" } else { "" }]);
        parts.push(value.as_deref().unwrap_or_default());
    }
    if !checked {
        // No label's key is like this.
        parts.push("unchecked//");
    }
    format!("nodes-{}", hash(&parts))
}

fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_from_names() {
        for (name, uid) in [
            ("svc-6f3a", Some("6f3a")),
            ("svc-6f3a-ipv6", Some("6f3a")),
            ("local-6f3a", Some("6f3a")),
            ("local-6f3a-ipv4", Some("6f3a")),
            ("api", None),
            ("nodes", None),
            ("masters", None),
        ] {
            assert_eq!(owner(name), uid, "{name}");
        }
    }

    #[test]
    fn holders_are_read_from_names() {
        let shared = shared_address(Some("a"), "web", Family::V4);
        let everywhere = shared_address(None, "web", Family::V4);
        let kept = kept_address(&Key::new("a", "web"), Family::V6);
        assert_ne!(shared, everywhere);
        for (name, is) in [
            (shared.as_str(), Some(Holder::Shared)),
            (&everywhere, Some(Holder::Shared)),
            (&kept, Some(Holder::Kept)),
            ("svc-6f3a-ipv6", Some(Holder::Service("6f3a"))),
            // What people give names to is theirs.
            ("share-of-mine", None),
            ("kept-ipv4", None),
            ("api", None),
        ] {
            assert_eq!(holder(name), is, "{name}");
            assert!(name.len() <= 63);
        }
    }

    #[test]
    fn selectors_have_pools_of_their_own() {
        let of = |value: Option<&str>| NodeSelector::from([("a".to_owned(), value.map(ToOwned::to_owned))]);
        let names = [
            shared_pool(&NodeSelector::new(), true),
            shared_pool(&NodeSelector::new(), false),
            shared_pool(&of(None), true),
            shared_pool(&of(Some("")), true),
            shared_pool(&of(Some("")), false),
        ];
        assert_eq!(names[0], NODES);
        for (index, name) in names.iter().enumerate() {
            assert!(is_shared_pool(name), "{name}");
            assert!(!names[..index].contains(name), "{names:?}");
        }
        assert!(!is_shared_pool("masters") && !is_shared_pool("nodes-of-heat"));
    }
}
