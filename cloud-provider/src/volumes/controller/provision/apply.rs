//! Makes a claim's volume in Cinder and its PersistentVolume.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
        PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use openstack_client::volumes::{NewVolume, Volume};

use super::{
    super::{
        Context, Error, cloud,
        view::{ClaimView, PROVISIONED_BY, PROVISIONER_FINALIZER},
    },
    plan::Wanted,
    volume_name,
};
use crate::{
    cluster::Key,
    steps::{self, Kind},
    volumes::{DRIVER, ZONE_KEY},
};

/// Makes both. Each may be there from an earlier try.
pub(super) async fn provision(
    context: &Context,
    key: &Key,
    claim: &ClaimView,
    wanted: &Wanted,
) -> Result<(), Error> {
    let new = NewVolume {
        name: wanted.name.clone(),
        size: wanted.gib,
        volume_type: wanted.volume_type.clone(),
        availability_zone: wanted.zone.clone(),
        metadata: cloud::metadata(key, &wanted.name, &wanted.reclaim_policy),
    };
    let volume = steps::take(Kind::CreateVolume, context.cloud.create(new)).await?;
    let object = persistent_volume(key, claim, wanted, &volume, context.cloud.cluster());
    let told = async {
        match context.cluster.create(&object).await {
            Ok(made) => context.volumes.absorb(made),
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(Error::from(error)),
        }
        Ok(())
    };
    steps::take(Kind::CreatePersistentVolume, told).await
}

/// The claim has gone: so does the volume that was begun for it, unless it has become a PersistentVolume.
pub(super) async fn abandon(context: &Context, uid: &str) -> Result<(), Error> {
    let name = volume_name(uid);
    if context.cluster.get::<PersistentVolume>(None, &name).await?.is_some() {
        return Ok(());
    }
    if let Some(volume) = context.cloud.find(&name).await? {
        tracing::info!(volume = volume.id, name, "its claim has gone before it was made");
        steps::take(Kind::DeleteVolume, context.cloud.delete(&volume.id)).await?;
    }
    Ok(())
}

/// The object, as external-provisioner writes it.
fn persistent_volume(
    key: &Key,
    claim: &ClaimView,
    wanted: &Wanted,
    volume: &Volume,
    cluster: &str,
) -> PersistentVolume {
    let deletes = wanted.reclaim_policy == "Delete";
    let annotations = [
        (PROVISIONED_BY, DRIVER),
        // Always there, empty without secrets.
        ("volume.kubernetes.io/provisioner-deletion-secret-name", ""),
        ("volume.kubernetes.io/provisioner-deletion-secret-namespace", ""),
    ];
    let text = |value: &str| Some(value.to_owned());
    let affinity = wanted.zone.as_ref().filter(|_| wanted.bound_to_zone).map(|zone| {
        // Cinder says where the volume really is.
        let zone =
            volume.availability_zone.clone().filter(|zone| !zone.is_empty()).unwrap_or_else(|| zone.clone());
        let requirement = NodeSelectorRequirement {
            key: ZONE_KEY.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![zone]),
        };
        let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
        VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
    });
    PersistentVolume {
        metadata: ObjectMeta {
            name: text(&wanted.name),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            finalizers: deletes.then(|| vec![PROVISIONER_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(claim.access_modes.clone()),
            capacity: Some(BTreeMap::from([("storage".to_owned(), Quantity(format!("{}Gi", volume.size)))])),
            claim_ref: Some(ObjectReference {
                kind: text("PersistentVolumeClaim"),
                api_version: text("v1"),
                namespace: text(&key.namespace),
                name: text(&key.name),
                uid: text(&claim.uid),
                resource_version: text(&claim.version),
                ..ObjectReference::default()
            }),
            csi: Some(CSIPersistentVolumeSource {
                driver: DRIVER.to_owned(),
                volume_handle: volume.id.clone(),
                fs_type: wanted.file_system.clone(),
                volume_attributes: Some(BTreeMap::from([(
                    "storage.kubernetes.io/csiProvisionerIdentity".to_owned(),
                    format!("{cluster}-{DRIVER}"),
                )])),
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: (!wanted.mount_options.is_empty()).then(|| wanted.mount_options.clone()),
            node_affinity: affinity,
            persistent_volume_reclaim_policy: text(&wanted.reclaim_policy),
            storage_class_name: claim.class.clone(),
            volume_mode: text(if claim.block { "Block" } else { "Filesystem" }),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_external_provisioners() {
        let claim = ClaimView {
            uid: "u1".into(),
            version: "42".into(),
            class: Some("cinder".into()),
            access_modes: vec!["ReadWriteOnce".into()],
            ..ClaimView::default()
        };
        let wanted = Wanted {
            name: "pvc-u1".into(),
            gib: 1,
            volume_type: None,
            zone: Some("nova".into()),
            bound_to_zone: true,
            file_system: Some("ext4".into()),
            reclaim_policy: "Delete".into(),
            mount_options: vec![],
        };
        let volume: Volume = serde_json::from_value(serde_json::json!(
            {"id": "v1", "size": 1, "status": "available", "availability_zone": "nova"}
        ))
        .unwrap();
        let object = persistent_volume(&Key::new("default", "data"), &claim, &wanted, &volume, "c1");
        assert_eq!(
            serde_json::to_value(object).unwrap(),
            serde_json::json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {
                    "name": "pvc-u1",
                    "annotations": {
                        "pv.kubernetes.io/provisioned-by": "cinder.csi.openstack.org",
                        "volume.kubernetes.io/provisioner-deletion-secret-name": "",
                        "volume.kubernetes.io/provisioner-deletion-secret-namespace": ""
                    },
                    "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]
                },
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "1Gi"},
                    "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default",
                                 "name": "data", "uid": "u1", "resourceVersion": "42"},
                    "csi": {"driver": "cinder.csi.openstack.org", "volumeHandle": "v1", "fsType": "ext4",
                            "volumeAttributes": {
                                "storage.kubernetes.io/csiProvisionerIdentity": "c1-cinder.csi.openstack.org"}},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "topology.cinder.csi.openstack.org/zone", "operator": "In", "values": ["nova"]}]}]}},
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": "cinder",
                    "volumeMode": "Filesystem"
                }
            })
        );
    }
}
