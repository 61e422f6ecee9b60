//! `ake-node-agent join`: from the claim in user data to the files of this node's units.

use std::{
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ake_api_client::Client;
use backon::{ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout_at};

use super::{
    bundle::{self, Bundle},
    config::{self, NodeConfig},
    files::{self, File},
    pki::{self, MasterKeys},
    render,
};

/// Written last; while it is there, nothing is left to do.
pub const DONE: &str = "/var/lib/ake/joined";

/// The bundle, sealed as it came, until all is written. It is handed out once per server: a run that was cut short leaves
/// it to the next one.
pub const KEPT: &str = "/var/lib/ake/bundle";

/// Where resolved lists the resolvers of this machine's networks.
const RESOLVERS: &str = "run/systemd/resolve/resolv.conf";

/// How long a refusal is taken for one that passes: Neutron may not know yet that the server has its port.
const REFUSALS: Duration = Duration::from_secs(30);

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The claim was not redeemed.
    #[error("claim {claim} at {url} not redeemed within {seconds} s: {source}")]
    Claim {
        /// Its id.
        claim: String,
        /// Of `ake-api`.
        url: String,
        /// How long it was tried.
        seconds: u64,
        /// The last answer.
        source: Box<ake_api_client::Error>,
    },
    /// The deadline was over between two tries, or in one.
    #[error("claim {claim} at {url} not redeemed within {seconds} s: {last}")]
    Late {
        /// Its id.
        claim: String,
        /// Of `ake-api`.
        url: String,
        /// How long it was tried.
        seconds: u64,
        /// The last answer.
        last: String,
    },
    /// The client of `ake-api` could not be made.
    #[error("{path}: api.ca: {source}", path = config::PATH)]
    Client {
        /// What the library said.
        source: Box<ake_api_client::Error>,
    },
    /// The bundle is of no use.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// Certificates could not be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// No address of this node leads to the API server, or to Services of a family.
    #[error("no address of this node leads to {to}: {source}")]
    Address {
        /// The API server's VIP, or the range of Services.
        to: IpAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The kept bundle could not be removed.
    #[error("remove {KEPT}: {source}")]
    Kept {
        /// What the system said.
        source: std::io::Error,
    },
}

/// What `join` works on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that all paths are below of.
    pub root: PathBuf,
    /// How long to try to redeem the claim.
    pub deadline: Duration,
}

/// Joins, unless that is done.
pub async fn run(options: &Options) -> Result<(), Error> {
    let below = |path: &str| options.root.join(path.trim_start_matches('/'));
    if below(DONE).exists() {
        tracing::info!("joined already");
        return Ok(());
    }
    let config = NodeConfig::read(&below(config::PATH))?;
    tracing::info!(cluster = %config.cluster, role = %config.role, name = config.name, "joining");
    let open = |sealed: &str| Bundle::open(sealed, &config.claim_key, config.cluster, config.role);
    let kept = std::fs::read_to_string(below(KEPT)).ok().and_then(|sealed| open(&sealed).ok());
    let bundle = match kept {
        Some(bundle) => bundle,
        None => {
            let sealed = redeem(&config, options.deadline).await?;
            let bundle = open(&sealed)?;
            files::write(&options.root, &File::secret(KEPT, sealed))?;
            bundle
        }
    };
    let addresses = own_addresses(&config, options.deadline).await?;
    let files = render(&config, &bundle, &addresses, &options.root)?;
    for file in &files {
        files::write(&options.root, file)?;
    }
    files::write(&options.root, &File::public(DONE, ""))?;
    std::fs::remove_file(below(KEPT)).map_err(|source| Error::Kept { source })?;
    tracing::info!(files = files.len(), "joined");
    Ok(())
}

fn render(
    config: &NodeConfig,
    bundle: &Bundle,
    addresses: &[IpAddr],
    root: &Path,
) -> Result<Vec<File>, Error> {
    match bundle {
        Bundle::Master(bundle) => {
            let own = config.own_master().ok_or_else(|| config::Error::Invalid {
                field: "name".into(),
                value: config.name.clone(),
                expected: "the name of one of control_plane.masters".into(),
            })?;
            let keys = MasterKeys::mint(config, addresses, bundle, jiff::Timestamp::now())?;
            let resolvers = resolvers(&std::fs::read_to_string(root.join(RESOLVERS)).unwrap_or_default());
            Ok(render::master(config, own, addresses, bundle, &keys, &resolvers))
        }
        Bundle::Worker(bundle) => Ok(render::worker(config, bundle, addresses)),
    }
}

async fn redeem(config: &NodeConfig, deadline: Duration) -> Result<String, Error> {
    let ca = Some(config.api_ca.as_bytes()).filter(|ca| !ca.is_empty());
    let client = Client::new(&config.api_url, ca, None)
        .map_err(|source| Error::Client { source: Box::new(source) })?;
    let begin = Instant::now();
    let last = Mutex::new(String::from("no answer"));
    let attempt = || client.claim(&config.claim_id);
    let tries = attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(250))
                .with_max_delay(Duration::from_secs(5))
                .with_jitter()
                .without_max_times(),
        )
        .when(|error| {
            let patience = if error.is_passing() { deadline } else { REFUSALS.min(deadline) };
            begin.elapsed() < patience
        })
        .notify(|error, delay| {
            tracing::warn!(%error, ?delay, "claim not redeemed yet");
            *last.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        });
    let (claim, url) = (config.claim_id.clone(), config.api_url.clone());
    match timeout_at(begin + deadline, tries).await {
        Ok(Ok(bundle)) => Ok(bundle.ciphertext),
        Ok(Err(source)) => {
            Err(Error::Claim { claim, url, seconds: begin.elapsed().as_secs(), source: Box::new(source) })
        }
        Err(_) => {
            let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Err(Error::Late { claim, url, seconds: deadline.as_secs(), last })
        }
    }
}

/// This machine's own addresses, one of each of the cluster's families in their order: a master's that all know, and those
/// that packets to the API server or to a Service would leave from. An address may still be looked for in the first
/// moments, so it is asked again until the deadline.
pub(super) async fn own_addresses(config: &NodeConfig, deadline: Duration) -> Result<Vec<IpAddr>, Error> {
    let known = config.own_master().map(|master| master.address);
    let mut addresses = Vec::new();
    for range in &config.service_ranges {
        let like = |address: &IpAddr| address.is_ipv4() == range.is_ipv4();
        if let Some(address) = known.filter(like) {
            addresses.push(address);
            continue;
        }
        let to = Some(config.vip).filter(like).unwrap_or(range.ip());
        let attempt = || std::future::ready(own_address(to, config.port));
        let end = Instant::now() + deadline;
        let found = attempt
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(100))
                    .with_max_delay(Duration::from_secs(1))
                    .without_max_times(),
            )
            .when(|_| Instant::now() < end)
            .await;
        addresses.push(found.map_err(|source| Error::Address { to, source })?);
    }
    Ok(addresses)
}

/// The address that packets to another one leave from. Connecting a UDP socket sends nothing. As long as an IPv6 address is
/// checked for duplicates (RFC 4862, section 5.4) the kernel takes what else there is, as `::1`: no node is known by that.
pub fn own_address(to: IpAddr, port: u16) -> std::io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((to, port))?;
    let found = socket.local_addr()?.ip();
    if reaches(found, to) {
        return Ok(found);
    }
    let why = format!("packets to {to} would leave from {found}, which answers do not come back to");
    Err(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, why))
}

/// Whether an answer from there comes back: an address of this machine alone, or of one link, is for the like of it.
fn reaches(from: IpAddr, to: IpAddr) -> bool {
    let is_of_link = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    (!from.is_loopback() || to.is_loopback())
        && (!is_of_link(from) || is_of_link(to))
        && !from.is_unspecified()
}

/// The resolvers of a resolv.conf that others can use as well.
fn resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok())
        .filter(|address| !address.is_loopback())
        .collect()
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
