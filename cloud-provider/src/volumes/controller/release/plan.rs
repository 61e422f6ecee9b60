//! What is to be done about a volume that its claim has left.

use std::fmt;

use super::super::view::{ATTACHER_FINALIZER, PROVISIONER_FINALIZER, PersistentView};

/// One step, in external-provisioner's and external-attacher's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Cinder's volume goes.
    DeleteVolume,
    /// Kubernetes' object goes, as soon as no finalizer holds it.
    DeleteObject,
    /// Nothing is attached any more: external-attacher's goes. Nothing is left in Cinder: so does
    /// external-provisioner's, if it is there.
    DropFinalizers,
    /// Nothing is attached any more.
    DropAttacherFinalizer,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeleteVolume => "delete the volume",
            Self::DeleteObject => "delete the PersistentVolume",
            Self::DropFinalizers => "drop the finalizers",
            Self::DropAttacherFinalizer => "drop the attacher's finalizer",
        })
    }
}

/// Decides about a volume. `attachments`: how many VolumeAttachments name it.
pub(super) fn plan(volume: &PersistentView, attachments: usize) -> Vec<Step> {
    let has = |finalizer: &str| volume.finalizers.iter().any(|found| found == finalizer);
    let mut steps = Vec::new();
    if attachments > 0 {
        return steps;
    }
    if volume.released && volume.delete_with_claim && volume.provisioned_by_us {
        // One that is going without our finalizer is somebody else's to delete.
        if !volume.deleting || has(PROVISIONER_FINALIZER) {
            steps.push(Step::DeleteVolume);
            if !volume.deleting {
                steps.push(Step::DeleteObject);
            }
            if has(ATTACHER_FINALIZER) || has(PROVISIONER_FINALIZER) {
                steps.push(Step::DropFinalizers);
            }
            return steps;
        }
    }
    if volume.deleting {
        // A retained volume stays in Cinder, its object may go.
        if has(PROVISIONER_FINALIZER) && !volume.delete_with_claim {
            steps.push(Step::DropFinalizers);
        } else if has(ATTACHER_FINALIZER) {
            steps.push(Step::DropAttacherFinalizer);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::{Step::*, *};

    fn volume(deleting: bool, finalizers: &[&str]) -> PersistentView {
        PersistentView {
            released: true,
            deleting,
            delete_with_claim: true,
            provisioned_by_us: true,
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            ..PersistentView::default()
        }
    }

    const P: &str = PROVISIONER_FINALIZER;
    const A: &str = ATTACHER_FINALIZER;

    #[test]
    fn table() {
        let retained = |deleting, finalizers| PersistentView {
            delete_with_claim: false,
            ..volume(deleting, finalizers)
        };
        let bound = |deleting| PersistentView { released: false, ..volume(deleting, &[P, A]) };
        let foreign = PersistentView { provisioned_by_us: false, ..volume(false, &[P]) };
        for (why, volume, attachments, steps) in [
            ("released", volume(false, &[P, A]), 0, vec![DeleteVolume, DeleteObject, DropFinalizers]),
            ("never attached", volume(false, &[P]), 0, vec![DeleteVolume, DeleteObject, DropFinalizers]),
            ("an older one", volume(false, &[]), 0, vec![DeleteVolume, DeleteObject]),
            ("attached", volume(false, &[P, A]), 1, vec![]),
            ("half done", volume(true, &[P]), 0, vec![DeleteVolume, DropFinalizers]),
            ("not ours any more", volume(true, &[A]), 0, vec![DropAttacherFinalizer]),
            ("retained", retained(false, &[]), 0, vec![]),
            ("retained, object deleted", retained(true, &[A]), 0, vec![DropAttacherFinalizer]),
            ("retained by now, object deleted", retained(true, &[A, P]), 0, vec![DropFinalizers]),
            ("bound", bound(false), 0, vec![]),
            ("bound, object deleted", bound(true), 0, vec![DropAttacherFinalizer]),
            ("bound, attached, object deleted", bound(true), 2, vec![]),
            ("not made by us", foreign, 0, vec![]),
        ] {
            assert_eq!(plan(&volume, attachments), steps, "{why}");
        }
    }
}
