//! Nothing of a lab is left when it has ended, however it did, and two labs do not meet.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::process::Command;

use ake_lab::cage::{self, Cage};
use common::server::Server;
use common::{Lab, here};
use serde_json::json;

fn kill(pid: i32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// What of a lab is on this machine: processes, mounts, loop devices, control groups.
fn traces(lab: &Lab) -> Vec<String> {
    let state = lab.dirs.state.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "mountinfo"] {
            let text = fs::read(entry.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            if let Some(line) = text.lines().find(|line| line.contains(state)) {
                found.push(format!("{}: {line}", entry.path().join(file).display()));
            }
        }
    }
    let rest = here(&format!(
        "losetup -l | grep '{state}'; ls -d /sys/fs/cgroup/*/ake-lab-{}-* 2>/dev/null",
        lab.dirs.name
    ));
    found.extend(rest.lines().map(str::to_owned));
    found
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_and_another_never_notices() {
    let one = Lab::up("h-one");
    let two = Lab::up("h-two");
    for lab in [&one, &two] {
        let server = Server::new(lab, "same-name", 30);
        let ports = json!({"generation": 1, "ports": [server.neutron()],
            "groups": {"default": [{"direction": "egress", "ethertype": "IPv4"}]}});
        lab.hook("network", &ports).unwrap();
        server.boot("#cloud-config\n{}\n");
        server.size_volume("v", 64);
        server.volume("attach_volume", "v").unwrap();
    }
    let server = Server::new(&two, "same-name", 30);
    server.wait_running();
    let lively = traces(&one).join("\n");
    for kind in ["cmdline: ", "mountinfo: ", "/dev/loop", "/sys/fs/cgroup/"] {
        assert!(lively.contains(kind), "no {kind} in {lively}");
    }

    // The supervisor of a machine alone: nothing of the machine stays, and it starts again.
    let supervisor = here(&format!(
        "cat {}/machines/{}/supervisor | tr -dc '0-9:,' | cut -d, -f1 | tr -d :",
        two.dirs.state.display(),
        server.id
    ));
    two.must("control", &format!("kill -9 {supervisor}"));
    server.wait_gone();
    server.event("power_on").unwrap();
    server.wait_running();
    server.sh("test -b /dev/disk/by-id/virtio-v").unwrap();

    kill(one.cage.pid());
    cage::destroy(&one.dirs).unwrap();
    assert_eq!(traces(&one), [""; 0]);
    assert!(Cage::attach(&one.dirs).unwrap().is_none());
    assert_eq!(here("ip -br link | grep -E '^(br0|p-router|tap)'"), "", "wires outside of the cage");
    cage::destroy(&one.dirs).unwrap();

    server.sh("systemctl is-system-running").unwrap();
    server.sh("test -b /dev/disk/by-id/virtio-v").unwrap();
    assert!(two.works("client", "ping -qc1 -W2 192.168.77.1"));
    cage::destroy(&two.dirs).unwrap();
    assert_eq!(traces(&two), [""; 0]);
}

#[test]
fn a_cage_whose_starter_forgot_it_is_found() {
    let lab = Lab::empty("h-forgot");
    std::fs::remove_file(lab.dirs.run().join("cage")).unwrap();
    assert!(Cage::attach(&lab.dirs).unwrap().is_none());
    cage::destroy(&lab.dirs).unwrap();
    assert_eq!(traces(&lab), [""; 0]);
}

#[test]
fn who_kills_the_caller_kills_the_program_in_the_cage() {
    let lab = Lab::empty("h-caller");
    let mut child = lab.cage.command(None, "sleep").arg("987654").spawn().unwrap();
    let runs = || !here("pgrep -fx 'sleep 987654'").is_empty();
    common::eventually("the program runs", 10, runs);
    child.kill().unwrap();
    child.wait().unwrap();
    common::eventually("the program is gone", 10, || !runs());
}
