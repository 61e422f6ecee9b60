//! Keys of cloud-provider-openstack that have no effect here, and what is in their place.

/// Whether a section is another program's, and its keys are not looked at.
pub(super) fn is_others(section: &str) -> bool {
    section == "keymanager"
}

/// What to use in place of a key; none where nothing is known of it.
pub(super) fn instead(section: &str, key: &str) -> Option<&'static str> {
    let of_blocks =
        "VIPs are of the cluster's blocks; ake.dev/range and ake.dev/address on a Service choose among them";
    let of_checks = "how nodes are checked is the operator's, for all balancers; ake.dev/health-check on a Service chooses what is \
                     asked";
    let of_octavia = "there is no Octavia";
    let of_tls = "TLS ends in the cluster: nothing that passes a balancer here is opened";
    Some(match (section, key) {
        ("loadbalancer", "enabled") => "--controllers=*,-service-lb-controller leaves Services to others",
        ("loadbalancer", "node-selector") => "loadbalancer.openstack.org/node-selector on a Service",
        ("loadbalancer", "internal-lb") => {
            "there are no floating IPs; ake.dev/range on a Service chooses VIPs for inside, where the operator has such"
        }
        ("loadbalancer", "manage-security-groups") => {
            "[AKE] security-group names the group whose rules are kept; without it none are"
        }
        ("loadbalancer", "create-monitor" | "monitor-delay" | "monitor-timeout")
        | ("loadbalancer", "monitor-max-retries" | "monitor-max-retries-down") => of_checks,
        ("loadbalancer", "lb-method") => {
            "flows are spread by hash; sessionAffinity: ClientIP on a Service has a client keep its node"
        }
        ("loadbalancer", "max-shared-lb") => {
            "ake.dev/share on Services has them share a VIP, as many as there are ports"
        }
        ("loadbalancer", "enable-ingress-hostname" | "ingress-hostname-suffix") => {
            "a Service tells its address as it is, which kube-proxy needs to take packets for it"
        }
        ("loadbalancer", "subnet-id" | "network-id" | "floating-network-id" | "floating-subnet")
        | ("loadbalancer", "floating-subnet-id" | "floating-subnet-tags")
        | ("loadbalancerclass", _) => of_blocks,
        ("loadbalancer", "member-subnet-id") => "nodes are reached at the first InternalIP that they have",
        ("loadbalancer", "default-tls-container-ref" | "container-store") => of_tls,
        (
            "loadbalancer",
            "lb-provider" | "lb-version" | "use-octavia" | "flavor-id" | "availability-zone",
        )
        | ("loadbalancer", "cascade-delete" | "provider-requires-serial-api-calls") => of_octavia,
        ("networking", "public-network-name" | "internal-network-name") => {
            "addresses of fixed ports are InternalIP, all others of a server ExternalIP"
        }
        ("networking", "ipv6-support-disabled") => {
            "a cluster has the families that its VIP blocks and pod ranges have"
        }
        ("networking", "address-sort-order") => "addresses of a Node are in the order of its server's ports",
        ("route", "router-id") => "there are no routers: node agents keep routes between nodes",
        ("metadata", "search-order") => {
            "node agents read the server's id from what cloud-init keeps on the disk"
        }
        ("metadata", "request-timeout") => "each call to OpenStack has a deadline of its own",
        ("blockstorage", "node-volume-attach-limit") => "ake-node-agent csi --max-volumes, on each node",
        ("blockstorage", "rescan-on-resize") => "file systems do not grow while they are mounted yet",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_of_old_has_an_answer_and_no_other() {
        for (section, key) in [
            ("loadbalancer", "node-selector"),
            ("loadbalancer", "lb-provider"),
            ("loadbalancerclass", "network-id"),
            ("networking", "public-network-name"),
            ("route", "router-id"),
            ("metadata", "search-order"),
            ("blockstorage", "rescan-on-resize"),
        ] {
            assert!(instead(section, key).is_some() && !is_others(section), "{section} {key}");
        }
        assert!(is_others("keymanager"));
        assert_eq!(instead("global", "foo"), None);
        assert_eq!(instead("loadbalancer", "lb-provder"), None, "a slip is not told of Octavia");
    }
}
