//! Released volumes go, and finalizers that hold nothing any more.

mod apply;
mod plan;

use k8s_openapi::api::core::v1::PersistentVolume;

use super::{COMPONENT, Context, Error};
use crate::cluster::{Key, Next, Subject};

/// Works one PersistentVolume off.
pub(super) async fn work(context: &Context, key: &Key) -> Result<Next, Error> {
    let Some(volume) = context.volumes.get(key) else { return Ok(Next::Done) };
    let attachments = context.attachments.all().iter().filter(|(_, a)| a.volume == key.name).count();
    for step in plan::plan(&volume, attachments) {
        tracing::info!(volume = %key, %step, "releasing");
        if let Err(error) = apply::apply(context, key, &volume, step).await {
            if error.is_news() {
                let subject = Subject::new::<PersistentVolume>(key.clone(), volume.uid.clone());
                context.recorder.warn(COMPONENT, subject, "VolumeFailedDelete", error.to_string());
            }
            return Err(error);
        }
    }
    Ok(Next::Done)
}
