//! What is read of Kubernetes' objects, and nothing else is kept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSINode, StorageClass, VolumeAttachment},
};

use super::quantity;
use crate::{
    cluster::Key,
    volumes::{DRIVER, ZONE_KEY},
};

/// Names the provisioner of a claim; set by Kubernetes' volume binder.
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// The node that the first pod of a claim was scheduled to.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Names the provisioner of a volume.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// external-provisioner's, on volumes that go with their claim.
pub(super) const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// external-attacher's, on VolumeAttachments and on volumes that have one.
pub(super) const ATTACHER_FINALIZER: &str = "external-attacher/cinder-csi-openstack-org";
/// external-attacher's note of where it attached, for the case that the CSINode goes first.
pub(super) const NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";

/// A PersistentVolumeClaim whose volumes are ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClaimView {
    pub(super) uid: String,
    /// Changes with every write; part of a new volume's reference to its claim.
    pub(super) version: String,
    pub(super) pending: bool,
    pub(super) bound: bool,
    pub(super) deleting: bool,
    /// The PersistentVolume that it is bound to.
    pub(super) volume: Option<String>,
    pub(super) class: Option<String>,
    pub(super) selected_node: Option<String>,
    /// In bytes; 0 if it cannot be read.
    pub(super) requested: u64,
    /// What it has according to its status.
    pub(super) capacity: u64,
    pub(super) access_modes: Vec<String>,
    pub(super) block: bool,
    /// Kind and name of what it wants to be filled from.
    pub(super) source: Option<String>,
    /// Types of its conditions that are true.
    pub(super) conditions: BTreeSet<String>,
}

pub(super) fn claim(claim: PersistentVolumeClaim) -> Option<ClaimView> {
    let meta = claim.metadata;
    let annotations = meta.annotations.unwrap_or_default();
    if !PROVISIONER.iter().any(|key| annotations.get(*key).is_some_and(|name| name == DRIVER)) {
        return None;
    }
    let (spec, status) = (claim.spec.unwrap_or_default(), claim.status.unwrap_or_default());
    let storage = |quantities: Option<BTreeMap<String, _>>| {
        quantities.and_then(|all| {
            all.get("storage").map(|q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| q.0.clone())
        })
    };
    Some(ClaimView {
        uid: meta.uid.unwrap_or_default(),
        version: meta.resource_version.unwrap_or_default(),
        pending: status.phase.as_deref().is_none_or(|phase| phase == "Pending"),
        bound: status.phase.as_deref() == Some("Bound"),
        deleting: meta.deletion_timestamp.is_some(),
        volume: spec.volume_name.filter(|name| !name.is_empty()),
        class: spec.storage_class_name.filter(|name| !name.is_empty()),
        selected_node: annotations.get(SELECTED_NODE).cloned(),
        requested: storage(spec.resources.and_then(|r| r.requests))
            .and_then(|q| quantity::bytes(&q))
            .unwrap_or(0),
        capacity: storage(status.capacity).and_then(|q| quantity::bytes(&q)).unwrap_or(0),
        access_modes: spec.access_modes.unwrap_or_default(),
        block: spec.volume_mode.as_deref() == Some("Block"),
        source: spec
            .data_source_ref
            .map(|source| format!("{} {}", source.kind, source.name))
            .or_else(|| spec.data_source.map(|source| format!("{} {}", source.kind, source.name))),
        conditions: status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.type_)
            .collect(),
    })
}

/// A StorageClass of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClassView {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) reclaim_policy: String,
    pub(super) waits_for_consumer: bool,
    pub(super) mount_options: Vec<String>,
    /// Zones that `allowedTopologies` names.
    pub(super) zones: Vec<String>,
    pub(super) expandable: bool,
}

pub(super) fn class(class: StorageClass) -> Option<ClassView> {
    (class.provisioner == DRIVER).then(|| ClassView {
        parameters: class.parameters.unwrap_or_default(),
        reclaim_policy: class.reclaim_policy.unwrap_or_else(|| "Delete".to_owned()),
        waits_for_consumer: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        mount_options: class.mount_options.unwrap_or_default(),
        zones: class
            .allowed_topologies
            .unwrap_or_default()
            .into_iter()
            .flat_map(|term| term.match_label_expressions.unwrap_or_default())
            .filter(|expression| expression.key == ZONE_KEY)
            .flat_map(|expression| expression.values)
            .collect(),
        expandable: class.allow_volume_expansion == Some(true),
    })
}

/// A PersistentVolume of our driver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PersistentView {
    pub(super) uid: String,
    pub(super) version: String,
    /// Cinder's id of it.
    pub(super) handle: String,
    pub(super) released: bool,
    pub(super) deleting: bool,
    pub(super) delete_with_claim: bool,
    pub(super) provisioned_by_us: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) claim: Option<Key>,
    pub(super) capacity: u64,
}

pub(super) fn persistent(volume: PersistentVolume) -> Option<PersistentView> {
    let (meta, spec) = (volume.metadata, volume.spec?);
    let csi = spec.csi.filter(|csi| csi.driver == DRIVER)?;
    let annotations = meta.annotations.unwrap_or_default();
    Some(PersistentView {
        uid: meta.uid.unwrap_or_default(),
        version: meta.resource_version.unwrap_or_default(),
        handle: csi.volume_handle,
        released: volume.status.and_then(|status| status.phase).as_deref() == Some("Released"),
        deleting: meta.deletion_timestamp.is_some(),
        delete_with_claim: spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete"),
        provisioned_by_us: annotations.get(PROVISIONED_BY).is_some_and(|name| name == DRIVER),
        finalizers: meta.finalizers.unwrap_or_default(),
        claim: spec
            .claim_ref
            .map(|claim| Key::new(claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default())),
        capacity: spec
            .capacity
            .and_then(|capacity| capacity.get("storage").and_then(|q| quantity::bytes(&q.0)))
            .unwrap_or(0),
    })
}

/// A VolumeAttachment of our driver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AttachmentView {
    pub(super) version: String,
    pub(super) node: String,
    /// Name of the PersistentVolume.
    pub(super) volume: String,
    pub(super) deleting: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) node_id: Option<String>,
    pub(super) attached: bool,
    pub(super) attach_error: Option<String>,
    pub(super) detach_error: Option<String>,
}

impl AttachmentView {
    pub(super) fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == ATTACHER_FINALIZER)
    }
}

/// Whether a change is more than what we say of our own failures: those have their own pauses.
pub(super) fn wakes(old: Option<&Arc<AttachmentView>>, new: Option<&Arc<AttachmentView>>) -> bool {
    let silent = |view: &Arc<AttachmentView>| AttachmentView {
        version: String::new(),
        attach_error: None,
        detach_error: None,
        ..(**view).clone()
    };
    old.map(silent) != new.map(silent)
}

pub(super) fn attachment(attachment: VolumeAttachment) -> Option<AttachmentView> {
    let (meta, spec) = (attachment.metadata, attachment.spec);
    if spec.attacher != DRIVER {
        return None;
    }
    let status = attachment.status.unwrap_or_default();
    let message =
        |error: Option<k8s_openapi::api::storage::v1::VolumeError>| error.and_then(|error| error.message);
    Some(AttachmentView {
        version: meta.resource_version.unwrap_or_default(),
        node: spec.node_name,
        volume: spec.source.persistent_volume_name.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        finalizers: meta.finalizers.unwrap_or_default(),
        node_id: meta.annotations.and_then(|annotations| annotations.get(NODE_ID).cloned()),
        attached: status.attached,
        attach_error: message(status.attach_error),
        detach_error: message(status.detach_error),
    })
}

/// Our driver on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DriverView {
    /// UUID of the server.
    pub(super) node_id: String,
    /// Whether its volumes have a zone.
    pub(super) has_zone: bool,
}

pub(super) fn driver(node: CSINode) -> Option<DriverView> {
    let driver = node.spec.drivers.into_iter().find(|driver| driver.name == DRIVER)?;
    let has_zone = driver.topology_keys.unwrap_or_default().iter().any(|key| key == ZONE_KEY);
    Some(DriverView { node_id: driver.node_id, has_zone })
}

/// The zone that kubelet wrote to a Node for our driver.
pub(super) fn zone(node: Node) -> Option<Option<String>> {
    Some(node.metadata.labels.and_then(|labels| labels.get(ZONE_KEY).cloned()))
}

/// Which VolumeAttachments are of a volume, so that a change of the volume can wake them.
#[derive(Debug, Clone, Default)]
pub(super) struct ByVolume {
    attachments: Arc<Mutex<HashMap<String, BTreeSet<Key>>>>,
}

impl ByVolume {
    pub(super) fn note(&self, volume: &str, attachment: &Key, present: bool) {
        let mut all = self.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        let of_volume = all.entry(volume.to_owned()).or_default();
        if present {
            of_volume.insert(attachment.clone());
        } else {
            of_volume.remove(attachment);
        }
        if of_volume.is_empty() {
            all.remove(volume);
        }
    }

    pub(super) fn of(&self, volume: &str) -> Vec<Key> {
        let all = self.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(volume).into_iter().flatten().cloned().collect()
    }
}
