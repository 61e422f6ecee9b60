//! A fresh Debian host, booted by systemd from the image's base layer: what the operators' guides say to type there, word by
//! word, and the units of both services with all that they forbid.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ake_lab::Dirs;
use scenarios::checkout;

/// Pages with the sections whose steps are taken, in their order.
const GUIDES: &[(&str, &str)] = &[
    ("docs/guides/install.md", "## 3. Programs and certificates"),
    ("docs/guides/balancer.md", "## 2. Install"),
    ("docs/guides/install.md", "## 5. `ake-api`"),
    ("docs/guides/install.md", "## 6. Heat's plugin"),
];
/// Steps that need what the host has not: a compiler, the package index of Python.
const ELSEWHERE: &[&str] = &["cargo ", "heat-resources/plugin/build-wheel ", "pip "];
/// What a checkout has that the steps copy from.
const SOURCES: &[&str] = &["api/systemd", "lb-driver/xdp/systemd", "heat-resources/plugin"];

/// Systemd as first process in namespaces and control groups of its own, until it powers off. `$1` is the folder of the host,
/// `$2` the layer under it, `$3` the name of its control groups.
const BOOT: &str = r#"
set -e
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
hierarchies=$(echo /sys/fs/cgroup/*/)
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || hierarchies=/sys/fs/cgroup
for hierarchy in $hierarchies; do
  [ -e "$hierarchy/cgroup.procs" ] || continue
  mkdir "$hierarchy/$3"
  for file in cpuset.cpus cpuset.mems; do
    [ ! -e "$hierarchy/$3/$file" ] || cat "$hierarchy/$file" > "$hierarchy/$3/$file" || true
  done
  echo $$ > "$hierarchy/$3/cgroup.procs"
done
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip netns add host
ip -n host link set lo up
ip -n host link add eth0 type veth peer name far
ip -n host link set eth0 up
ip -n host link set far up
ip -n host addr add 192.168.77.2/24 dev eth0
ip -n host addr add 192.0.2.2/24 dev far
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn --quiet --boot --register=no --keep-unit --link-journal=no --console=read-only --resolv-conf=off \
  --timezone=off --capability=all --system-call-filter=bpf --directory "$1/root" --machine=ake-host --hostname=host \
  --network-namespace-path=/run/netns/host
"#;

/// What is looked at when the guides' steps are done: both services run, never began again, answer by the certificates that were
/// made, and do what their units let them do when they are told anew, begin again, and end.
const LOOKS: &str = r#"
# both begin, and nothing ends them in the meantime
api() { curl -sS --fail --retry 120 --retry-delay 1 --retry-connrefused --cacert certificates/ake-ca.crt "https://192.0.2.2:9511$1"; }
xdp() { curl -sS --fail --retry 120 --retry-delay 1 --retry-connrefused --cacert certificates/balancer-ca.crt \
  --cert certificates/balancer-client.crt --key certificates/balancer-client.key https://192.168.77.2:9512/v1/status; }
both() {
  api /readyz; xdp; curl -sS --fail http://127.0.0.1:9510/metrics | grep ake_api_; ake-xdp show
  for unit in ake-api ake-xdp; do
    [ "$(systemctl is-active $unit) $(systemctl show --property NRestarts --value $unit)" = "active 0" ]
    [ "$(stat -c %U "/proc/$(systemctl show --property MainPID --value $unit)")" = $unit ]
  done
}
both
[ "$(stat -fc %T /run/ake-xdp-pins)" = bpf_fs ]
# the trail is opened anew
mv /var/log/ake/audit.jsonl /var/log/ake/audit.jsonl.1
systemctl reload ake-api
for i in $(seq 1000); do [ ! -e /var/log/ake/audit.jsonl ] || break; sleep 0.1; done
[ "$(stat -c %U:%a /var/log/ake/audit.jsonl)" = ake-api:600 ]
# a restart finds what the last one left
pinned=$(ls /run/ake-xdp-pins)
systemctl restart ake-api ake-xdp
both
systemctl stop ake-api ake-xdp
[ "$(ls /run/ake-xdp-pins)" = "$pinned" ]
ip link show eth0 | grep -q prog/xdp
ake-xdp detach
[ "$(ip link show eth0 | grep -c prog/xdp)" = 0 ]
for unit in ake-api ake-xdp; do [ "$(systemctl show --property Result --value $unit)" = success ]; done
# what cannot begin yet is tried until it can
ip link set eth0 down
ip link set eth0 name eth1
systemctl start --no-block ake-xdp
for i in $(seq 1000); do [ "$(systemctl show --property NRestarts --value ake-xdp)" -lt 6 ] || break; sleep 0.2; done
ip link set eth1 name eth0
ip link set eth0 up
xdp
"#;

/// The unit that takes the steps, and powers the host off.
const UNIT: &str = "[Unit]
After=network.target systemd-user-sessions.service
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
WorkingDirectory=/root/ake
Environment=HOME=/root
ExecStart=/bin/bash -ex /root/steps
StandardOutput=file:/root/said
StandardError=file:/root/said
TimeoutStartSec=900

[Install]
WantedBy=multi-user.target
";

/// The commands of a section: what stands in its blocks of `sh`.
fn steps(page: &str, section: &str) -> String {
    let text = fs::read_to_string(checkout().join(page)).unwrap();
    let (_, rest) = text.split_once(&format!("{section}\n")).unwrap_or_else(|| panic!("{page}: {section}"));
    let own = rest.split("\n## ").next().unwrap();
    let blocks: Vec<_> = own.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert!(!blocks.is_empty(), "{page}: {section} has no steps");
    blocks.concat()
}

/// A step as it is taken here: the password is typed.
fn step(line: &str) -> String {
    match line.split_once(" #") {
        Some((command, _)) if line.contains("/dev/stdin") => format!("{} <<< secret\n", command.trim_end()),
        _ => format!("{line}\n"),
    }
}

/// All of them, and what is looked at then.
fn script() -> String {
    let all: String = GUIDES.iter().map(|(page, section)| steps(page, section)).collect();
    let here = all.lines().filter(|line| !ELSEWHERE.iter().any(|word| line.starts_with(word)));
    here.map(step).collect::<String>() + LOOKS + "echo everything was done\n"
}

/// The lowest layer of the baked image: Debian with systemd, and nothing of AKE.
fn debian() -> PathBuf {
    let layers = Dirs::of("host").unwrap().cache.join("image/layers");
    let text = fs::read_to_string(&layers)
        .unwrap_or_else(|e| panic!("{}, which make image makes: {e}", layers.display()));
    text.lines().last().unwrap().into()
}

fn prepare(upper: &Path) {
    let own = upper.join("root/ake");
    fs::create_dir_all(own.join("target/release")).unwrap();
    for program in ["ake-api", "ake-xdp", "ake-heat"] {
        let target = own.join("target/release").join(program);
        let done = Command::new("strip").arg("-o").arg(target).arg(ake_lab::built(program).unwrap()).status();
        assert!(done.unwrap().success(), "{program}");
    }
    let copied = Command::new("cp")
        .arg("-r")
        .arg("--parents")
        .args(SOURCES)
        .arg(&own)
        .current_dir(checkout())
        .status();
    assert!(copied.unwrap().success());
    let units = upper.join("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants")).unwrap();
    // a host of the operator's has no cloud-init; what has no hardware here is left out
    for unit in [
        "cloud-init-local",
        "cloud-init",
        "cloud-config",
        "cloud-final",
        "containerd",
        "ssh",
        "systemd-udevd",
        "systemd-networkd-wait-online",
    ] {
        std::os::unix::fs::symlink("/dev/null", units.join(format!("{unit}.service"))).unwrap();
    }
    fs::write(units.join("steps.service"), UNIT).unwrap();
    std::os::unix::fs::symlink("../steps.service", units.join("multi-user.target.wants/steps.service"))
        .unwrap();
    fs::write(upper.join("root/steps"), script()).unwrap();
}

#[test]
fn a_fresh_host_gets_both_services_by_the_steps_of_the_guides_and_their_units_run_them() {
    let host = tempfile::Builder::new().prefix("ake-host-").tempdir_in("/var/tmp").unwrap();
    for folder in ["upper", "work", "root"] {
        fs::create_dir(host.path().join(folder)).unwrap();
    }
    prepare(&host.path().join("upper"));
    let group = host.path().file_name().unwrap().to_str().unwrap();
    let out = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave", "--"])
        .args(["timeout", "--signal=KILL", "1000", "sh", "-c", BOOT, "boot"])
        .args([host.path(), &debian(), Path::new(group)])
        .stdin(Stdio::null())
        .output()
        .expect("unshare, of util-linux");
    ake_lab::cgroup::remove_lab(group).unwrap();
    let said = fs::read_to_string(host.path().join("upper/root/said")).unwrap_or_default();
    assert!(
        said.ends_with("everything was done\n"),
        "{}\n{said}\nconsole:\n{}{}",
        script(),
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
