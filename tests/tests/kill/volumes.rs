//! Steps that are taken for a volume. Nothing runs on the node: what the scheduler, the attach controller and kubelet
//! would write, the test writes.

use anyhow::{Context as _, Result};
use scenarios::wait_for;
use serde_json::{Value, json};

use crate::{PATIENCE, Stage, WORKER};

const NAME: &str = "kill";
const DRIVER: &str = "cinder.csi.openstack.org";

/// How they come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A claim is made, whose pod was given a node.
    Claimed,
    /// The volume shall be attached.
    Attached,
    /// It shall not be any more.
    Detached,
    /// The claim asks for more.
    Grown,
    /// The claim goes.
    Released,
    /// A retained PersistentVolume is deleted.
    ObjectDeleted,
}

pub(crate) fn prepare(stage: &Stage<'_>, way: Way) -> Result<()> {
    let settled =
        |way| wait_for(&format!("{way:?}"), PATIENCE, || Ok(is_in_order(stage, way)?.then_some(())));
    if matches!(way, Way::Attached | Way::Detached | Way::Grown | Way::Released) {
        claim(stage)?;
        settled(Way::Claimed)?;
    }
    if way == Way::Detached {
        attach(stage)?;
        settled(Way::Attached)?;
    }
    Ok(())
}

pub(crate) fn provoke(stage: &Stage<'_>, way: Way) -> Result<()> {
    match way {
        Way::Claimed => claim(stage),
        Way::Attached => attach(stage),
        Way::Detached => stage.kubectl(&["delete", "volumeattachment", NAME, "--wait=false"]),
        Way::Grown => {
            let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
            stage.kubectl(&["patch", "persistentvolumeclaim", NAME, "-p", &larger.to_string()])
        }
        Way::Released => stage.kubectl(&["delete", "persistentvolumeclaim", NAME, "--wait=false"]),
        Way::ObjectDeleted => {
            let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": NAME, "finalizers": ["external-attacher/cinder-csi-openstack-org"]},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": DRIVER, "volumeHandle": "none"}}});
            stage.cluster.apply(&volume.to_string())?;
            stage.kubectl(&["delete", "persistentvolume", NAME, "--wait=false"])
        }
    }
}

pub(crate) fn is_in_order(stage: &Stage<'_>, way: Way) -> Result<bool> {
    let of_claim = || -> Result<(Value, Vec<Value>)> {
        let claim = stage.find("persistentvolumeclaim", NAME)?.context("no claim")?;
        let volumes = in_cinder(stage, claim["metadata"]["uid"].as_str().unwrap_or_default())?;
        Ok((claim, volumes))
    };
    match way {
        Way::Claimed => {
            let (claim, volumes) = of_claim()?;
            let object = object_of(stage, &claim)?;
            Ok(claim["status"]["phase"] == "Bound"
                && volumes.len() == 1
                && volumes[0]["status"] == "available"
                && object.is_some_and(|object| object["spec"]["csi"]["volumeHandle"] == volumes[0]["id"]))
        }
        Way::Attached => {
            let (_, volumes) = of_claim()?;
            let attachment = stage.find("volumeattachment", NAME)?.context("no VolumeAttachment")?;
            let at = volumes.first().and_then(|volume| volume["attachments"].as_array()).map_or(0, Vec::len);
            Ok(attachment["status"]["attached"] == true
                && attachment["metadata"]["finalizers"].as_array().map_or(0, Vec::len) == 1
                && volumes.len() == 1
                && volumes[0]["status"] == "in-use"
                && at == 1)
        }
        Way::Detached => {
            let (_, volumes) = of_claim()?;
            Ok(stage.find("volumeattachment", NAME)?.is_none()
                && volumes.len() == 1
                && volumes[0]["status"] == "available")
        }
        Way::Grown => {
            let (claim, volumes) = of_claim()?;
            let object = object_of(stage, &claim)?;
            let waits = claim["status"]["conditions"].to_string().matches("FileSystemResizePending").count();
            Ok(volumes.len() == 1
                && volumes[0]["size"] == 2
                && volumes[0]["status"] == "available"
                && object.is_some_and(|object| object["spec"]["capacity"]["storage"] == "2Gi")
                && waits == 1)
        }
        Way::Released => {
            let objects = stage.cluster.get(&["persistentvolumes"])?;
            Ok(stage.find("persistentvolumeclaim", NAME)?.is_none()
                && objects["items"].as_array().is_some_and(Vec::is_empty)
                && in_cinder(stage, "")?.is_empty())
        }
        Way::ObjectDeleted => Ok(stage.find("persistentvolume", NAME)?.is_none()),
    }
}

pub(crate) fn clear(stage: &Stage<'_>, way: Way) -> Result<()> {
    if way == Way::ObjectDeleted {
        return Ok(());
    }
    stage.kubectl(&["delete", "volumeattachment", NAME, "--ignore-not-found", "--timeout=60s"])?;
    stage.kubectl(&["delete", "persistentvolumeclaim", NAME, "--ignore-not-found", "--timeout=60s"])?;
    wait_for("nothing left of a volume", PATIENCE, || Ok(is_in_order(stage, Way::Released)?.then_some(())))
}

/// As the scheduler leaves it once it has a node for the pod.
fn claim(stage: &Stage<'_>) -> Result<()> {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME, "annotations": {"volume.kubernetes.io/selected-node": WORKER}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    stage.cluster.apply(&claim.to_string())
}

/// As the attach controller asks for it.
fn attach(stage: &Stage<'_>) -> Result<()> {
    let claim = stage.find("persistentvolumeclaim", NAME)?.context("no claim")?;
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": NAME},
        "spec": {"attacher": DRIVER, "nodeName": WORKER,
                 "source": {"persistentVolumeName": claim["spec"]["volumeName"]}}});
    stage.cluster.apply(&attachment.to_string())
}

fn object_of(stage: &Stage<'_>, claim: &Value) -> Result<Option<Value>> {
    match claim["spec"]["volumeName"].as_str() {
        Some(name) => stage.find("persistentvolume", name),
        None => Ok(None),
    }
}

/// The project's volumes of claims whose UID begins so.
fn in_cinder(stage: &Stage<'_>, uid: &str) -> Result<Vec<Value>> {
    let volumes = stage.tenant.api()?.get("block-storage", "/volumes/detail")?;
    let all = volumes["volumes"].as_array().context("volumes")?;
    let first = format!("pvc-{uid}");
    let is_theirs = |volume: &&Value| volume["name"].as_str().is_some_and(|name| name.starts_with(&first));
    Ok(all.iter().filter(is_theirs).cloned().collect())
}
