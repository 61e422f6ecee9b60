//! The metadata proxy says to Nova who asks, and nobody else can.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use ake_lab::metadata;
use ake_lab::network::{self, Card};
use common::{Lab, eventually};
use serde_json::{Value, json};

const SERVER: &str = "0a1b2c3d-0000-4000-8000-000000000014";

/// In place of Nova's metadata API: says what it was told.
const NOVA: &str = r#"python3 -c '
import http.server, json
class Told(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200); self.send_header("content-length", len(body)); self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("192.0.2.2", 8775), Told).serve_forever()'"#;

#[test]
fn a_server_is_known_by_its_address_and_cannot_claim_to_be_another() {
    let lab = Lab::up("h-metadata");
    let _nova = lab.serve("control", NOVA);
    eventually("the metadata API listens", 20, || lab.must("control", "ss -Htln").contains(":8775"));
    metadata::start(&lab.cage).unwrap();
    let card = Card {
        port: "cccccccc-0000-4000-8000-000000000000".to_owned(),
        mac: "fa:16:3e:00:00:14".to_owned(),
        mtu: 1500,
    };
    lab.hook(
        "network",
        &json!({"generation": 1, "groups": {"g": [{"direction": "egress", "ethertype": "IPv4"}]},
        "ports": [{"id": card.port, "mac_address": card.mac, "project_id": "team", "device_id": SERVER,
            "device_owner": "compute:nova", "security_groups": ["g"],
            "fixed_ips": [{"ip_address": "192.168.77.20"}],
            "allowed_address_pairs": [{"ip_address": "10.240.1.0/24"}]}]}),
    )
    .unwrap();
    network::plug(&lab.cage, SERVER, &[card]).unwrap();
    let netns = network::namespace(SERVER);
    lab.must(
        &netns,
        "ip addr add 192.168.77.20/24 dev eth0 && ip addr add 10.240.1.5/32 dev lo && \
        ip link set eth0 up && ip route add default via 192.168.77.1",
    );
    lab.must("router", "ip route add 10.240.1.0/24 via 192.168.77.20");

    let url = "http://169.254.169.254/openstack/latest/meta_data.json?a=b";
    let told: Value = serde_json::from_str(
        &lab.must(&netns, &format!("curl -sfm5 -H 'X-Instance-ID: another' -H 'X-Tenant-ID: another' {url}")),
    )
    .unwrap();
    assert_eq!(told["path"], "/openstack/latest/meta_data.json?a=b");
    assert_eq!(told["x-instance-id"], SERVER);
    assert_eq!(told["x-tenant-id"], "team");
    assert_eq!(told["x-forwarded-for"], "192.168.77.20");
    assert_eq!(told["x-instance-id-signature"].as_str().map(str::len), Some(64));

    // An address pair is no address of the server: a pod is not the node.
    assert!(!lab.works(&netns, &format!("curl -sfm5 --interface 10.240.1.5 {url}")));
    assert!(!lab.works("client", &format!("curl -sfm5 {url}")), "nor is a stranger");
}
