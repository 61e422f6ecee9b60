//! The CNI configuration: a bridge with an address range of this node's own.

use ipnetwork::IpNetwork;
use serde_json::json;

/// Its file. Written only when the pods' range is known: containerd takes a node with it for ready.
pub const FILE: &str = "10-ake.conflist";

/// The bridge that pods are on.
pub const BRIDGE: &str = "cni0";

/// The configuration for pods of these ranges. No masquerading here: the guard does that, so that answers of direct
/// server return and traffic between pods keep their addresses.
#[must_use]
pub fn conflist(ranges: &[IpNetwork], mtu: u32) -> String {
    let ranges: Vec<_> = ranges.iter().map(|range| json!([{"subnet": range}])).collect();
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "ake",
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "mtu": mtu,
                "isGateway": true, "isDefaultGateway": true, "forceAddress": true,
                "hairpinMode": true, "ipMasq": false,
                "ipam": {"type": "host-local", "ranges": ranges},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn pods_have_addresses_of_this_node_alone() {
        let text = super::conflist(&["10.240.3.0/24".parse().unwrap()], 1450);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.240.3.0/24");
        assert_eq!(list["plugins"][0]["mtu"], 1450);
        assert_eq!(list["plugins"][0]["ipMasq"], false);
    }
}
