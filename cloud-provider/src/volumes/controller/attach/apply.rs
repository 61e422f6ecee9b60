//! Carries out a step, and writes the status.

use k8s_openapi::{
    api::{core::v1::PersistentVolume, storage::v1::VolumeAttachment},
    jiff::Timestamp,
};
use openstack_client::volumes::Volume;
use serde_json::{Value, json};

use super::{
    super::{
        Context, Error,
        view::{ATTACHER_FINALIZER, AttachmentView, NODE_ID},
    },
    plan::Step,
};
use crate::{cluster::Key, volumes::CONTEXT_SIZE};

pub(super) async fn apply(
    context: &Context,
    key: &Key,
    seen: &AttachmentView,
    step: &Step,
) -> Result<(), Error> {
    match step {
        Step::MarkVolume => mark_volume(context, &seen.volume).await,
        Step::Mark { server } => {
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
        Step::Attach { volume, server } => {
            let attached = context.cloud.attach(volume, server).await?;
            let status = json!({"attached": true, "attachmentMetadata": publish_context(&attached, server), "attachError": null});
            write_status(context, key, status).await
        }
        Step::Detach { volume, server } => Ok(context.cloud.detach(volume, server).await?),
        Step::Unmark => {
            let finalizers: Vec<_> =
                seen.finalizers.iter().filter(|found| *found != ATTACHER_FINALIZER).collect();
            let patch = json!({"metadata": {"resourceVersion": seen.version, "finalizers": finalizers}});
            match context.cluster.merge::<VolumeAttachment>(None, &key.name, &patch).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let status = json!({"attached": false, "detachError": null, "attachmentMetadata": null});
            write_status(context, key, status).await
        }
    }
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

/// Puts external-attacher's finalizer on a PersistentVolume.
async fn mark_volume(context: &Context, name: &str) -> Result<(), Error> {
    let Some(object) = context.cluster.get::<PersistentVolume>(None, name).await? else {
        return Err(Error::Refused(format!("PersistentVolume {name} is gone")));
    };
    let mut finalizers = object.metadata.finalizers.unwrap_or_default();
    if finalizers.iter().any(|finalizer| finalizer == ATTACHER_FINALIZER) {
        return Ok(());
    }
    finalizers.push(ATTACHER_FINALIZER.to_owned());
    let patch =
        json!({"metadata": {"resourceVersion": object.metadata.resource_version, "finalizers": finalizers}});
    let changed = context.cluster.merge::<PersistentVolume>(None, name, &patch).await?;
    context.volumes.absorb(changed);
    Ok(())
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
        Ok(changed) => context.attachments.absorb(changed),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
