//! Writes to Nodes.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::{
    plan::Step,
    view::{NodeView, SHUTDOWN, UNINITIALIZED},
};
use crate::cluster::{Cluster, Error, Index};

/// How often a write that met another is tried again.
const TRIES: u32 = 5;

/// Takes one step.
pub async fn apply(cluster: &Cluster, nodes: &Index<Node, NodeView>, step: &Step) -> Result<(), Error> {
    match step {
        Step::SetAddresses { node, addresses } => {
            let addresses: Vec<Value> =
                addresses.iter().map(|a| json!({ "type": a.kind, "address": a.address })).collect();
            let patch = json!({ "status": { "addresses": addresses } });
            nodes.absorb_and_tell(cluster.merge_status::<Node>(None, node, &patch).await?);
            Ok(())
        }
        Step::Initialize { node, provider_id, labels } => {
            rewrite(cluster, nodes, node, |found| {
                let taints = taints_without(found, UNINITIALIZED);
                let mut spec = json!({ "taints": taints });
                if found
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.provider_id.as_deref())
                    .unwrap_or_default()
                    .is_empty()
                {
                    spec["providerID"] = json!(provider_id);
                }
                json!({ "metadata": { "labels": labels }, "spec": spec })
            })
            .await
        }
        Step::MarkShutdown { node } => {
            rewrite(cluster, nodes, node, |found| {
                let mut taints = taints_without(found, SHUTDOWN);
                taints.push(json!({ "key": SHUTDOWN, "effect": "NoSchedule" }));
                json!({ "spec": { "taints": taints } })
            })
            .await
        }
        Step::UnmarkShutdown { node } => {
            let unmarked = |found: &Node| json!({ "spec": { "taints": taints_without(found, SHUTDOWN) } });
            rewrite(cluster, nodes, node, unmarked).await
        }
        Step::Delete { node, uid } => cluster.delete::<Node>(None, node, Some(uid)).await,
    }
}

fn taints_without(node: &Node, key: &str) -> Vec<Value> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().filter(|taint| taint.key != key).map(|taint| json!(taint)).collect()
}

/// Changes a Node as it stands now. Taints are one list, so the write carries the version that was read.
async fn rewrite(
    cluster: &Cluster,
    nodes: &Index<Node, NodeView>,
    name: &str,
    change: impl Fn(&Node) -> Value,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let Some(found) = cluster.get::<Node>(None, name).await? else { return Ok(()) };
        let mut patch = change(&found);
        patch["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
        match cluster.merge::<Node>(None, name, &patch).await {
            Ok(written) => {
                nodes.absorb_and_tell(written);
                return Ok(());
            }
            Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}
