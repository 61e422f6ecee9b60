//! Claims get volumes, as external-provisioner gives them.

mod apply;
mod plan;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{COMPONENT, Context, Error};
use crate::cluster::{Key, Next, Subject};
use plan::{Decision, Node};

/// How soon a claim is looked at again that waits for something which does not wake it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// UIDs of claims whose volume may have been begun: if such a claim goes before its volume is there, the volume
/// has to go as well.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<HashMap<Key, String>>);

impl Begun {
    fn note(&self, key: &Key, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), uid.to_owned());
    }

    fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn uid(&self, key: &Key) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

/// Name of a claim's volume, in Kubernetes and in Cinder.
fn volume_name(uid: &str) -> String {
    format!("pvc-{uid}")
}

/// Works one claim off.
pub(super) async fn work(context: &Context, key: &Key) -> Result<Next, Error> {
    let claim = context.claims.get(key);
    if let Some(uid) = context.begun.uid(key)
        && claim.as_ref().is_none_or(|claim| claim.deleting || claim.uid != uid)
    {
        apply::abandon(context, &uid).await?;
        context.begun.forget(key);
    }
    let Some(claim) = claim else { return Ok(Next::Done) };
    let class = claim.class.as_ref().and_then(|class| context.classes.get(&Key::whole(class.as_str())));
    let node = claim.selected_node.as_ref().map(|name| Node {
        name: name.clone(),
        driver: context.drivers.get(&Key::whole(name.as_str())).map(|driver| (*driver).clone()),
        zone: context.zones.get(&Key::whole(name.as_str())).and_then(|zone| (*zone).clone()),
    });
    let exists = context.volumes.get(&Key::whole(volume_name(&claim.uid))).is_some();
    let decision =
        plan::plan(key, &claim, class.as_deref(), node.as_ref(), exists, context.cloud.ignores_zones());
    let subject = || Subject::new::<PersistentVolumeClaim>(key.clone(), claim.uid.clone());
    match decision {
        Decision::Nothing => {
            context.begun.forget(key);
            Ok(Next::Done)
        }
        Decision::Wait(reason) => {
            tracing::debug!(claim = %key, reason, "not yet");
            Ok(Next::After(LOOK_AGAIN))
        }
        Decision::Refuse(reason) => {
            context.recorder.warn(COMPONENT, subject(), "ProvisioningFailed", reason);
            Ok(Next::Done)
        }
        Decision::Provision(wanted) => {
            context.begun.note(key, &claim.uid);
            let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
            context.recorder.normal(COMPONENT, subject(), "Provisioning", message);
            match apply::provision(context, key, &claim, &wanted).await {
                Ok(()) => {
                    let message = format!("Successfully provisioned volume {}", wanted.name);
                    context.recorder.normal(COMPONENT, subject(), "ProvisioningSucceeded", message);
                    context.begun.forget(key);
                    Ok(Next::Done)
                }
                Err(error) => {
                    let class = claim.class.as_deref().unwrap_or_default();
                    let message =
                        format!("failed to provision volume with StorageClass \"{class}\": {error}");
                    context.recorder.warn(COMPONENT, subject(), "ProvisioningFailed", message);
                    Err(error)
                }
            }
        }
    }
}
