//! Every kind of step that the controllers take, and the moments before and after each.
//!
//! A build for development dies at one of these moments when it is told to: `AKE_KILL` names a file in which stands
//! `before:put_pool` or `after:put_pool`, and which goes with the process. So the tests can show, for each kind, that
//! whatever was begun is brought to its end by the process that comes after it. With `stop:put_pool` it stops before the
//! step, and goes on when it is told to (SIGCONT), as a machine does that was suspended.

use std::future::Future;

use nix::sys::signal::Signal;

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
    /// A claim's volume is made in Cinder.
    CreateVolume = "create_volume",
    /// Its PersistentVolume is made.
    CreatePersistentVolume = "create_persistent_volume",
    /// The attacher's finalizer goes on a PersistentVolume.
    MarkPersistentVolume = "mark_persistent_volume",
    /// The finalizer and the server's id go on a VolumeAttachment.
    MarkAttachment = "mark_attachment",
    /// Nova attaches a volume.
    AttachVolume = "attach_volume",
    /// A VolumeAttachment's status says so.
    SetAttached = "set_attached",
    /// Nova detaches it.
    DetachVolume = "detach_volume",
    /// The finalizer comes off a VolumeAttachment.
    UnmarkAttachment = "unmark_attachment",
    /// Cinder grows a volume.
    GrowVolume = "grow_volume",
    /// The PersistentVolume says how large it is.
    SetCapacity = "set_capacity",
    /// kubelet is asked to grow the file system.
    HandToNode = "hand_to_node",
    /// A volume goes from Cinder.
    DeleteVolume = "delete_volume",
    /// Its PersistentVolume goes.
    DeletePersistentVolume = "delete_persistent_volume",
    /// All finalizers come off a PersistentVolume.
    DropFinalizers = "drop_finalizers",
    /// The attacher's finalizer comes off a PersistentVolume.
    DropAttacherFinalizer = "drop_attacher_finalizer",
}

/// Takes a step of its own.
pub async fn take<T, E>(kind: Kind, step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    begin(kind);
    let result = step.await;
    end(kind, result.is_err());
    result
}

/// A step is about to be taken.
pub fn begin(kind: Kind) {
    obey("before", Signal::SIGKILL, kind);
    obey("stop", Signal::SIGSTOP, kind);
}

/// A step was taken, or has failed.
pub fn end(kind: Kind, failed: bool) {
    metrics::step(kind.name(), failed);
    if !failed {
        obey("after", Signal::SIGKILL, kind);
    }
}

/// As a loss of power does: nothing is flushed, nothing is given back.
#[cfg(debug_assertions)]
fn obey(moment: &str, signal: Signal, kind: Kind) {
    let Some(file) = std::env::var_os("AKE_KILL") else { return };
    let told = std::fs::read_to_string(&file).unwrap_or_default();
    if told.trim().split_once(':') == Some((moment, kind.name())) {
        tracing::warn!("told to {told}");
        // Whoever comes after is told nothing.
        let _ = std::fs::remove_file(&file);
        let _ = nix::sys::signal::raise(signal);
    }
}

#[cfg(not(debug_assertions))]
fn obey(_moment: &str, _signal: Signal, _kind: Kind) {}

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
