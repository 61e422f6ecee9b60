//! The configuration file.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// The configuration of a balancer, with every key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where packets for the VIPs come in, and go out to members.
    pub interface: String,
    /// How the data plane is attached.
    #[serde(default)]
    pub mode: Mode,
    /// VIPs in these ranges are on the link: neighbours that ask for them by ARP or neighbour discovery get
    /// an answer. All others are routed to the balancer.
    #[serde(default)]
    pub on_link: Vec<IpNetwork>,
    /// Whether members' MAC addresses are asked for on the link where the state has none.
    #[serde(default)]
    pub learn: bool,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where Prometheus metrics are served, as plain HTTP; nowhere if unset.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Where the last good state is kept.
    #[serde(default = "state_file")]
    pub state: PathBuf,
    /// Where `ake-xdp show` asks.
    #[serde(default = "socket")]
    pub socket: PathBuf,
    /// Where the data plane is pinned: a BPF file system.
    #[serde(default = "pins")]
    pub pins: PathBuf,
    /// Certificates of the API.
    pub tls: Tls,
    /// The other instance of a pair, if there is one.
    #[serde(default)]
    pub pair: Option<Pair>,
    /// Health checks.
    #[serde(default)]
    pub check: Check,
    /// Sizes of the kernel's tables.
    #[serde(default)]
    pub limits: Limits,
}

/// How the data plane is attached to the interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Generic on veth, else native, else generic where the driver has no native one.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// After the driver, in the network stack: slower, on every interface.
    Generic,
}

/// Certificates of the API, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The balancer's certificate and its chain.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Who signs the certificates of those who may write.
    pub client_ca: PathBuf,
}

/// The other instance of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Its API: it is told of flows, so that it can take them over.
    pub peer: String,
    /// Who signs its certificate, as PEM.
    pub ca: PathBuf,
    /// The certificate to show it, as PEM: one that its `tls.client_ca` signed.
    pub certificate: PathBuf,
    /// The key of that certificate, as PEM.
    pub key: PathBuf,
    /// Addresses that VRRP moves: the instance whose host has one is active. Without them, both are.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// How members are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    /// Milliseconds from one check of a member to the next.
    pub period_ms: u64,
    /// Milliseconds until a check without an answer has failed.
    pub timeout_ms: u64,
    /// Good checks in a row that bring a member back.
    pub rise: u32,
    /// Failed checks in a row that take a member out.
    pub fall: u32,
}

impl Default for Check {
    fn default() -> Self {
        Self { period_ms: 1000, timeout_ms: 1000, rise: 2, fall: 2 }
    }
}

impl Check {
    /// From one check to the next.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms)
    }

    /// Until a check has failed.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Sizes of the kernel's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Flows that are remembered, at least 262144: up to the next power of two. 56 bytes each, taken at start.
    pub flows: u32,
    /// New flows per processor and second that are remembered; those above go by the ring alone.
    pub new_flows: u32,
    /// Datagrams in fragments that are under way; the least recently used gives way.
    pub fragments: u32,
    /// Ports of VIPs, and VIPs.
    pub listeners: u32,
    /// Pools.
    pub pools: u32,
    /// Members, counted once per pool.
    pub members: u32,
    /// Source ranges of all load balancers.
    pub source_ranges: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 262_144,
            new_flows: 25_000,
            fragments: 16_384,
            listeners: 16_384,
            pools: 16_384,
            members: 65_535,
            source_ranges: 65_536,
        }
    }
}

fn state_file() -> PathBuf {
    "/var/lib/ake-xdp/state.json".into()
}

fn socket() -> PathBuf {
    "/run/ake-xdp/show.sock".into()
}

fn pins() -> PathBuf {
    "/run/ake-xdp-pins".into()
}

/// A configuration to begin with; `ake-xdp example-config` prints it. Commented keys show their defaults.
pub const EXAMPLE: &str = r#"# Where packets for the VIPs come in, and go out to members.
interface = "eth0"

# How the data plane is attached: "native" (in the driver), "generic" (slower, on every interface), or
# "auto": generic on veth, else native, else generic where the driver has no native one.
#mode = "auto"

# VIPs in these ranges are on the link: neighbours that ask for them by ARP or neighbour discovery get an
# answer. All others are routed to the balancer.
#on_link = []

# Whether members' MAC addresses are asked for on the link, by ARP or neighbour discovery, where the state has none.
# Where there is Neutron, it has them.
#learn = false

# Where the API listens.
listen = "192.168.77.2:9512"

# Where Prometheus metrics are served, as plain HTTP; nowhere if unset.
metrics = "127.0.0.1:9513"

# Where the last good state is kept. It is loaded at start, before the API listens.
#state = "/var/lib/ake-xdp/state.json"

# Where `ake-xdp show` asks. Whoever may write to the socket may read state and counters.
#socket = "/run/ake-xdp/show.sock"

# Where the data plane is pinned, so that it works on while the program is restarted: a BPF file system, which is
# mounted if absent (that needs root: `ake-xdp prepare`). One folder for each balancer.
#pins = "/run/ake-xdp-pins"

# Certificates of the API, all PEM.
[tls]
# The balancer's certificate and its chain. It must name the address or host that ake-api calls.
certificate = "/etc/ake/xdp.crt"
# The key of that certificate.
key = "/etc/ake/xdp.key"
# Who signs the certificates of those who may read and write: ake-api's instances.
client_ca = "/etc/ake/xdp-clients.crt"

# The other instance of a pair, which is told of flows so that it can take them over.
#[pair]
# Its API.
#peer = "https://192.168.77.3:9512"
# Who signs its certificate.
#ca = "/etc/ake/xdp-servers.crt"
# The certificate and key to show it: one that its tls.client_ca signed.
#certificate = "/etc/ake/xdp-peer.crt"
#key = "/etc/ake/xdp-peer.key"
# Addresses that VRRP moves between the two, and that the VIPs are routed to: the instance whose host has one is
# active. Without them, both are, and routers spread flows over them.
#addresses = ["192.168.77.4", "fd00:77::4"]

# How members are checked. Checks come from the balancer's own address.
[check]
# Milliseconds from one check of a member to the next, 50 to 3600000.
#period_ms = 1000
# Milliseconds until a check without an answer has failed, 10 to 60000.
#timeout_ms = 1000
# Good checks in a row that bring a member back, 1 to 100.
#rise = 2
# Failed checks in a row that take a member out, 1 to 100.
#fall = 2

# Sizes of the kernel's tables.
[limits]
# Flows that are remembered, at least 262144: up to the next power of two. 56 bytes each, taken at start.
#flows = 262144
# New flows per processor and second that are remembered; those above go by the ring alone.
#new_flows = 25000
# Datagrams in fragments that are under way; the least recently used gives way.
#fragments = 16384
# Ports of VIPs, and VIPs.
#listeners = 16384
# Pools.
#pools = 16384
# Members, counted once per pool; at most 65535.
#members = 65535
# Source ranges of all load balancers.
#source_ranges = 65536
"#;

/// Why a configuration does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is no TOML, or has other keys.
    #[error("{}: {cause}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: Box<toml::de::Error>,
    },
    /// A value that does not serve.
    #[error("{}: {key} = {value}: expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What stood there.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.into(), cause })?;
        Self::parse(path, &text)
    }

    /// Checks a file's text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|cause| ConfigError::Parse { path: path.into(), cause: cause.into() })?;
        let within = |key, value: u64, low: u64, high: u64, expected| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Value { path: path.into(), key, value: value.to_string(), expected })
        };
        let Check { period_ms, timeout_ms, rise, fall } = config.check;
        within("check.period_ms", period_ms, 50, 3_600_000, "50 to 3600000")?;
        within("check.timeout_ms", timeout_ms, 10, 60_000, "10 to 60000")?;
        within("check.rise", rise.into(), 1, 100, "1 to 100")?;
        within("check.fall", fall.into(), 1, 100, "1 to 100")?;
        let Limits { flows, new_flows, fragments, listeners, pools, members, source_ranges } = config.limits;
        within("limits.flows", flows.into(), 1024, 1 << 28, "1024 to 268435456")?;
        within("limits.new_flows", new_flows.into(), 0, 1 << 31, "0 to 2147483648")?;
        within("limits.fragments", fragments.into(), 1024, 1 << 24, "1024 to 16777216")?;
        within("limits.listeners", listeners.into(), 16, 1 << 20, "16 to 1048576")?;
        within("limits.pools", pools.into(), 16, 1 << 20, "16 to 1048576")?;
        within("limits.members", members.into(), 16, 65_535, "16 to 65535")?;
        within("limits.source_ranges", source_ranges.into(), 16, 1 << 24, "16 to 16777216")?;
        if let Some(pair) = config.pair.as_ref().filter(|pair| !pair.peer.starts_with("https://")) {
            let (key, expected) = ("pair.peer", "https://host:port");
            let value = format!("{:?}", pair.peer);
            return Err(ConfigError::Value { path: path.into(), key, value, expected });
        }
        if config.interface.is_empty() || config.interface.len() > 15 {
            let (key, expected) = ("interface", "the name of an interface, 1 to 15 characters");
            return Err(ConfigError::Value {
                path: path.into(),
                key,
                value: format!("{:?}", config.interface),
                expected,
            });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("xdp.toml"), text)
    }

    #[test]
    fn the_example_has_every_key_with_its_default() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!((config.check.clone(), config.limits), (Check::default(), Limits::default()));
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let mut whole: toml::Table = toml::from_str(&uncommented).unwrap();
        assert!(parse(&uncommented).unwrap().pair.is_some_and(|pair| pair.addresses.len() == 2));
        whole.remove("pair");
        assert_eq!(toml::Table::try_from(&config).unwrap(), whole);
    }

    #[test]
    fn the_reference_holds_the_example() {
        let page = include_str!("../../../docs/reference/ake-xdp.md");
        assert!(page.contains(&format!("```toml\n{EXAMPLE}```")), "print it with `ake-xdp example-config`");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = parse(&EXAMPLE.replace("#rise = 2", "rise = 0")).unwrap_err();
        assert_eq!(error.to_string(), "xdp.toml: check.rise = 0: expected 1 to 100");
        let error = parse(&EXAMPLE.replace("#mode = \"auto\"", "mode = \"fast\"")).unwrap_err();
        assert!(error.to_string().contains("unknown variant `fast`"), "{error}");
        let error = parse(&EXAMPLE.replace("[check]", "[check]\nperiod = 3")).unwrap_err();
        assert!(error.to_string().contains("unknown field `period`"), "{error}");
    }
}
