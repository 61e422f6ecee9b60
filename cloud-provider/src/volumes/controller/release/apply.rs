//! Carries out a step.

use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::json;

use super::{
    super::{
        Context, Error,
        view::{ATTACHER_FINALIZER, PROVISIONER_FINALIZER, PersistentView},
    },
    plan::Step,
};
use crate::cluster::Key;

pub(super) async fn apply(
    context: &Context,
    key: &Key,
    volume: &PersistentView,
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::DeleteVolume => context.cloud.delete(&volume.handle).await.map_err(Error::from),
        Step::DeleteObject => {
            Ok(context.cluster.delete::<PersistentVolume>(None, &key.name, Some(&volume.uid)).await?)
        }
        Step::DropAttacherFinalizer => drop_finalizer(context, key, &volume.uid, ATTACHER_FINALIZER).await,
        Step::DropProvisionerFinalizer => {
            drop_finalizer(context, key, &volume.uid, PROVISIONER_FINALIZER).await
        }
    }
}

/// Takes one finalizer off what the object is now; gone already is success.
async fn drop_finalizer(context: &Context, key: &Key, uid: &str, finalizer: &str) -> Result<(), Error> {
    let Some(object) = context.cluster.get::<PersistentVolume>(None, &key.name).await? else { return Ok(()) };
    if object.metadata.uid.as_deref() != Some(uid) {
        return Ok(());
    }
    let before = object.metadata.finalizers.unwrap_or_default();
    let after: Vec<_> = before.iter().filter(|found| *found != finalizer).collect();
    if after.len() == before.len() {
        return Ok(());
    }
    let patch =
        json!({"metadata": {"resourceVersion": object.metadata.resource_version, "finalizers": after}});
    match context.cluster.merge::<PersistentVolume>(None, &key.name, &patch).await {
        Ok(changed) => context.volumes.absorb(changed),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
