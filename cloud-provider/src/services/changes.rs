//! What of a Service's change is told as an Event of its own, with upstream's reasons and words.

use super::view::ServiceView;

/// Reason and message of each.
#[must_use]
pub fn of(old: &ServiceView, new: &ServiceView) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    let mut tell = |reason, old: String, new: String| {
        if old != new {
            told.push((reason, format!("{} -> {}", shown(&old), shown(&new))));
        }
    };
    if old.uid != new.uid || new.deleting {
        return told;
    }
    if old.wants != new.wants {
        tell("Type", old.kind.clone(), new.kind.clone());
        return told;
    }
    if !new.wants {
        return told;
    }
    let list = |items: &[String]| format!("[{}]", items.join(" "));
    tell("LoadBalancerSourceRanges", list(&old.source_ranges), list(&new.source_ranges));
    let address = |view: &ServiceView| view.load_balancer_ip.clone().unwrap_or_default();
    tell("LoadbalancerIP", address(old), address(new));
    let policy = |view: &ServiceView| if view.local { "Local" } else { "Cluster" }.to_owned();
    tell("ExternalTrafficPolicy", policy(old), policy(new));
    let port = |view: &ServiceView| view.health_check_node_port.unwrap_or(0).to_string();
    tell("HealthCheckNodePort", port(old), port(new));
    let families = |view: &ServiceView| {
        let texts = view.families.iter().map(|family| match family {
            ake_api_client::Family::V4 => "IPv4".to_owned(),
            ake_api_client::Family::V6 => "IPv6".to_owned(),
        });
        list(&texts.collect::<Vec<_>>())
    };
    tell("IPFamilies", families(old), families(new));
    told
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use ake_api_client::Family;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::{Value, json};

    use super::{super::view, *};

    fn balanced() -> ServiceView {
        ServiceView { kind: "LoadBalancer".into(), wants: true, ..ServiceView::default() }
    }

    #[test]
    fn changes_are_told_with_upstreams_reasons() {
        type Edit = fn(&mut ServiceView);
        let cases: [(Edit, &[&str]); 7] = [
            (|view| view.client_affinity = true, &[]),
            (
                |view| (view.wants, view.kind) = (false, "ClusterIP".into()),
                &["Type: LoadBalancer -> ClusterIP"],
            ),
            (
                |view| view.source_ranges = vec!["10.0.0.0/8".into(), "192.0.2.0/24".into()],
                &["LoadBalancerSourceRanges: [] -> [10.0.0.0/8 192.0.2.0/24]"],
            ),
            (
                |view| view.load_balancer_ip = Some("203.0.113.1".into()),
                &["LoadbalancerIP: none -> 203.0.113.1"],
            ),
            (
                |view| (view.local, view.health_check_node_port) = (true, Some(30_000)),
                &["ExternalTrafficPolicy: Cluster -> Local", "HealthCheckNodePort: 0 -> 30000"],
            ),
            (|view| view.families = vec![Family::V4, Family::V6], &["IPFamilies: [] -> [IPv4 IPv6]"]),
            (|view| (view.deleting, view.local) = (true, true), &[]),
        ];
        for (edit, expected) in cases {
            let (old, mut new) = (balanced(), balanced());
            edit(&mut new);
            let told: Vec<_> =
                of(&old, &new).iter().map(|(reason, text)| format!("{reason}: {text}")).collect();
            assert_eq!(told, expected);
        }
    }

    /// What upstream's service controller calls a change, field by field. A change that is kept wakes us, and ends the
    /// pause after a refusal.
    #[test]
    fn whatever_counts_as_a_change_is_kept_or_means_nothing_here() {
        let object = |edits: &[(&str, Value)]| {
            let mut object = json!({
                "metadata": {"namespace": "a", "name": "b", "uid": "u", "annotations": {"ake.dev/x": "1", "other": "1"}},
                "spec": {
                    "type": "LoadBalancer", "ipFamilies": ["IPv4"],
                    "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080}],
                },
            });
            for (pointer, value) in edits {
                let (parent, field) = pointer.rsplit_once('/').unwrap();
                object.pointer_mut(parent).unwrap()[field] = value.clone();
            }
            view::service(serde_json::from_value::<Service>(object).unwrap(), &view::Classes::default())
        };
        let kept = [
            ("/spec/type", json!("ClusterIP")),
            ("/metadata/uid", json!("v")),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/metadata/annotations", json!({"ake.dev/x": "2", "other": "1"})),
            ("/spec/loadBalancerClass", json!("other.example/lb")),
            ("/spec/loadBalancerSourceRanges", json!(["10.0.0.0/8"])),
            ("/spec/loadBalancerIP", json!("203.0.113.1")),
            ("/spec/sessionAffinity", json!("ClientIP")),
            ("/spec/externalTrafficPolicy", json!("Local")),
            ("/spec/healthCheckNodePort", json!(30_000)),
            ("/spec/ipFamilies", json!(["IPv4", "IPv6"])),
            ("/spec/ports/0/port", json!(81)),
            ("/spec/ports/0/protocol", json!("UDP")),
            ("/spec/ports", json!([{"port": 80}, {"port": 443}])),
        ];
        for (pointer, value) in kept {
            assert_ne!(object(&[(pointer, value)]), object(&[]), "{pointer}");
        }
        // What pods a port leads to and what it is called is between kube-proxy and the pods; a node port is never used.
        let meaningless = [
            ("/spec/ports/0/name", json!("web")),
            ("/spec/ports/0/targetPort", json!(9090)),
            ("/spec/ports/0/nodePort", json!(30_081)),
            ("/spec/ports/0/appProtocol", json!("h2c")),
            ("/spec/externalIPs", json!(["192.0.2.1"])),
            ("/spec/sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 60}})),
            ("/spec/allocateLoadBalancerNodePorts", json!(false)),
            ("/spec/internalTrafficPolicy", json!("Local")),
            ("/metadata/annotations", json!({"ake.dev/x": "1", "other": "2"})),
        ];
        for (pointer, value) in meaningless {
            assert_eq!(object(&[(pointer, value)]), object(&[]), "{pointer}");
        }
    }
}
