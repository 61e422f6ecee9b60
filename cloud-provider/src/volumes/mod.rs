//! Cinder volumes: provisioning and attaching, in the cloud controller manager, and the CSI node service, on
//! every node.
//!
//! There are no sidecars: [`controller`] keeps PersistentVolumes and VolumeAttachments as external-provisioner
//! and external-attacher do, down to their finalizers and annotations, so that either side can finish what the
//! other has begun. [`node`] speaks CSI with kubelet.

pub mod controller;
pub mod node;
/// Generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
}

/// The driver's name, as with cloud-provider-openstack.
pub const DRIVER: &str = "cinder.csi.openstack.org";

/// The key of the zone that a node is in and that a volume can be reached from.
pub const ZONE_KEY: &str = "topology.cinder.csi.openstack.org/zone";

/// In a volume's publish context: its size in GiB when it was attached. The device must not be smaller.
const CONTEXT_SIZE: &str = "ake.dev/size-gib";
