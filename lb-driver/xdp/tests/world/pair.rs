//! Two balancers with VRRP between them.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use super::{
    Balancer, World,
    control::{Certificates, run_program, write_config_of},
};

/// What VRRP moves.
pub(crate) const SHARED: &str = "192.168.77.4";

/// VRRP on one of the balancers' hosts.
pub(crate) struct Vrrp(Child);

impl Vrrp {
    pub(crate) fn start(world: &World, station: &str, priority: u8) -> Self {
        let file = |end: &str| world.folder.path().join(format!("{station}-vrrp.{end}"));
        let text = format!(
            "global_defs {{\n router_id {station}\n vrrp_version 3\n}}\n\
             vrrp_instance vips {{\n state BACKUP\n interface eth0\n virtual_router_id 77\n priority {priority}\n \
             advert_int 0.5\n virtual_ipaddress {{\n {SHARED}/32\n }}\n}}\n"
        );
        fs::write(file("conf"), text).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &world.namespace(station), "keepalived"])
            .args(["--vrrp", "--dont-fork", "--log-console", "--use-file"])
            .arg(file("conf"))
            .arg("--pid")
            .arg(file("pid"))
            .arg("--vrrp_pid")
            .arg(file("vrrp-pid"))
            .stdin(Stdio::null())
            .stdout(File::create(file("out")).unwrap())
            .stderr(File::create(file("err")).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Vrrp {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// One of the two; `head` is put before the first table of its configuration.
pub(crate) fn start(
    world: &World,
    certificates: &Certificates,
    station: &str,
    peer: &str,
    head: &str,
) -> Balancer {
    let folder = world.folder.path().display();
    let pair = format!(
        "[pair]\npeer = \"https://{peer}:9512\"\nca = \"{folder}/clients.crt\"\n\
         certificate = \"{folder}/peer.crt\"\nkey = \"{folder}/peer.key\"\naddresses = [\"{SHARED}\"]\n"
    );
    let config = write_config_of(world, certificates, station, &pair);
    let text = format!("{head}\n{}", fs::read_to_string(&config).unwrap());
    fs::write(&config, text).unwrap();
    Balancer::start_on(world, station, &config)
}

/// Whether an instance is active; none while it cannot be asked.
pub(crate) fn active(world: &World, station: &str) -> Option<bool> {
    let config = world.folder.path().join(format!("{station}.toml"));
    let shown = run_program(world, "show", &config).ok()?;
    Some(shown.lines().any(|line| line.starts_with("active;")))
}
