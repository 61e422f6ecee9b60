//! Carries out a step.

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use super::{
    super::{Context, Error, view::PersistentView},
    plan::{NODE_PENDING, Step},
};
use crate::{
    cluster::Key,
    steps::{self, Kind},
};

pub(super) async fn apply(
    context: &Context,
    key: &Key,
    name: &str,
    volume: &PersistentView,
    step: &Step,
) -> Result<(), Error> {
    match step {
        Step::Grow { gib } => {
            steps::take(Kind::GrowVolume, context.cloud.grow(&volume.handle, *gib)).await?;
        }
        Step::WriteCapacity { gib } => {
            let patch = json!({"spec": {"capacity": {"storage": format!("{gib}Gi")}}});
            let told = context.cluster.merge::<PersistentVolume>(None, name, &patch);
            context.volumes.absorb(steps::take(Kind::SetCapacity, told).await?);
        }
        Step::HandToNode => steps::take(Kind::HandToNode, hand_to_node(context, key)).await?,
    }
    Ok(())
}

/// Writes the condition and the status that kubelet acts on.
async fn hand_to_node(context: &Context, key: &Key) -> Result<(), Error> {
    let Some(claim) = context.cluster.get::<PersistentVolumeClaim>(key.namespace(), &key.name).await? else {
        return Ok(());
    };
    let mut conditions = claim.status.and_then(|status| status.conditions).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != NODE_PENDING && condition.type_ != "Resizing");
    conditions.push(PersistentVolumeClaimCondition {
        type_: NODE_PENDING.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(Timestamp::now())),
        message: Some(
            "Waiting for user to (re-)start a pod to finish file system resize of volume on node.".to_owned(),
        ),
        ..PersistentVolumeClaimCondition::default()
    });
    let requested = claim.spec.and_then(|spec| spec.resources).and_then(|r| r.requests);
    let storage = requested.and_then(|all| all.get("storage").cloned());
    let patch = json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "conditions": conditions,
            "allocatedResources": {"storage": storage},
            "allocatedResourceStatuses": {"storage": "NodeResizePending"},
        }
    });
    let changed =
        context.cluster.merge_status::<PersistentVolumeClaim>(key.namespace(), &key.name, &patch).await?;
    context.claims.absorb(changed);
    Ok(())
}
