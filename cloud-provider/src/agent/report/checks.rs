//! Whether the work of this node is up, beyond units that are active. Each check says what is missing.

use std::{path::Path, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};

use crate::agent::{
    api::{ApiServer, innermost},
    config::{NodeConfig, Role},
};

/// The Lease of the cloud controller manager.
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/cloud-controller-manager";

/// What a Node carries until the cloud controller manager knows its server.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// All checks of a role, in order.
pub(super) async fn all(config: &NodeConfig, root: &Path) -> Result<(), String> {
    match config.role {
        Role::Master => master(root).await,
        Role::Worker => worker(config, root).await,
    }
}

async fn master(root: &Path) -> Result<(), String> {
    let api = connect(root, "etc/kubernetes/admin.conf")?;
    api.ready().await.map_err(|error| error.to_string())?;
    let lease: Lease =
        api.get(LEASE).await.map_err(|error| format!("no cloud controller manager leads yet: {error}"))?;
    leads(&lease)
}

fn leads(lease: &Lease) -> Result<(), String> {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    if holder.is_empty() { Err("no cloud controller manager leads yet".into()) } else { Ok(()) }
}

async fn worker(config: &NodeConfig, root: &Path) -> Result<(), String> {
    healthy("kubelet", "http://127.0.0.1:10248/healthz").await?;
    healthy("kube-proxy", "http://127.0.0.1:10256/healthz").await?;
    let api = connect(root, "etc/kubernetes/node-agent.conf")?;
    let node: Node = api
        .get(&format!("/api/v1/nodes/{}", config.name))
        .await
        .map_err(|error| format!("the Node {} cannot be read: {error}", config.name))?;
    usable(&node)
}

fn usable(node: &Node) -> Result<(), String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    match ready {
        Some(condition) if condition.status == "True" => {}
        Some(condition) => {
            return Err(format!(
                "the Node is not Ready: {}",
                condition.message.as_deref().unwrap_or("no reason")
            ));
        }
        None => return Err("the Node has no Ready condition yet".into()),
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    if taints.into_iter().flatten().any(|taint| taint.key == UNINITIALIZED) {
        return Err(format!(
            "the cloud controller manager has not initialised the Node (taint {UNINITIALIZED})"
        ));
    }
    Ok(())
}

fn connect(root: &Path, kubeconfig: &str) -> Result<ApiServer, String> {
    ApiServer::from_kubeconfig(&root.join(kubeconfig)).map_err(|error| error.to_string())
}

async fn healthy(program: &str, url: &str) -> Result<(), String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(3))
        .build()
        .map_err(|error| innermost(&error))?;
    match client.get(url).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("{program} is not healthy: {}", answer.status())),
        Err(error) => Err(format!("{program} does not answer at {url}: {}", innermost(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: serde_json::Value, taint: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "w"},
            "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]},
            "status": {"conditions": status},
        }))
        .unwrap()
    }

    #[test]
    fn a_node_is_usable_when_it_is_ready_and_known_to_the_cloud() {
        let ready = serde_json::json!([{"type": "Ready", "status": "True"}]);
        let not = serde_json::json!([{"type": "Ready", "status": "False", "message": "cni plugin not initialized"}]);
        assert_eq!(usable(&node(ready.clone(), "other")), Ok(()));
        for (node, word) in [
            (node(not, "other"), "cni plugin not initialized"),
            (node(serde_json::json!([]), "other"), "no Ready condition"),
            (node(ready, UNINITIALIZED), UNINITIALIZED),
        ] {
            let missing = usable(&node).unwrap_err();
            assert!(missing.contains(word), "{missing}");
        }
    }

    #[test]
    fn somebody_must_hold_the_lease() {
        let lease = |holder: &str| {
            serde_json::from_value(serde_json::json!({"spec": {"holderIdentity": holder}})).unwrap()
        };
        assert!(leads(&lease("m0_1")).is_ok());
        assert!(leads(&lease("")).is_err());
    }
}
