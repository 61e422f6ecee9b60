//! What is to be done about a VolumeAttachment.

use std::fmt;

use super::super::view::{ATTACHER_FINALIZER, AttachmentView, DriverView, PersistentView};

/// What is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) attachment: &'a AttachmentView,
    /// Its PersistentVolume.
    pub(super) volume: Option<&'a PersistentView>,
    /// Our driver on its node.
    pub(super) driver: Option<&'a DriverView>,
}

/// One step, in external-attacher's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The finalizer and the note of the server go on the VolumeAttachment.
    Mark { server: String },
    /// The finalizer goes on the PersistentVolume.
    MarkVolume,
    /// Nova attaches; then the status says so.
    Attach { volume: String, server: String },
    /// Nova detaches.
    Detach { volume: String, server: String },
    /// The finalizer goes, then the status says so; the object may be gone in between.
    Unmark,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark { server } => write!(f, "mark for server {server}"),
            Self::MarkVolume => f.write_str("mark the PersistentVolume"),
            Self::Attach { volume, server } => write!(f, "attach volume {volume} to server {server}"),
            Self::Detach { volume, server } => write!(f, "detach volume {volume} from server {server}"),
            Self::Unmark => f.write_str("mark as detached"),
        }
    }
}

/// Decides. `Err` is what the status shall say.
pub(super) fn plan(seen: &Seen<'_>) -> Result<Vec<Step>, String> {
    if seen.attachment.deleting { detach(seen) } else { attach(seen) }
}

fn attach(seen: &Seen<'_>) -> Result<Vec<Step>, String> {
    let Seen { attachment, volume, driver } = seen;
    if attachment.attached && attachment.has_finalizer() {
        return Ok(vec![]);
    }
    let volume = volume.ok_or_else(|| {
        format!("there is no PersistentVolume {:?} of driver {}", attachment.volume, crate::volumes::DRIVER)
    })?;
    if volume.deleting {
        return Err(format!("PersistentVolume {} is being deleted", attachment.volume));
    }
    let server =
        driver.map(|driver| driver.node_id.clone()).filter(|id| !id.is_empty()).ok_or_else(|| {
            format!("CSINode {} does not contain driver {}", attachment.node, crate::volumes::DRIVER)
        })?;
    let mut steps = Vec::new();
    if !volume.finalizers.iter().any(|finalizer| finalizer == ATTACHER_FINALIZER) {
        steps.push(Step::MarkVolume);
    }
    if !attachment.has_finalizer() || attachment.node_id.as_ref() != Some(&server) {
        steps.push(Step::Mark { server: server.clone() });
    }
    steps.push(Step::Attach { volume: volume.handle.clone(), server });
    Ok(steps)
}

fn detach(seen: &Seen<'_>) -> Result<Vec<Step>, String> {
    let Seen { attachment, volume, driver } = seen;
    if !attachment.has_finalizer() {
        return Ok(vec![]);
    }
    let volume = volume.ok_or_else(|| {
        format!("PersistentVolume {} is gone: expected it, to know what to detach", attachment.volume)
    })?;
    // What was noted when it was attached; a node of that name may be another server by now.
    let server = attachment
        .node_id
        .clone()
        .or_else(|| driver.map(|driver| driver.node_id.clone()))
        .filter(|id| !id.is_empty())
        .ok_or_else(|| format!("it is not known which server node {} was", attachment.node))?;
    Ok(vec![Step::Detach { volume: volume.handle.clone(), server }, Step::Unmark])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(deleting: bool, marked: bool) -> AttachmentView {
        AttachmentView {
            node: "w0".into(),
            volume: "pvc-1".into(),
            deleting,
            finalizers: if marked { vec![ATTACHER_FINALIZER.into()] } else { vec![] },
            node_id: marked.then(|| "s0".to_owned()),
            ..AttachmentView::default()
        }
    }

    fn volume(marked: bool) -> PersistentView {
        PersistentView {
            handle: "v1".into(),
            finalizers: if marked { vec![ATTACHER_FINALIZER.into()] } else { vec![] },
            ..PersistentView::default()
        }
    }

    fn shown(
        attachment: &AttachmentView,
        volume: Option<&PersistentView>,
        driver: Option<&str>,
    ) -> Result<String, String> {
        let driver = driver.map(|id| DriverView { node_id: id.into(), has_zone: true });
        plan(&Seen { attachment, volume, driver: driver.as_ref() })
            .map(|steps| steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn attaching() {
        let done = AttachmentView { attached: true, ..attachment(false, true) };
        let lost = AttachmentView { attached: true, ..attachment(false, false) };
        let going = PersistentView { deleting: true, ..volume(true) };
        let ok = |text: &str| Ok(text.to_owned());
        let err = |text: &str| Err(text.to_owned());
        for (why, attachment, volume, driver, outcome) in [
            (
                "new",
                attachment(false, false),
                Some(volume(false)),
                Some("s0"),
                ok("mark the PersistentVolume, mark for server s0, attach volume v1 to server s0"),
            ),
            (
                "begun",
                attachment(false, true),
                Some(volume(true)),
                Some("s0"),
                ok("attach volume v1 to server s0"),
            ),
            ("done", done, Some(volume(true)), Some("s0"), ok("")),
            (
                "finalizer lost",
                lost,
                Some(volume(true)),
                Some("s0"),
                ok("mark for server s0, attach volume v1 to server s0"),
            ),
            (
                "another server by now",
                attachment(false, true),
                Some(volume(true)),
                Some("s1"),
                ok("mark for server s1, attach volume v1 to server s1"),
            ),
            (
                "no volume",
                attachment(false, false),
                None,
                Some("s0"),
                err("there is no PersistentVolume \"pvc-1\" of driver cinder.csi.openstack.org"),
            ),
            (
                "volume goes",
                attachment(false, true),
                Some(going),
                Some("s0"),
                err("PersistentVolume pvc-1 is being deleted"),
            ),
            (
                "no driver",
                attachment(false, false),
                Some(volume(false)),
                None,
                err("CSINode w0 does not contain driver cinder.csi.openstack.org"),
            ),
        ] {
            assert_eq!(shown(&attachment, volume.as_ref(), driver), outcome, "{why}");
        }
    }

    #[test]
    fn detaching() {
        let detach = "detach volume v1 from server s0, mark as detached";
        assert_eq!(
            shown(&attachment(true, true), Some(&volume(true)), None).unwrap(),
            detach,
            "the node is gone"
        );
        assert_eq!(
            shown(&attachment(true, true), Some(&volume(true)), Some("s9")).unwrap(),
            detach,
            "another server"
        );
        assert_eq!(
            shown(&attachment(true, false), Some(&volume(true)), Some("s0")).unwrap(),
            "",
            "never begun"
        );
        let error = shown(&attachment(true, true), None, Some("s0")).unwrap_err();
        assert_eq!(error, "PersistentVolume pvc-1 is gone: expected it, to know what to detach");
    }
}
