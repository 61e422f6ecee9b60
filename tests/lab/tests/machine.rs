//! A server is a machine: systemd is its first process, cloud-init reads the config drive, disks come and go.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use common::server::Server;
use common::{Lab, eventually, here};
use serde_json::json;

const VOLUME: &str = "11112222-3333-4444-8555-666677778888";
const LINK: &str = "/dev/disk/by-id/virtio-11112222-3333-4444-8";

#[test]
fn a_server_lives_as_nova_says() {
    let lab = Lab::up("h-machine");
    let server = Server::new(&lab, "worker-0", 20);
    let rules = json!({"default": [{"direction": "egress", "ethertype": "IPv4"}]});
    lab.hook("network", &json!({"generation": 1, "ports": [server.neutron()], "groups": rules})).unwrap();

    server.boot("#cloud-config\nwrite_files:\n- {path: /etc/from-user-data, content: yes-it-is}\n");
    server.wait_running();
    assert_eq!(server.sh("cat /proc/1/comm").unwrap(), "systemd");
    assert_eq!(server.sh("cloud-init status --wait | tail -1").unwrap(), "status: done");
    assert_eq!(server.sh("cat /etc/from-user-data").unwrap(), "yes-it-is");
    assert_eq!(server.sh("hostname").unwrap(), "worker-0");
    assert_eq!(server.sh("cat /var/lib/cloud/data/instance-id").unwrap(), server.id);
    assert_eq!(
        server.sh("ip -4 -br addr show eth0").unwrap().split_whitespace().nth(2),
        Some("192.168.77.20/24")
    );
    assert!(
        lab.works("server-0a1b2c3d-0000-4000-8000-000000000014", "ping -qc1 -W2 192.0.2.2"),
        "reaches the clouds' APIs"
    );
    assert_eq!(server.event("spawn"), Ok(()), "said twice");

    // A disk: seen by its id, in use or not, grown, gone.
    server.size_volume(VOLUME, 300);
    server.volume("attach_volume", VOLUME).unwrap();
    server.volume("attach_volume", VOLUME).unwrap();
    assert_eq!(server.sh(&format!("readlink -f {LINK}")).unwrap(), "/dev/vdb");
    assert_eq!(server.sh("blockdev --getsize64 /dev/vdb").unwrap(), (300u64 << 20).to_string());
    server.sh(&format!("mkfs.xfs -q {LINK} && mount {LINK} /mnt && echo kept > /mnt/file")).unwrap();
    let refused = server.volume("detach_volume", VOLUME).unwrap_err();
    assert!(
        refused.contains(VOLUME) && refused.contains("in use") && refused.contains("/dev/vdb"),
        "{refused}"
    );
    server.size_volume(VOLUME, 400);
    server.volume("extend_volume", VOLUME).unwrap();
    server.sh("xfs_growfs /mnt > /dev/null").unwrap();
    assert_eq!(server.sh("blockdev --getsize64 /dev/vdb").unwrap(), (400u64 << 20).to_string());

    // A reboot from within keeps files and disks, and nothing else.
    server.sh("touch /run/before /root/kept && sync").unwrap();
    server.sh("systemctl reboot").unwrap();
    eventually("the machine has rebooted", 60, || {
        server.sh("test ! -e /run/before && test -e /root/kept").is_ok()
    });
    server.wait_running();
    assert_eq!(server.sh(&format!("mount {LINK} /mnt && cat /mnt/file && umount /mnt")).unwrap(), "kept");

    // Nova's own.
    server.sh("touch /run/before").unwrap();
    server.event("reboot").unwrap();
    server.wait_running();
    server.sh("test ! -e /run/before && test -e /root/kept").unwrap();
    server.event("power_off").unwrap();
    server.wait_gone();
    server.volume("detach_volume", VOLUME).unwrap();
    server.event("power_on").unwrap();
    server.wait_running();
    assert!(server.sh(&format!("test -e {LINK}")).is_err(), "detached while it was off");

    server.volume("attach_volume", VOLUME).unwrap();
    server.event("destroy").unwrap();
    server.event("destroy").unwrap();
    server.wait_gone();
    assert_eq!(lab.must("switch", "ip -o link show type veth | grep -c tap || true"), "0", "no card");
    assert!(!lab.cage.netns_path(&format!("server-{}", server.id)).exists(), "no namespace");
    assert!(!lab.dirs.state.join("machines").join(&server.id).exists(), "no disk");
    assert_eq!(here(&format!("ls -d /sys/fs/cgroup/*/ake-lab-h-machine-*/{} 2>/dev/null", server.id)), "");
    assert_eq!(here(&format!("losetup -l | grep {}", lab.dirs.state.display())), "", "no loop device");
    assert!(server.volume_file(VOLUME).exists(), "the volume is Cinder's to delete");
}

#[test]
fn a_server_that_cannot_start_says_why_and_leaves_nothing() {
    let lab = Lab::up("h-broken");
    let server = Server::new(&lab, "broken", 21);
    let image = lab.dirs.state.join("image");
    std::fs::write(&image, "/nonexistent/image-1").unwrap();
    let error = server.event("spawn").unwrap_err();
    assert!(error.contains("/nonexistent/image-1/layers"), "{error}");
    let root = lab.dirs.state.join("empty");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("layers"), root.as_os_str().as_encoded_bytes()).unwrap();
    std::fs::write(&image, root.as_os_str().as_encoded_bytes()).unwrap();
    std::fs::create_dir_all(lab.dirs.state.join("instances").join(&server.id).join("config-drive")).unwrap();
    let error = server.event("spawn").unwrap_err();
    assert!(error.contains("server broken did not start"), "{error}");
    assert!(!lab.dirs.state.join("machines").join(&server.id).exists());
    assert_eq!(lab.must("switch", "ip -o link show type veth | grep -c tap || true"), "0");
    assert!(!Path::new(&lab.cage.netns_path(&format!("server-{}", server.id))).exists());
}
