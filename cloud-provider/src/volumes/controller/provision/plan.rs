//! What a claim gets.

use super::{
    super::{
        quantity,
        view::{ClaimView, ClassView, DriverView},
    },
    volume_name,
};
use crate::cluster::Key;

/// The node that a claim's first pod was scheduled to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    /// Our driver there; none until kubelet has registered it.
    pub(super) driver: Option<DriverView>,
    /// The zone that kubelet wrote to it.
    pub(super) zone: Option<String>,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of the volume, in Kubernetes and in Cinder.
    pub(super) name: String,
    pub(super) gib: u64,
    pub(super) volume_type: Option<String>,
    /// The zone to make it in.
    pub(super) zone: Option<String>,
    /// Whether only nodes of that zone can reach it.
    pub(super) bound_to_zone: bool,
    /// None for a raw disk.
    pub(super) file_system: Option<String>,
    pub(super) reclaim_policy: String,
    pub(super) mount_options: Vec<String>,
}

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It has a volume, is going, or waits for a pod.
    Nothing,
    /// Something is not there yet.
    Wait(String),
    /// It asks for what cannot be had.
    Refuse(String),
    /// It gets a volume.
    Provision(Wanted),
}

/// Decides about a claim. `exists`: its PersistentVolume is there. `ignore_zones`: as `ignore-volume-az`.
pub(super) fn plan(
    key: &Key,
    claim: &ClaimView,
    class: Option<&ClassView>,
    node: Option<&Node>,
    exists: bool,
    ignore_zones: bool,
) -> Decision {
    if !claim.pending || claim.deleting || claim.volume.is_some() || exists {
        return Decision::Nothing;
    }
    let Some(name) = &claim.class else { return Decision::Nothing };
    let Some(class) = class else {
        return Decision::Wait(format!("there is no StorageClass {name} of this driver"));
    };
    if class.waits_for_consumer && node.is_none() {
        // The scheduler's annotation will wake it.
        return Decision::Nothing;
    }
    if let Err(refusal) = check(claim, class) {
        return Decision::Refuse(format!("claim {key}, StorageClass {name}: {refusal}"));
    }
    let (zone, bound_to_zone) = match zone(class, node, ignore_zones) {
        Ok(zone) => zone,
        Err(reason) => return Decision::Wait(reason),
    };
    let parameter = |name: &str| class.parameters.get(name).filter(|value| !value.is_empty()).cloned();
    Decision::Provision(Wanted {
        name: volume_name(&claim.uid),
        gib: quantity::gib(claim.requested),
        volume_type: parameter("type"),
        zone,
        bound_to_zone,
        file_system: (!claim.block).then(|| file_system(class).to_owned()),
        reclaim_policy: class.reclaim_policy.clone(),
        mount_options: class.mount_options.clone(),
    })
}

fn file_system(class: &ClassView) -> &str {
    class
        .parameters
        .get("csi.storage.k8s.io/fstype")
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .unwrap_or("ext4")
}

fn check(claim: &ClaimView, class: &ClassView) -> Result<(), String> {
    if let Some(source) = &claim.source {
        return Err(format!("spec.dataSource = {source}: expected none, volumes begin empty"));
    }
    if claim.requested == 0 {
        return Err("spec.resources.requests.storage: expected a size, as 1Gi".to_owned());
    }
    if let Some(mode) =
        claim.access_modes.iter().find(|mode| !["ReadWriteOnce", "ReadWriteOncePod"].contains(&mode.as_str()))
    {
        return Err(format!("spec.accessModes = {mode}: expected ReadWriteOnce or ReadWriteOncePod"));
    }
    let kind = file_system(class);
    if !claim.block && !["ext4", "xfs"].contains(&kind) {
        return Err(format!("parameters csi.storage.k8s.io/fstype = {kind:?}: expected ext4 or xfs"));
    }
    let unknown = class
        .parameters
        .keys()
        .find(|key| key.starts_with("csi.storage.k8s.io/") && *key != "csi.storage.k8s.io/fstype");
    match unknown {
        Some(key) => Err(format!("parameters {key}: expected no csi.storage.k8s.io/ key but fstype")),
        None => Ok(()),
    }
}

/// The zone to make a volume in, and whether it can be reached from there only.
fn zone(class: &ClassView, node: Option<&Node>, ignore: bool) -> Result<(Option<String>, bool), String> {
    let of_class = class.parameters.get("availability").filter(|zone| !zone.is_empty()).cloned();
    if ignore {
        return Ok((of_class, false));
    }
    let of_node = match node {
        None => None,
        Some(Node { name, driver: None, .. }) => {
            return Err(format!("node {name} has not registered the driver yet"));
        }
        Some(Node { driver: Some(driver), .. }) if !driver.has_zone => None,
        Some(Node { name, zone: None, .. }) => return Err(format!("node {name} has no zone yet")),
        Some(Node { zone, .. }) => zone.clone(),
    };
    let zone = of_class.or(of_node).or_else(|| class.zones.first().cloned());
    let bound = zone.is_some();
    Ok((zone, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("default", "data")
    }

    fn claim() -> ClaimView {
        ClaimView {
            uid: "u1".into(),
            pending: true,
            class: Some("cinder".into()),
            selected_node: Some("w0".into()),
            requested: 3 << 29,
            access_modes: vec!["ReadWriteOnce".into()],
            ..ClaimView::default()
        }
    }

    fn class() -> ClassView {
        ClassView { reclaim_policy: "Delete".into(), waits_for_consumer: true, ..ClassView::default() }
    }

    fn node() -> Node {
        let driver = DriverView { node_id: "s0".into(), has_zone: true };
        Node { name: "w0".into(), driver: Some(driver), zone: Some("nova".into()) }
    }

    fn decide(claim: &ClaimView, class: &ClassView, node: Option<&Node>) -> Decision {
        plan(&key(), claim, Some(class), node, false, false)
    }

    fn wanted(decision: Decision) -> Wanted {
        match decision {
            Decision::Provision(wanted) => wanted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_claim_with_a_node_gets_a_volume_in_its_zone() {
        let class = ClassView {
            parameters: [
                ("type".to_owned(), "fast".to_owned()),
                ("csi.storage.k8s.io/fstype".to_owned(), "xfs".to_owned()),
            ]
            .into(),
            mount_options: vec!["noatime".into()],
            ..class()
        };
        assert_eq!(
            wanted(decide(&claim(), &class, Some(&node()))),
            Wanted {
                name: "pvc-u1".into(),
                gib: 2,
                volume_type: Some("fast".into()),
                zone: Some("nova".into()),
                bound_to_zone: true,
                file_system: Some("xfs".into()),
                reclaim_policy: "Delete".into(),
                mount_options: vec!["noatime".into()],
            }
        );
    }

    #[test]
    fn nothing_to_do() {
        let waiting = decide(&claim(), &class(), None);
        assert_eq!(waiting, Decision::Nothing, "no pod has been scheduled");
        for (why, changed) in [
            ("bound", ClaimView { pending: false, ..claim() }),
            ("going", ClaimView { deleting: true, ..claim() }),
            ("picked a volume", ClaimView { volume: Some("pv".into()), ..claim() }),
            ("without class", ClaimView { class: None, ..claim() }),
        ] {
            assert_eq!(decide(&changed, &class(), Some(&node())), Decision::Nothing, "{why}");
        }
        assert_eq!(
            plan(&key(), &claim(), Some(&class()), Some(&node()), true, false),
            Decision::Nothing,
            "has one"
        );
    }

    #[test]
    fn not_yet() {
        assert!(matches!(plan(&key(), &claim(), None, Some(&node()), false, false), Decision::Wait(_)));
        let unregistered = Node { driver: None, ..node() };
        let without_zone = Node { zone: None, ..node() };
        for (node, reason) in [
            (unregistered, "node w0 has not registered the driver yet"),
            (without_zone, "node w0 has no zone yet"),
        ] {
            assert_eq!(decide(&claim(), &class(), Some(&node)), Decision::Wait(reason.into()));
        }
    }

    #[test]
    fn zones() {
        let immediate = ClassView { waits_for_consumer: false, ..class() };
        let with = |parameters: &[(&str, &str)], zones: &[&str]| ClassView {
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
            ..immediate.clone()
        };
        let plain =
            Node { driver: Some(DriverView { node_id: "s".into(), has_zone: false }), zone: None, ..node() };
        for (class, node, ignore, zone, bound) in [
            (immediate.clone(), None, false, None, false),
            (with(&[], &["az2"]), None, false, Some("az2"), true),
            (with(&[("availability", "az1")], &["az2"]), None, false, Some("az1"), true),
            (with(&[("availability", "az1")], &[]), Some(node()), true, Some("az1"), false),
            (immediate.clone(), Some(node()), true, None, false),
            (immediate.clone(), Some(plain), false, None, false),
        ] {
            let wanted = wanted(plan(&key(), &claim(), Some(&class), node.as_ref(), false, ignore));
            assert_eq!((wanted.zone.as_deref(), wanted.bound_to_zone), (zone, bound), "{class:?} {ignore}");
        }
    }

    #[test]
    fn refusals_name_field_value_and_expectation() {
        let parameter = |key: &str, value: &str| ClassView {
            parameters: [(key.to_owned(), value.to_owned())].into(),
            ..class()
        };
        for (claim, class, reason) in [
            (
                ClaimView { access_modes: vec!["ReadWriteMany".into()], ..claim() },
                class(),
                "spec.accessModes = ReadWriteMany: expected ReadWriteOnce or ReadWriteOncePod",
            ),
            (
                ClaimView { source: Some("VolumeSnapshot s".into()), ..claim() },
                class(),
                "spec.dataSource = VolumeSnapshot s: expected none, volumes begin empty",
            ),
            (
                ClaimView { requested: 0, ..claim() },
                class(),
                "spec.resources.requests.storage: expected a size, as 1Gi",
            ),
            (
                claim(),
                parameter("csi.storage.k8s.io/fstype", "ntfs"),
                "parameters csi.storage.k8s.io/fstype = \"ntfs\": expected ext4 or xfs",
            ),
            (
                claim(),
                parameter("csi.storage.k8s.io/node-stage-secret-name", "x"),
                "parameters csi.storage.k8s.io/node-stage-secret-name: expected no csi.storage.k8s.io/ key but fstype",
            ),
        ] {
            let expected = format!("claim default/data, StorageClass cinder: {reason}");
            assert_eq!(decide(&claim, &class, Some(&node())), Decision::Refuse(expected));
        }
        let disk = ClaimView { block: true, ..claim() };
        assert_eq!(wanted(decide(&disk, &class(), Some(&node()))).file_system, None);
    }
}
