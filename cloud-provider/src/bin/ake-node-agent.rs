//! The node agent: one subcommand per systemd unit.

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use cloud_provider::agent::{
    api::ApiServer,
    config::{self, NodeConfig},
    csi, join, network, report, vip,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What every node of a cluster runs besides Kubernetes' own programs. Each subcommand is a systemd unit of the
/// node's image, with the capabilities that it needs and no others.
#[derive(Parser)]
#[command(name = "ake-node-agent", version)]
struct Arguments {
    #[command(subcommand)]
    job: Job,
    /// What is logged, as in `info` or `cloud_provider=debug`.
    #[arg(long, global = true, env = "AKE_LOG", default_value = "info")]
    log: String,
}

#[derive(Subcommand)]
enum Job {
    /// Redeem the claim of /etc/ake/node.json and write the files of this node's units, once.
    Join {
        /// Seconds until redeeming the claim is given up.
        #[arg(long, default_value_t = 300)]
        deadline: u64,
        /// Folder that all paths are below of.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Keep the routes to other nodes' pods, the CNI configuration and the guard rules.
    Network {
        /// How to reach the API server.
        #[arg(long, default_value = "/etc/kubernetes/node-agent.conf")]
        kubeconfig: PathBuf,
        /// Folder of the CNI configuration.
        #[arg(long, default_value = "/etc/cni/net.d")]
        cni: PathBuf,
        /// Seconds between looks when nothing seems to change.
        #[arg(long, default_value_t = 15)]
        period: u64,
    },
    /// Serve kubelet's volume calls on the sockets that systemd holds.
    Csi {
        /// Where cloud-init keeps the id of this server.
        #[arg(long, default_value = "/var/lib/cloud/data/instance-id")]
        instance_id: PathBuf,
        /// Where cloud-init keeps what was on the config drive.
        #[arg(long, default_value = "/run/cloud-init/instance-data.json")]
        instance_data: PathBuf,
        /// How many volumes may be attached to this server; without it, as many as Nova allows.
        #[arg(long)]
        max_volumes: Option<u16>,
    },
    /// Hold the VIP of the API server on lo while the API server of this master is ready.
    ApiVip {
        /// The VIP; without it, that of /etc/ake/node.json.
        #[arg(long)]
        vip: Option<IpAddr>,
        /// How to reach the API server of this machine.
        #[arg(long, default_value = "/etc/kubernetes/node-agent.conf")]
        kubeconfig: PathBuf,
        /// Milliseconds between looks.
        #[arg(long, default_value_t = 1000)]
        period: u64,
    },
    /// Wait until the API server can be used by this node. Success as well when that took too long: whoever waits has
    /// patience of its own, only a slower one.
    AwaitApi {
        /// How to reach the API server.
        #[arg(long, default_value = "/etc/kubernetes/node-agent.conf")]
        kubeconfig: PathBuf,
        /// Seconds until it is no longer waited for.
        #[arg(long, default_value_t = 120)]
        deadline: u64,
    },
    /// Tell the stack once whether this node came up, with the end of the journal if it did not.
    Report {
        /// Seconds that the node may take to come up.
        #[arg(long, default_value_t = 600)]
        deadline: u64,
        /// Folder that all paths are below of.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log);
    // The journal adds the time, and takes colours for text.
    let logging = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_ansi(false);
    match filter {
        Ok(filter) => logging.with_env_filter(filter).init(),
        Err(error) => {
            eprintln!("ake-node-agent: --log is {:?}, expected as in `info`: {error}", arguments.log);
            return ExitCode::from(2);
        }
    }
    match run(arguments.job).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(job: Job) -> anyhow::Result<()> {
    // Both clients of HTTP here bring a provider; without a default the first use would have to choose.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a TLS provider is installed already");
    }
    let stop = stop()?;
    match job {
        Job::Join { deadline, root } => {
            let options = join::Options { root, deadline: Duration::from_secs(deadline) };
            tokio::select! {
                done = join::run(&options) => Ok(done?),
                () = stop.cancelled() => bail!("stopped before the node had joined"),
            }
        }
        Job::Network { kubeconfig, cni, period } => {
            let config = node()?;
            let options = network::Options { kubeconfig, cni, period: Duration::from_secs(period.max(1)) };
            Ok(network::run(&config, &options, &stop).await?)
        }
        Job::Csi { instance_id, instance_data, max_volumes } => {
            Ok(csi::run(&csi::Options { instance_id, instance_data, max_volumes }, stop).await?)
        }
        Job::ApiVip { vip, kubeconfig, period } => {
            let vip = match vip {
                Some(vip) => vip,
                None => node()?.vip,
            };
            let options = vip::Options { kubeconfig, vip, period: Duration::from_millis(period.max(100)) };
            Ok(vip::run(&options, &stop).await?)
        }
        Job::AwaitApi { kubeconfig, deadline } => {
            let api = ApiServer::from_kubeconfig(&kubeconfig)?;
            tokio::select! {
                () = api.wait() => {}
                () = tokio::time::sleep(Duration::from_secs(deadline)) => {
                    tracing::warn!("the API server cannot be used after {deadline} s, going on without");
                }
                () = stop.cancelled() => bail!("stopped while waiting"),
            }
            Ok(())
        }
        Job::Report { deadline, root } => {
            let options = report::Options { root, deadline: Duration::from_secs(deadline) };
            tokio::select! {
                done = report::run(&options) => Ok(done?),
                () = stop.cancelled() => bail!("stopped before the stack was told"),
            }
        }
    }
}

fn node() -> anyhow::Result<NodeConfig> {
    Ok(NodeConfig::read(config::PATH.as_ref())?)
}

/// Cancelled by SIGTERM or SIGINT.
fn stop() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
