//! Steps that are taken for a Node.

use anyhow::{Context as _, Result, ensure};
use scenarios::wait_for;
use serde_json::{Value, json};

use crate::{PATIENCE, Stage, WORKER};

/// A server that is no node of the cluster, and a Node without a kubelet.
const NAME: &str = "kill";

/// No server has it.
const NO_SERVER: &str = "00000000-0000-0000-0000-000000000001";

const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// How they come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Somebody else has taken the address pairs off a node's port.
    PairsLost,
    /// Somebody else has written other addresses to a Node.
    Misaddressed,
    /// kubelet says that it is new.
    New,
    /// The server of a Node that is not ready is switched off.
    ServerOff,
    /// It is ready again.
    Back,
    /// The server of a Node is gone.
    ServerGone,
}

pub(crate) fn prepare(stage: &Stage<'_>, way: Way) -> Result<()> {
    if !matches!(way, Way::ServerOff | Way::Back) || server(stage)?.is_some() {
        return Ok(());
    }
    let like_a_node = ["--image", "ake-node", "--flavor", "m1.node", "--network", "provider", NAME];
    stage.tenant.openstack(&[["server", "create", "--wait"].as_slice(), &like_a_node].concat())?;
    stage.tenant.openstack(&["server", "stop", NAME])?;
    wait_for("a server that is off", PATIENCE, || {
        Ok(server(stage)?.filter(|server| server["status"] == "SHUTOFF").map(drop))
    })
}

pub(crate) fn provoke(stage: &Stage<'_>, way: Way) -> Result<()> {
    match way {
        Way::PairsLost => {
            let port = worker_port(stage)?;
            let path = format!("/v1/clusters/{}/node-ports/{port}?asker=controller", stage.cluster.id);
            let said = stage.tenant.api()?.call("DELETE", "ake", &path, None)?;
            ensure!(said.granted(), "{}: {}", said.status, said.body);
            Ok(())
        }
        Way::Misaddressed => {
            let wrong = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.250"}]}});
            stage.kubectl(&["patch", "node", WORKER, "--subresource=status", "-p", &wrong.to_string()])
        }
        Way::New => stage.kubectl(&["taint", "node", WORKER, &format!("{UNINITIALIZED}=true:NoSchedule")]),
        Way::ServerOff => stage.cluster.apply(&node(&off(stage)?, false).to_string()),
        Way::Back => {
            stage.cluster.apply(&node(&off(stage)?, true).to_string())?;
            let ready =
                json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Test"}]}});
            stage.kubectl(&["patch", "node", NAME, "--subresource=status", "-p", &ready.to_string()])
        }
        Way::ServerGone => stage.cluster.apply(&node(NO_SERVER, false).to_string()),
    }
}

pub(crate) fn is_in_order(stage: &Stage<'_>, way: Way) -> Result<bool> {
    match way {
        Way::PairsLost => {
            let state = stage.state()?;
            let pairs = state["node_ports"][worker_port(stage)?]["pairs"].as_array().map_or(0, Vec::len);
            Ok(pairs >= 2)
        }
        Way::Misaddressed => {
            let node = stage.cluster.get(&["node", WORKER])?;
            let addresses = node["status"]["addresses"].to_string();
            Ok(addresses.contains("\"192.168.77.") && !addresses.contains("192.0.2.250"))
        }
        Way::New => Ok(!has_taint(stage, WORKER, UNINITIALIZED)?),
        Way::ServerOff => has_taint(stage, NAME, SHUTDOWN),
        Way::Back => Ok(!has_taint(stage, NAME, SHUTDOWN)?),
        Way::ServerGone => Ok(stage.find("node", NAME)?.is_none()),
    }
}

pub(crate) fn clear(stage: &Stage<'_>, way: Way) -> Result<()> {
    match way {
        Way::ServerOff | Way::Back | Way::ServerGone => {
            stage.kubectl(&["delete", "node", NAME, "--ignore-not-found"])
        }
        Way::PairsLost | Way::Misaddressed | Way::New => Ok(()),
    }
}

/// Ends the server that is off, once all of it is over.
pub(crate) fn leave(stage: &Stage<'_>) -> Result<()> {
    if server(stage)?.is_some() {
        stage.tenant.openstack(&["server", "delete", "--wait", NAME])?;
    }
    Ok(())
}

/// The id of the server that is off.
fn off(stage: &Stage<'_>) -> Result<String> {
    let server = server(stage)?.context("a server that is off")?;
    Ok(server["id"].as_str().context("a server without an id")?.to_owned())
}

fn server(stage: &Stage<'_>) -> Result<Option<Value>> {
    let servers = stage.tenant.api()?.get("compute", "/servers/detail")?;
    let all = servers["servers"].as_array().context("servers")?;
    Ok(all.iter().find(|server| server["name"] == NAME).cloned())
}

fn worker_port(stage: &Stage<'_>) -> Result<String> {
    let ports = stage.tenant.api()?.get("network", "/v2.0/ports")?;
    let node = stage.cluster.get(&["node", WORKER])?;
    let id =
        node["spec"]["providerID"].as_str().and_then(|id| id.rsplit('/').next()).context("providerID")?;
    let all = ports["ports"].as_array().context("ports")?;
    let found = all.iter().find(|port| port["device_id"] == id);
    Ok(found.and_then(|port| port["id"].as_str()).context("the worker's port")?.to_owned())
}

fn has_taint(stage: &Stage<'_>, name: &str, key: &str) -> Result<bool> {
    let node = stage.find("node", name)?.with_context(|| format!("no Node {name}"))?;
    Ok(node["spec"]["taints"].as_array().into_iter().flatten().any(|taint| taint["key"] == key))
}

/// A Node without a kubelet, of a server.
fn node(server: &str, is_off: bool) -> Value {
    let taint = json!({"key": SHUTDOWN, "effect": "NoSchedule"});
    let taints = if is_off { vec![taint] } else { vec![] };
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME},
           "spec": {"providerID": format!("openstack:///{server}"), "taints": taints}})
}
