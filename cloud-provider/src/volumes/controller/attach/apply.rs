//! Carries out a step, and writes the status.

use k8s_openapi::{api::storage::v1::VolumeAttachment, jiff::Timestamp};
use openstack_client::volumes::Volume;
use serde_json::{Value, json};

use super::{
    super::{
        Context, Error,
        finalizers::change_finalizers,
        view::{ATTACHER_FINALIZER, AttachmentView, NODE_ID},
    },
    plan::Step,
};
use crate::{
    cluster::Key,
    steps::{self, Kind},
    volumes::CONTEXT_SIZE,
};

pub(super) async fn apply(
    context: &Context,
    key: &Key,
    seen: &AttachmentView,
    step: &Step,
) -> Result<(), Error> {
    match step {
        Step::MarkVolume => {
            let marked = change_finalizers(context, &seen.volume, None, |all| {
                if !all.iter().any(|finalizer| finalizer == ATTACHER_FINALIZER) {
                    all.push(ATTACHER_FINALIZER.to_owned());
                }
            });
            steps::take(Kind::MarkPersistentVolume, marked).await
        }
        Step::Mark { server } => steps::take(Kind::MarkAttachment, mark(context, key, seen, server)).await,
        Step::Attach { volume, server } => {
            let attached = steps::take(Kind::AttachVolume, context.cloud.attach(volume, server)).await?;
            let status = json!({"attached": true, "attachmentMetadata": publish_context(&attached, server), "attachError": null});
            steps::take(Kind::SetAttached, write_status(context, key, status)).await
        }
        Step::Detach { volume, server } => {
            Ok(steps::take(Kind::DetachVolume, context.cloud.detach(volume, server)).await?)
        }
        Step::Unmark => steps::take(Kind::UnmarkAttachment, unmark(context, key, seen)).await,
    }
}

async fn mark(context: &Context, key: &Key, seen: &AttachmentView, server: &str) -> Result<(), Error> {
    let mut finalizers = seen.finalizers.clone();
    if !seen.has_finalizer() {
        finalizers.push(ATTACHER_FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {
        "resourceVersion": seen.version,
        "finalizers": finalizers,
        "annotations": {NODE_ID: server},
    }});
    let changed = context.cluster.merge::<VolumeAttachment>(None, &key.name, &patch).await?;
    context.attachments.absorb(changed);
    Ok(())
}

async fn unmark(context: &Context, key: &Key, seen: &AttachmentView) -> Result<(), Error> {
    let finalizers: Vec<_> = seen.finalizers.iter().filter(|found| *found != ATTACHER_FINALIZER).collect();
    let patch = json!({"metadata": {"resourceVersion": seen.version, "finalizers": finalizers}});
    match context.cluster.merge::<VolumeAttachment>(None, &key.name, &patch).await {
        Ok(_) => {}
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let status = json!({"attached": false, "detachError": null, "attachmentMetadata": null});
    write_status(context, key, status).await
}

/// What the node is told: where Nova believes the disk to be, as cloud-provider-openstack does, and its size.
fn publish_context(volume: &Volume, server: &str) -> Value {
    let device = volume
        .attachments
        .iter()
        .find(|attachment| attachment.server_id == server)
        .and_then(|attachment| attachment.device.clone())
        .unwrap_or_default();
    json!({"DevicePath": device, CONTEXT_SIZE: volume.size.to_string()})
}

/// Says in the status why it does not go on; unless that stands there already.
pub(super) async fn save_error(
    context: &Context,
    key: &Key,
    seen: &AttachmentView,
    message: &str,
) -> Result<(), Error> {
    let (field, said) =
        if seen.deleting { ("detachError", &seen.detach_error) } else { ("attachError", &seen.attach_error) };
    if said.as_deref() == Some(message) {
        return Ok(());
    }
    write_status(context, key, json!({field: {"message": message, "time": Timestamp::now().to_string()}}))
        .await
}

/// Writes parts of the status; an object that is gone is success.
async fn write_status(context: &Context, key: &Key, status: Value) -> Result<(), Error> {
    let patch = json!({"status": status});
    match context.cluster.merge_status::<VolumeAttachment>(None, &key.name, &patch).await {
        // One that is going may be gone: the watch has the last word.
        Ok(changed) if changed.metadata.deletion_timestamp.is_none() => context.attachments.absorb(changed),
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
