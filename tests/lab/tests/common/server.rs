//! A server as Nova would describe it.

use std::fs::{self, File};
use std::path::PathBuf;

use ake_lab::machine;
use serde_json::{Value, json};

use super::{Lab, eventually};

/// The image that machines of tests boot: the one that `tools/image` baked last, or `AKE_LAB_IMAGE`.
fn image() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let image = std::env::var_os("AKE_LAB_IMAGE").map_or(cache.join("ake/image"), PathBuf::from);
    assert!(image.join("layers").exists(), "{} is no baked image: run tools/image", image.display());
    image
}

/// What Nova knows of one server.
pub(crate) struct Server<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) id: String,
    pub(crate) name: String,
    host: u8,
}

impl<'a> Server<'a> {
    /// A server that is not there yet, with the address 192.168.77.`host`.
    pub(crate) fn new(lab: &'a Lab, name: &str, host: u8) -> Self {
        fs::write(lab.dirs.state.join("image"), image().as_os_str().as_encoded_bytes()).unwrap();
        let id = format!("0a1b2c3d-0000-4000-8000-0000000000{host:02x}");
        Self { lab, id, name: name.to_owned(), host }
    }

    pub(crate) fn port(&self) -> String {
        format!("{:02x}000000-1111-4222-8333-444444444444", self.host)
    }

    fn mac(&self) -> String {
        format!("fa:16:3e:00:01:{:02x}", self.host)
    }

    fn dir(&self) -> PathBuf {
        self.lab.dirs.state.join("instances").join(&self.id)
    }

    /// A port of Neutron for it.
    pub(crate) fn neutron(&self) -> Value {
        json!({"id": self.port(), "mac_address": self.mac(), "project_id": "project", "device_id": self.id,
            "device_owner": "compute:nova", "security_groups": ["default"],
            "fixed_ips": [{"ip_address": format!("192.168.77.{}", self.host)}]})
    }

    /// The config drive as Nova builds it.
    fn drive(&self, user_data: &str) {
        let drive = self.dir().join("config-drive/openstack/latest");
        fs::create_dir_all(&drive).unwrap();
        let meta = json!({"uuid": self.id, "hostname": self.name, "name": self.name, "launch_index": 0,
            "availability_zone": "nova", "project_id": "project", "meta": {}});
        let network = json!({
            "links": [{"id": "tap0", "vif_id": self.port(), "type": "ovs", "mtu": 1500,
                "ethernet_mac_address": self.mac()}],
            "networks": [{"id": "network0", "type": "ipv4", "link": "tap0", "netmask": "255.255.255.0",
                "ip_address": format!("192.168.77.{}", self.host), "network_id": "n",
                "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.168.77.1"}]}],
            "services": []});
        fs::write(drive.join("meta_data.json"), meta.to_string()).unwrap();
        fs::write(drive.join("network_data.json"), network.to_string()).unwrap();
        fs::write(drive.join("user_data"), user_data).unwrap();
    }

    fn document(&self, event: &str, volumes: &[Value]) -> Value {
        json!({"event": event, "dir": self.dir(), "volumes": volumes,
            "instance": {"uuid": self.id, "name": self.name, "hostname": self.name, "project_id": "project",
                "image_properties": {}},
            "networks": [{"port": self.port(), "mac": self.mac(), "network": "n", "name": "provider",
                "mtu": 1500, "device": "tap", "subnets": []}]})
    }

    pub(crate) fn event(&self, event: &str) -> Result<(), String> {
        self.lab.hook(event, &self.document(event, &[]))
    }

    /// An event about a volume, whose data lies in a file of the lab.
    pub(crate) fn volume(&self, event: &str, volume: &str) -> Result<(), String> {
        let volume = json!({"volume": volume, "path": self.volume_file(volume), "device": null});
        self.lab.hook(event, &self.document(event, &[volume]))
    }

    pub(crate) fn volume_file(&self, volume: &str) -> PathBuf {
        self.lab.dirs.state.join(format!("volume-{volume}"))
    }

    /// Makes a volume's file, or lets it grow.
    pub(crate) fn size_volume(&self, volume: &str, megabytes: u64) {
        let file = File::options().create(true).append(true).open(self.volume_file(volume)).unwrap();
        file.set_len(megabytes << 20).unwrap();
    }

    pub(crate) fn boot(&self, user_data: &str) {
        self.drive(user_data);
        self.event("spawn").unwrap();
    }

    /// Runs a shell command inside.
    pub(crate) fn sh(&self, command: &str) -> Result<String, String> {
        let words = ["sh", "-c", command].map(str::to_owned);
        let output = machine::output(&self.lab.cage, &self.name, &words).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn console(&self) -> String {
        fs::read_to_string(self.dir().join("console.log")).unwrap_or_default()
    }

    /// Waits until systemd has started all there is to start, without a failure.
    #[track_caller]
    pub(crate) fn wait_running(&self) {
        let mut state = String::new();
        let start = std::time::Instant::now();
        while start.elapsed().as_secs() < 120 {
            // (is-system-running fails while it is not.)
            state = self.sh("systemctl is-system-running; true").unwrap_or_else(|error| error);
            if matches!(state.as_str(), "running" | "degraded") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        assert_eq!(
            state,
            "running",
            "{:?}\n{}",
            self.sh(
                "systemctl list-jobs; systemctl --failed --no-legend; journalctl -b --no-pager | tail -40"
            ),
            self.console()
        );
    }

    #[track_caller]
    pub(crate) fn wait_gone(&self) {
        eventually("the machine is off", 60, || machine::leader(&self.lab.cage, &self.name).is_err());
    }
}
