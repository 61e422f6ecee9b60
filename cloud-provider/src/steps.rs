//! Every kind of step that the controllers take, and the moments before and after each.
//!
//! A build for development dies at one of these moments when it is told to: `AKE_KILL=before:put_pool` or
//! `AKE_KILL=after:put_pool`. So the tests can show, for each kind, that whatever was begun is brought to its end by the
//! process that comes after it.

use crate::metrics;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What a step does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name, as metrics label it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// The finalizer goes on a Service.
    AddFinalizer = "add_finalizer",
    /// The security group is opened.
    AddRule = "add_rule",
    /// The security group is closed.
    RemoveRule = "remove_rule",
    /// A VIP is reserved at ake-api.
    PutAddress = "put_address",
    /// A VIP is released.
    DeleteAddress = "delete_address",
    /// A pool is written to ake-api.
    PutPool = "put_pool",
    /// A pool is removed.
    DeletePool = "delete_pool",
    /// A load balancer is written to ake-api.
    PutLoadBalancer = "put_load_balancer",
    /// A load balancer is removed.
    DeleteLoadBalancer = "delete_load_balancer",
    /// A node's port gets its address pairs.
    PutNodePort = "put_node_port",
    /// A node's port loses its address pairs.
    DeleteNodePort = "delete_node_port",
    /// A Service's status tells its addresses.
    SetStatus = "set_status",
    /// The finalizer comes off a Service.
    RemoveFinalizer = "remove_finalizer",
    /// A Node's status tells its addresses.
    SetNodeAddresses = "set_node_addresses",
    /// A Node says what it is.
    InitializeNode = "initialize_node",
    /// Pods are kept off a Node whose server is switched off.
    MarkNodeShutdown = "mark_node_shutdown",
    /// Pods are let onto it again.
    UnmarkNodeShutdown = "unmark_node_shutdown",
    /// The Node of a server that is gone is removed.
    DeleteNode = "delete_node",
}

/// A step is about to be taken.
pub fn begin(kind: Kind) {
    die_if_told("before", kind);
}

/// A step was taken, or has failed.
pub fn end(kind: Kind, failed: bool) {
    metrics::step(kind.name(), failed);
    if !failed {
        die_if_told("after", kind);
    }
}

#[cfg(debug_assertions)]
fn die_if_told(moment: &str, kind: Kind) {
    let told = std::env::var("AKE_KILL").unwrap_or_default();
    if told.split_once(':') == Some((moment, kind.name())) {
        tracing::warn!("told to die {moment} {}", kind.name());
        // As a loss of power does: nothing is flushed, nothing is given back.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
fn die_if_told(_moment: &str, _kind: Kind) {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
