//! Carries out a step.

use super::{
    super::{
        Context, Error,
        finalizers::change_finalizers,
        view::{ATTACHER_FINALIZER, PROVISIONER_FINALIZER, PersistentView},
    },
    plan::Step,
};
use crate::cluster::Key;
use k8s_openapi::api::core::v1::PersistentVolume;

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
        Step::DropFinalizers => {
            let gone = [ATTACHER_FINALIZER, PROVISIONER_FINALIZER];
            change_finalizers(context, &key.name, Some(&volume.uid), |all| {
                all.retain(|f| !gone.contains(&f.as_str()))
            })
            .await
        }
        Step::DropAttacherFinalizer => {
            change_finalizers(context, &key.name, Some(&volume.uid), |all| {
                all.retain(|f| f != ATTACHER_FINALIZER)
            })
            .await
        }
    }
}
