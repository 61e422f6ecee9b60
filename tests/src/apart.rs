//! Measurements that need a network of their own: the program runs itself again in namespaces, and whatever it makes
//! and starts there goes with them, however it ends.

use std::{
    fs::File,
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

pub use ake_lab::built;
use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use crate::{complaint, measure::Row, output, raw, wait_for};

/// Set for the program that runs apart.
const APART: &str = "AKE_BENCH_APART";

/// Whether this is the program that runs apart.
#[must_use]
pub fn is_apart() -> bool {
    std::env::var_os(APART).is_some()
}

/// The kernel's limits of neighbours, which all namespaces share.
const NEIGHBOURS: [(&str, u64); 3] = [("gc_thresh1", 8192), ("gc_thresh2", 12_288), ("gc_thresh3", 16_384)];

/// Raises the computer's limits of neighbours to what a network of some thousand nodes takes; never lowers them.
pub fn allow_neighbours() -> Result<()> {
    for (name, wanted) in NEIGHBOURS {
        let file = format!("/proc/sys/net/ipv4/neigh/default/{name}");
        let has: u64 = std::fs::read_to_string(&file)?.trim().parse()?;
        if has < wanted {
            std::fs::write(&file, wanted.to_string()).with_context(|| file)?;
        }
    }
    Ok(())
}

/// Has this program measure a part apart; what came out.
pub fn measure(part: &str) -> Result<Vec<Row>> {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .args(["--only", part])
        .env(APART, "1")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let out = raw(&mut command)?;
    if !out.status.success() {
        bail!("{part}: {}: {}", out.status, complaint(&out));
    }
    serde_json::from_slice(&out.stdout).with_context(|| format!("{part}: no rows"))
}

/// Makes the namespaces usable: names of others in them, and devices as they are here. Names and devices of the
/// computer stay out of sight.
pub fn begin() -> Result<()> {
    std::fs::create_dir_all("/run/netns")?;
    for line in ["mount -t tmpfs none /run/netns", "mount -t sysfs none /sys", "ip link set lo up"] {
        run(line)?;
    }
    Ok(())
}

/// Runs a command whose words have no spaces.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    output(Command::new(words.next().unwrap_or_default()).args(words))
}

/// A command in another namespace.
#[must_use]
pub fn inside(host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host]).arg(program);
    command
}

/// Sets values below `/proc/sys/net` of a host.
pub fn set(host: &str, settings: &[(&str, &str)]) -> Result<()> {
    for (key, value) in settings {
        output(inside(host, "sysctl").args(["-q", "-w", &format!("net.{key}={value}")]))?;
    }
    Ok(())
}

/// A bridge that hosts are connected to.
pub fn bridge(address: Option<&str>) -> Result<()> {
    run("ip link add br0 type bridge mcast_snooping 0")?;
    run("ip link set br0 up")?;
    address.map_or(Ok(String::new()), |address| run(&format!("ip address add {address} dev br0"))).map(drop)
}

/// A host at the bridge, by its MAC address and an address with its prefix length.
pub fn host(name: &str, mac: &str, address: &str) -> Result<()> {
    run(&format!("ip netns add {name}"))?;
    run(&format!("ip -n {name} link set lo up"))?;
    run(&format!("ip link add dev {name} type veth peer name eth0 address {mac} netns {name}"))?;
    run(&format!("ip link set dev {name} master br0 up"))?;
    run(&format!("ip -n {name} address add {address} dev eth0"))?;
    run(&format!("ip -n {name} link set eth0 up"))?;
    // What comes in need not be what would be sent out there: that is what direct server return is about.
    set(name, &[("ipv4.conf.all.rp_filter", "0"), ("ipv4.conf.eth0.rp_filter", "0")])
}

/// A program that runs until this goes.
pub struct Running {
    child: Child,
    /// Where it writes what it says.
    pub log: PathBuf,
}

impl Running {
    /// Starts it; what it says goes to a file.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let command = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {}", crate::shown(command)))?;
        Ok(Self { child, log })
    }

    /// Waits until it has said a word.
    pub fn wait_for(&mut self, word: &str) -> Result<()> {
        let what = format!("{word:?} in {}", self.log.display());
        wait_for(&what, Duration::from_secs(240), || {
            let mut said = String::new();
            File::open(&self.log)?.read_to_string(&mut said)?;
            if let Some(status) = self.child.try_wait()? {
                bail!("it has ended: {status}: {said}");
            }
            Ok(said.contains(word).then_some(()))
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> Result<()> {
        run(&format!("kill {}", self.child.id()))?;
        self.child.wait()?;
        Ok(())
    }

    /// Resident memory of it, in MiB; of the program itself where it was started in another namespace.
    pub fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
        Ok(resident.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes `ca.crt`, `own.crt` and `own.key`, for all of these addresses.
pub fn certificates(folder: &Path, addresses: &[IpAddr]) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut own = CertificateParams::new(Vec::new())?;
    own.subject_alt_names = addresses.iter().map(|address| SanType::IpAddress(*address)).collect();
    let own = own.signed_by(&key, &issuer)?;
    for (name, text) in [("ca.crt", issuer.pem()), ("own.crt", own.pem()), ("own.key", key.serialize_pem())] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Writes the configuration of a balancer at `eth0`; `more` stands before `[limits]`.
pub fn balancer_config(folder: &Path, address: &str, more: &str) -> Result<PathBuf> {
    let here = folder.display();
    let text = format!(
        "interface = \"eth0\"\nlisten = \"{address}:9512\"\nmetrics = \"{address}:9513\"\nstate = \"{here}/state.json\"\n\
         socket = \"{here}/show.sock\"\npins = \"{here}/pins\"\n\
         [tls]\ncertificate = \"{here}/own.crt\"\nkey = \"{here}/own.key\"\nclient_ca = \"{here}/ca.crt\"\n{more}\n"
    );
    let file = folder.join("xdp.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}
