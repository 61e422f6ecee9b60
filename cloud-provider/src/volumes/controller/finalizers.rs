//! Finalizers of a PersistentVolume, which others write as well.

use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::json;

use super::{Context, Error};

/// How often somebody else's write may come in between.
const TRIES: usize = 5;

/// Changes the finalizers of what the object is now. An object that is gone, or another one than `uid` by now,
/// is left alone.
pub(super) async fn change_finalizers(
    context: &Context,
    name: &str,
    uid: Option<&str>,
    change: impl Fn(&mut Vec<String>),
) -> Result<(), Error> {
    for tries in 1.. {
        let Some(object) = context.cluster.get::<PersistentVolume>(None, name).await? else { return Ok(()) };
        if uid.is_some() && object.metadata.uid.as_deref() != uid {
            return Ok(());
        }
        let before = object.metadata.finalizers.unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        let patch =
            json!({"metadata": {"resourceVersion": object.metadata.resource_version, "finalizers": after}});
        match context.cluster.merge::<PersistentVolume>(None, name, &patch).await {
            Ok(changed) => {
                // One that is going may be gone: the watch has the last word.
                if changed.metadata.deletion_timestamp.is_none() {
                    context.volumes.absorb(changed);
                }
                return Ok(());
            }
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_conflict() && tries < TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
