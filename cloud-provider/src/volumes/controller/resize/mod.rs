//! Claims that ask for more get it, as external-resizer gives it.

mod apply;
mod plan;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{COMPONENT, Context, Error};
use crate::cluster::{Key, Next, Subject};
use plan::Step;

/// Works one claim off; `None` if it asks for nothing more than it has.
pub(super) async fn work(context: &Context, key: &Key) -> Result<Option<Next>, Error> {
    let Some(claim) = context.claims.get(key) else { return Ok(None) };
    let Some(name) = claim.volume.as_ref().filter(|_| claim.bound) else { return Ok(None) };
    let Some(volume) = context.volumes.get(&Key::whole(name.as_str())) else { return Ok(None) };
    let steps = plan::plan(&claim, &volume);
    if steps.is_empty() {
        return Ok(None);
    }
    let subject = || Subject::new::<PersistentVolumeClaim>(key.clone(), claim.uid.clone());
    for step in steps {
        if matches!(step, Step::Grow { .. }) {
            let message = format!("External resizer is resizing volume {name}");
            context.recorder.normal(COMPONENT, subject(), "Resizing", message);
        }
        if let Err(error) = apply::apply(context, key, name, &volume, &step).await {
            if error.is_news() {
                let message = format!("resize volume {name}: {error}");
                context.recorder.warn(COMPONENT, subject(), "VolumeResizeFailed", message);
            }
            return Err(error);
        }
        if step == Step::HandToNode {
            let message = "Require file system resize of volume on node";
            context.recorder.normal(COMPONENT, subject(), "FileSystemResizeRequired", message);
        }
    }
    Ok(Some(Next::Done))
}
