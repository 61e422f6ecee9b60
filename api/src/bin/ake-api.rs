//! The program `ake-api`.

use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc};

use ake_api::{
    cloud::Cloud,
    config::{Config, DEFAULT_PATH, EXAMPLE},
    device, rebuild,
    serve::{self, Signals},
    show,
    store::Store,
};
use ake_api_client::ClusterId;
use clap::{Parser, Subcommand};
use ipnetwork::IpNetwork;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// AKE's service in the cloud: clusters, addresses, load balancers and nodes' bundles.
#[derive(Parser)]
#[command(name = "ake-api", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service.
    Serve {
        /// The configuration.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Says what is wrong with a configuration.
    CheckConfig {
        /// The configuration.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Prints a configuration with every key.
    ExampleConfig,
    /// Says whose VIP an address is, what a cluster has, and why a member is down.
    Show {
        /// A cluster's id or name, a VIP, or all.
        #[arg(default_value = "all")]
        about: String,
        /// The configuration.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Makes a lost database anew from what the balancers hold and Neutron has reserved; nothing is written to them.
    /// The database must be empty.
    Rebuild {
        /// The pod range of a cluster where nothing else tells it, as CLUSTER=RANGE; repeat for more.
        #[arg(long = "pod-range", value_name = "CLUSTER=RANGE", value_parser = pod_range)]
        pod_ranges: Vec<(ClusterId, IpNetwork)>,
        /// Says what would be kept, and keeps nothing.
        #[arg(long)]
        rehearse: bool,
        /// The configuration.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Says that the database is right where a balancer holds a newer state: it is overwritten.
    TakeOver {
        /// The configuration.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // a closed standard error leaves nobody to tell
            let _ = writeln!(std::io::stderr(), "ake-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command {
        Command::Serve { config } => {
            let config = Config::load(&config)?;
            tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_env_filter(
                    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn")),
                )
                .with_writer(std::io::stderr)
                .init();
            serve::serve(config, signals()?).await
        }
        Command::CheckConfig { config } => {
            let checked = Config::load(&config)?;
            serve::tls(&checked.tls)?;
            device::drivers(&checked)?;
            checked.password()?;
            Ok(writeln!(out, "{}: good", config.display())?)
        }
        Command::ExampleConfig => Ok(out.write_all(EXAMPLE.as_bytes())?),
        Command::Show { about, config } => {
            let text = show::show(&Config::load(&config)?, &about).await?;
            Ok(out.write_all(text.as_bytes())?)
        }
        Command::Rebuild { pod_ranges, rehearse, config } => {
            let config = Config::load(&config)?;
            let (cloud, drivers) = (Cloud::new(&config)?, device::drivers(&config)?);
            let store = Store::open(&config.database()?).await?;
            let pods = pod_ranges.into_iter().collect();
            let text = rebuild::rebuild(&config, &cloud, &drivers, &store, &pods, rehearse).await?;
            device::close(&drivers).await;
            store.close().await;
            Ok(out.write_all(text.as_bytes())?)
        }
        Command::TakeOver { config } => take_over(&Config::load(&config)?, &mut out).await,
    }
}

async fn take_over(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let store = Store::open(&config.database()?).await?;
    let drivers = device::drivers(config)?;
    for (url, driver) in &drivers {
        let held = driver.read().await?.version;
        let version = store.version().await?;
        if held > version {
            let raised = store.begin_epoch_above(held).await?;
            writeln!(
                out,
                "{url} holds state {held}; the database is at {raised} now and will be written there"
            )?;
        } else {
            writeln!(out, "{url} holds state {held}, the database is at {version}: nothing to take over")?;
        }
    }
    device::close(&drivers).await;
    store.close().await;
    Ok(())
}

fn pod_range(text: &str) -> Result<(ClusterId, IpNetwork), String> {
    let wrong = || "expected CLUSTER=RANGE, an id and a range".to_owned();
    let (cluster, range) = text.split_once('=').ok_or_else(wrong)?;
    Ok((cluster.parse().map_err(|_| wrong())?, range.parse().map_err(|_| wrong())?))
}

fn signals() -> anyhow::Result<Signals> {
    let (stop, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let signals = Signals { stop: stop.clone(), reload: Arc::clone(&reload) };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reload.notify_one(),
            }
        }
        stop.cancel();
    });
    Ok(signals)
}
