//! The lab's balancers: one, or a pair with keepalived's VRRP between the two, as the guide for operators has it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::Lab;
use crate::{Dirs, ake, detached, shell};

/// What VRRP moves between two balancers, and VIPs are routed to.
pub const SHARED: [&str; 2] = ["192.168.77.4", "fd00:77::4"];
/// The example for operators; the lab changes no more of it than they must.
const KEEPALIVED: &str = include_str!("../../../lb-driver/xdp/keepalived/keepalived.conf");
const CONFIG: &str = include_str!("../ake/xdp.toml");
const PAIR: &str = include_str!("../ake/pair.toml");

/// How many a lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Balancers {
    /// VIPs are routed to its own address.
    #[value(name = "1")]
    One,
    /// VIPs are routed to the addresses that VRRP moves.
    #[value(name = "2")]
    Two,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Name of its service in the lab: `ake-xdp` or `ake-xdp2`.
    pub name: &'static str,
    /// Name of the service that speaks VRRP beside it.
    pub vrrp: &'static str,
    /// Its host, which is the name of a network namespace.
    pub host: &'static str,
    /// Its wire's end at the switch.
    pub wire: &'static str,
    /// Its own addresses.
    pub addresses: [&'static str; 2],
    /// Where its API listens.
    pub(crate) listen: &'static str,
    /// Folder of what it keeps, and name of its configuration.
    folder: &'static str,
    /// Of its router ID and priority, as keepalived is told them.
    vrrp_of: [&'static str; 2],
}

/// The one that VRRP prefers, and the other one.
pub const BALANCERS: [Balancer; 2] = [
    Balancer {
        name: "ake-xdp",
        vrrp: "keepalived",
        host: "balancer",
        wire: "p-balancer",
        addresses: ["192.168.77.2", "fd00:77::2"],
        listen: "192.168.77.2:9512",
        folder: "xdp",
        vrrp_of: ["router_id balancer-1", "priority 150"],
    },
    Balancer {
        name: "ake-xdp2",
        vrrp: "keepalived2",
        host: "balancer2",
        wire: "p-balancer2",
        addresses: ["192.168.77.3", "fd00:77::3"],
        listen: "192.168.77.3:9512",
        folder: "xdp2",
        vrrp_of: ["router_id balancer-2", "priority 100"],
    },
];

impl Balancers {
    /// Those of a lab that was set up.
    pub fn of(dirs: &Dirs) -> Self {
        if BALANCERS[1].config(dirs).exists() { Self::Two } else { Self::One }
    }

    /// They themselves.
    pub fn list(self) -> &'static [Balancer] {
        match self {
            Self::One => &BALANCERS[..1],
            Self::Two => &BALANCERS,
        }
    }
}

impl Balancer {
    /// Its configuration file.
    pub fn config(&self, dirs: &Dirs) -> PathBuf {
        dirs.ake().join(format!("{}.toml", self.folder))
    }

    /// The file of what it holds.
    pub fn state(&self, dirs: &Dirs) -> PathBuf {
        dirs.ake().join(self.folder).join("state.json")
    }

    /// The configuration of VRRP beside it.
    pub(crate) fn vrrp_config(&self, dirs: &Dirs) -> PathBuf {
        dirs.ake().join(format!("{}.conf", self.vrrp))
    }

    /// The URL of its API.
    pub fn url(&self) -> String {
        format!("https://{}", self.listen)
    }

    fn other(&self) -> &'static Balancer {
        if self == &BALANCERS[0] { &BALANCERS[1] } else { &BALANCERS[0] }
    }

    /// Writes its configuration; one of a pair tells the other one of flows, or does not.
    fn configure(&self, dirs: &Dirs, balancers: Balancers, tells: bool) -> Result<()> {
        let mut text = CONFIG.to_owned();
        if balancers == Balancers::Two && tells {
            text.push('\n');
            text.push_str(PAIR);
        }
        let text = text
            .replace("{{own}}", self.folder)
            .replace("{{folder}}", &dirs.ake().display().to_string())
            .replace("{{address}}", self.addresses[0])
            .replace("{{peer}}", &self.other().url())
            .replace("{{shared}}", &quoted(SHARED));
        let path = self.config(dirs);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// keepalived's configuration: the example, with the place of the program in this lab.
    fn vrrp(&self, dirs: &Dirs) -> String {
        let program = ake::program(dirs, "ake-xdp");
        let alive = format!("\"{} alive --config {}\"", program.display(), self.config(dirs).display());
        let [router, priority] = self.vrrp_of;
        let [first_router, first_priority] = BALANCERS[0].vrrp_of;
        KEEPALIVED
            .replace(first_router, router)
            .replace(first_priority, priority)
            .replace("\"/usr/bin/ake-xdp alive\"", &alive)
    }
}

/// Words as an array of TOML has them, without its brackets.
pub(crate) fn quoted<T: std::fmt::Display>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// Writes what balancers and VRRP are told.
pub(crate) fn configure(dirs: &Dirs, balancers: Balancers) -> Result<()> {
    for balancer in balancers.list() {
        let folder = dirs.ake().join(balancer.folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        balancer.configure(dirs, balancers, true)?;
        if balancers == Balancers::Two {
            let path = balancer.vrrp_config(dirs);
            fs::write(&path, balancer.vrrp(dirs))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// What operators of balancers do, and what happens to balancers.
impl Lab {
    /// The balancers, the one that VRRP prefers first.
    pub fn balancers(&self) -> &'static [Balancer] {
        Balancers::of(self.dirs()).list()
    }

    /// The balancer that packets for VIPs are sent to, if there is one.
    pub fn active_balancer(&self) -> Result<Option<&'static Balancer>> {
        let [only] = self.balancers() else {
            for balancer in self.balancers() {
                let shown = shell::run(
                    self.command(balancer.host, "ip").args(["-4", "-o", "address", "show", "to", SHARED[0]]),
                )?;
                if !shown.trim().is_empty() {
                    return Ok(Some(balancer));
                }
            }
            return Ok(None);
        };
        Ok(Some(only))
    }

    /// What the balancer says of itself that packets for VIPs are sent to; the first one where they are sent to none.
    pub fn balancer_status(&self) -> Result<Value> {
        self.status_of(self.active_balancer()?.unwrap_or(&BALANCERS[0]))
    }

    /// What a balancer says of itself, asked as `ake-api` asks it.
    pub fn status_of(&self, balancer: &Balancer) -> Result<Value> {
        let file = |name: &str| self.dirs().ake().join(name);
        let said = shell::run(
            self.command("control", "curl")
                .args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--cacert"])
                .arg(file("device-ca.pem"))
                .arg("--cert")
                .arg(file("device-client.pem"))
                .arg("--key")
                .arg(file("device-client.key"))
                .arg(format!("{}/v1/status", balancer.url())),
        )?;
        serde_json::from_str(&said).with_context(|| format!("the balancer's status is not JSON: {said}"))
    }

    /// The flows that a balancer remembers, as `ake-xdp flows --json` prints them.
    pub fn flows_of(&self, balancer: &Balancer) -> Result<Value> {
        let said = self.xdp(balancer, &["flows", "--json"])?;
        serde_json::from_str(&said)
            .with_context(|| format!("flows of {} are not JSON: {said}", balancer.name))
    }

    /// One of `ake-xdp`'s commands on a balancer's host; what it printed.
    pub fn xdp(&self, balancer: &Balancer, words: &[&str]) -> Result<String> {
        let program = ake::program(self.dirs(), "ake-xdp");
        shell::run(
            self.command(balancer.host, program)
                .args(words)
                .arg("--config")
                .arg(balancer.config(self.dirs())),
        )
    }

    /// Pulls a balancer's cable out of the switch, or puts it back.
    pub fn cable(&self, balancer: &Balancer, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        shell::run(self.command("switch", "ip").args(["link", "set", balancer.wire, state])).map(drop)
    }

    /// Has the two balancers tell one another of flows, or not. Both are restarted; the one on standby forgets what it
    /// was told, as a new machine in its place would.
    pub fn tell_flows(&self, tells: bool) -> Result<()> {
        if self.balancers().len() != 2 {
            bail!("the lab {:?} has one balancer: expected two", self.name());
        }
        let active = self.active_balancer()?;
        let (on_standby, others): (Vec<_>, Vec<_>) =
            self.balancers().iter().partition(|balancer| Some(*balancer) != active);
        for balancer in on_standby.into_iter().chain(others) {
            balancer.configure(self.dirs(), Balancers::Two, tells)?;
            detached::stop(self.cage(), &[balancer.name])?;
            if Some(balancer) != active {
                self.xdp(balancer, &["detach"])?;
            }
            ake::start_one(self, balancer.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(folder: &std::path::Path) -> Dirs {
        let dirs = Dirs::in_dirs("lab", folder, folder).unwrap();
        fs::create_dir_all(dirs.ake()).unwrap();
        dirs
    }

    #[test]
    fn a_lab_has_the_balancers_that_it_was_set_up_with() {
        let home = tempfile::tempdir().unwrap();
        let dirs = dirs(home.path());
        for (balancers, names) in
            [(Balancers::One, vec!["ake-xdp"]), (Balancers::Two, vec!["ake-xdp", "ake-xdp2"])]
        {
            configure(&dirs, balancers).unwrap();
            assert_eq!(Balancers::of(&dirs), balancers);
            assert_eq!(balancers.list().iter().map(|balancer| balancer.name).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn configurations_are_filled_in_and_differ_where_they_must() {
        let home = tempfile::tempdir().unwrap();
        let dirs = dirs(home.path());
        configure(&dirs, Balancers::Two).unwrap();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap();
            assert!(!text.contains("{{"), "{text}");
            text
        };
        let [one, two] = &BALANCERS;
        assert!(read(one.config(&dirs)).contains("peer = \"https://192.168.77.3:9512\""));
        assert!(read(two.config(&dirs)).contains("peer = \"https://192.168.77.2:9512\""));
        let (first, second) = (read(one.vrrp_config(&dirs)), read(two.vrrp_config(&dirs)));
        assert_eq!(first.matches("priority 150").count(), 2);
        assert_eq!(second.matches("priority 100").count(), 2);
        assert!(second.contains("router_id balancer-2") && second.contains("/xdp2.toml\""), "{second}");
        for address in SHARED {
            assert!(first.contains(address) && second.contains(address), "{address}");
        }
        two.configure(&dirs, Balancers::Two, false).unwrap();
        assert!(!read(two.config(&dirs)).contains("[pair]"));
    }
}
