//! What is kept of Services and EndpointSlices: only what a decision is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{Family, Protocol};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use crate::cluster::Key;

/// The finalizer of upstream's service controller.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// The `spec.loadBalancerClass` that is ours where no flag says otherwise.
pub const CLASS: &str = "ake.dev/load-balancer";

/// Which Services are ours by their class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The `spec.loadBalancerClass` that is ours.
    pub own: String,
    /// Whether those without a class are ours too.
    pub classless: bool,
}

impl Default for Classes {
    fn default() -> Self {
        Self { own: CLASS.to_owned(), classless: true }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortView {
    /// Its protocol; none if it is not one that we know.
    pub protocol: Option<Protocol>,
    /// Its protocol as it was written.
    pub protocol_text: String,
    /// Its number.
    pub port: u16,
}

/// An entry of a Service's `status.loadBalancer.ingress`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IngressView {
    /// The address.
    pub ip: Option<IpAddr>,
    /// Whether its mode is VIP, and it names nothing but an address.
    pub plain_vip: bool,
}

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceView {
    /// Its UID.
    pub uid: String,
    /// When it was created, in microseconds since 1970.
    pub created: i64,
    /// Its `spec.type`.
    pub kind: String,
    /// Whether its type and class ask for a load balancer of ours.
    pub wants: bool,
    /// Whether it carries our finalizer.
    pub finalizer: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its address families, the first one first.
    pub families: Vec<Family>,
    /// Its ports.
    pub ports: Vec<PortView>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<String>,
    /// `spec.loadBalancerIP`.
    pub load_balancer_ip: Option<String>,
    /// Annotations that concern load balancers.
    pub annotations: BTreeMap<String, String>,
    /// Whether only nodes with endpoints take its traffic.
    pub local: bool,
    /// Where those nodes tell that they have endpoints.
    pub health_check_node_port: Option<u16>,
    /// Whether a client keeps its node.
    pub client_affinity: bool,
    /// What its status says.
    pub ingress: Vec<IngressView>,
}

impl ServiceView {
    /// Whether it shall have a load balancer.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wants && !self.deleting
    }
}

/// What is kept of a Service; nothing if it is none of our business.
#[must_use]
pub fn service(service: Service, classes: &Classes) -> Option<ServiceView> {
    let spec = service.spec.unwrap_or_default();
    let meta = service.metadata;
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let ours = match spec.load_balancer_class.as_deref() {
        Some(class) => class == classes.own,
        // The API server takes the class away with the type: what is left to clean up may have been ours.
        None => classes.classless || !is_balanced,
    };
    let wants = is_balanced && ours;
    let finalizer = ours && meta.finalizers.iter().flatten().any(|name| name == FINALIZER);
    // One that is always there tells an empty view from an empty cluster.
    if !wants && !finalizer && !is_sentinel(&meta.namespace, &meta.name) {
        return None;
    }
    let families = spec.ip_families.unwrap_or_default();
    let families: Vec<Family> =
        families.iter().map(|family| if family == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    let ingress = service.status.and_then(|status| status.load_balancer).and_then(|status| status.ingress);
    Some(ServiceView {
        uid: meta.uid.unwrap_or_default(),
        created: meta.creation_timestamp.map_or(0, |time| time.0.as_microsecond()),
        kind: spec.type_.unwrap_or_default(),
        wants,
        finalizer,
        deleting: meta.deletion_timestamp.is_some(),
        families: if families.is_empty() { vec![Family::V4] } else { families },
        ports: spec.ports.into_iter().flatten().filter_map(port).collect(),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        load_balancer_ip: spec.load_balancer_ip.filter(|address| !address.is_empty()),
        annotations: meta.annotations.into_iter().flatten().filter(|(name, _)| concerns_us(name)).collect(),
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()),
        client_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        ingress: ingress
            .into_iter()
            .flatten()
            .map(|entry| IngressView {
                plain_vip: entry.hostname.is_none() && entry.ip_mode.as_deref() == Some("VIP"),
                ip: entry.ip.and_then(|ip| ip.parse().ok()),
            })
            .collect(),
    })
}

/// The Service that every API server has.
pub const SENTINEL: (&str, &str) = ("default", "kubernetes");

fn is_sentinel(namespace: &Option<String>, name: &Option<String>) -> bool {
    (namespace.as_deref(), name.as_deref()) == (Some(SENTINEL.0), Some(SENTINEL.1))
}

fn concerns_us(annotation: &str) -> bool {
    use super::annotations::{INTERNAL, OPENSTACK, OURS, SOURCE_RANGES};
    annotation.starts_with(OPENSTACK)
        || annotation.starts_with(OURS)
        || [SOURCE_RANGES, INTERNAL].contains(&annotation)
}

fn port(port: k8s_openapi::api::core::v1::ServicePort) -> Option<PortView> {
    let protocol_text = port.protocol.unwrap_or_else(|| "TCP".to_owned());
    let protocol = match protocol_text.as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    };
    Some(PortView { protocol, protocol_text, port: u16::try_from(port.port).ok()? })
}

/// How many endpoints of a Service are on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Take new connections.
    pub ready: u16,
    /// Are ending, and still serve.
    pub ending: u16,
}

/// An EndpointSlice: which Service it is of, and its endpoints by node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceView {
    /// The Service.
    pub service: Option<Key>,
    /// Family of the endpoints' addresses. A Service of two families has slices of both.
    pub family: Family,
    /// By name of the node.
    pub nodes: BTreeMap<String, Endpoints>,
}

/// What is kept of an EndpointSlice.
#[must_use]
pub fn slice(slice: EndpointSlice) -> Option<SliceView> {
    let namespace = slice.metadata.namespace?;
    let name = slice.metadata.labels?.remove("kubernetes.io/service-name")?;
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return None,
    };
    // A pod may stand in a slice several times.
    let mut pods = BTreeSet::new();
    let mut nodes: BTreeMap<String, Endpoints> = BTreeMap::new();
    for endpoint in slice.endpoints {
        let Some(node) = endpoint.node_name else { continue };
        let conditions = endpoint.conditions.unwrap_or_default();
        let name = endpoint
            .target_ref
            .and_then(|target| target.name)
            .or_else(|| endpoint.addresses.into_iter().next());
        if !pods.insert(name) {
            continue;
        }
        let ready = conditions.ready.unwrap_or(true);
        let ending = conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false);
        let count = nodes.entry(node).or_default();
        if ending {
            count.ending = count.ending.saturating_add(1);
        } else if ready {
            count.ready = count.ready.saturating_add(1);
        }
    }
    nodes.retain(|_, count| *count != Endpoints::default());
    Some(SliceView { service: Some(Key::new(namespace, name)), family, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_services_that_concern_us_are_kept() {
        let classless = Classes::default();
        let own_only = Classes { own: "a.example/lb".into(), classless: false };
        for (classes, kind, class, finalizers, kept) in [
            (&classless, "LoadBalancer", json!(null), json!([]), true),
            (&classless, "LoadBalancer", json!("ake.dev/load-balancer"), json!([]), true),
            (&classless, "LoadBalancer", json!("other.example/lb"), json!([FINALIZER]), false),
            (&classless, "ClusterIP", json!(null), json!([FINALIZER]), true),
            (&classless, "ClusterIP", json!(null), json!([]), false),
            (&own_only, "LoadBalancer", json!(null), json!([]), false),
            (&own_only, "LoadBalancer", json!(null), json!([FINALIZER]), false),
            (&own_only, "LoadBalancer", json!("ake.dev/load-balancer"), json!([]), false),
            (&own_only, "LoadBalancer", json!("a.example/lb"), json!([]), true),
            // The API server has taken the class away with the type.
            (&own_only, "ClusterIP", json!(null), json!([FINALIZER]), true),
        ] {
            let object: Service = serde_json::from_value(json!({
                "metadata": {"namespace": "a", "name": "b", "uid": "u", "finalizers": finalizers},
                "spec": {"type": kind, "loadBalancerClass": class, "ports": [{"port": 80}]}
            }))
            .unwrap();
            assert_eq!(service(object, classes).is_some(), kept, "{classes:?} {kind} {class} {finalizers}");
        }
    }

    #[test]
    fn endpoints_are_counted_by_node() {
        let object: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": {"namespace": "a", "name": "b-1", "labels": {"kubernetes.io/service-name": "b"}},
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "n1", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "nodeName": "n1"},
                {"addresses": ["10.0.0.3"], "nodeName": "n2", "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.4"], "nodeName": "n3", "conditions": {"ready": false}}
            ]
        }))
        .unwrap();
        let view = slice(object).unwrap();
        assert_eq!((view.service, view.family), (Some(Key::new("a", "b")), Family::V4));
        assert_eq!(
            view.nodes,
            BTreeMap::from([
                ("n1".to_owned(), Endpoints { ready: 2, ending: 0 }),
                ("n2".to_owned(), Endpoints { ready: 0, ending: 1 }),
            ])
        );
    }
}
