//! `ake-xdp`: the balancer's program.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ake_xdp::{
    announce::Announcer,
    config::{Config, EXAMPLE},
    engine::{Engine, FlowStatus, Learned},
    health::Checker,
    link::{self, Interface},
    maps::DataPlane,
    metrics, neighbours,
    pins::{self, Pins},
    plan::Book,
    probe::{self, Prober},
    server,
    store::Store,
    sync::{self, Peer},
};
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use lb_driver::vendor::xdp::wire;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;

/// AKE's own balancer.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Balances until it is told to stop (SIGTERM). The data plane stays at work until the next start or `detach`.
    Serve(WithConfig),
    /// Makes the folder of the data plane's pins, as root, for a user who may not mount.
    Prepare {
        #[command(flatten)]
        with: WithConfig,
        /// Whose folder it shall be.
        #[arg(long)]
        user: Option<String>,
    },
    /// Takes the data plane away that a stopped balancer left at work, with flows and counters.
    Detach(WithConfig),
    /// Has the data plane that a stopped balancer of a pair left at work answer no neighbours: the other instance does.
    StandDown(WithConfig),
    /// Succeeds if the balancer of this host is fit for packets; what VRRP asks.
    Alive(WithConfig),
    /// Checks the configuration, its certificates and its interface, and says what is wrong.
    CheckConfig(WithConfig),
    /// Prints a configuration to begin with: every key, what it is and its default.
    ExampleConfig,
    /// Prints pools, members and traffic of the balancer that runs on this host.
    Show {
        #[command(flatten)]
        with: WithConfig,
        /// As JSON, as GET /v1/status answers.
        #[arg(long)]
        json: bool,
    },
    /// Prints the flows that the balancer of this host remembers, with their members, and how many of them another instance
    /// would send elsewhere that was not told of them.
    Flows {
        #[command(flatten)]
        with: WithConfig,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct WithConfig {
    /// The configuration file.
    #[arg(long, default_value = "/etc/ake/xdp.toml")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("AKE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    match Arguments::parse().command {
        Command::Serve(with) => serve(Config::load(&with.config)?).await,
        Command::CheckConfig(with) => {
            let config = Config::load(&with.config)?;
            server::tls(&config.tls)?;
            config.pair.as_ref().map(Peer::new).transpose()?;
            let interface = link::find(&config.interface).await?;
            println!("{}: good: interface {} ({})", with.config.display(), interface.name, interface.mac);
            Ok(())
        }
        Command::Prepare { with, user } => prepare(&Config::load(&with.config)?.pins, user.as_deref()),
        Command::Detach(with) => {
            let config = Config::load(&with.config)?;
            let detached = Pins::open(&config.pins)?.clear()?;
            probe::unroute(&link::find(&config.interface).await?).await?;
            match detached.first() {
                Some(attachment) => println!("detached from the interface of index {}", attachment.interface),
                None => println!("nothing was attached"),
            }
            Ok(())
        }
        Command::StandDown(with) => {
            let config = Config::load(&with.config)?;
            // Where VRRP has no part, nobody else would answer.
            if config.pair.is_some_and(|pair| !pair.addresses.is_empty()) {
                DataPlane::stand_down(&Pins::open(&config.pins)?)?;
            }
            Ok(())
        }
        Command::ExampleConfig => {
            print!("{EXAMPLE}");
            Ok(())
        }
        Command::Alive(with) => {
            let config = Config::load(&with.config)?;
            ask(&config, server::ALIVE).await?;
            Ok(())
        }
        Command::Show { with, json } => show(&Config::load(&with.config)?, json).await,
        Command::Flows { with, json } => flows(&Config::load(&with.config)?, json).await,
    }
}

fn prepare(folder: &Path, user: Option<&str>) -> anyhow::Result<()> {
    pins::prepare(folder)?;
    if let Some(name) = user {
        let user = nix::unistd::User::from_name(name)?.with_context(|| format!("no user {name:?}"))?;
        let owned = nix::unistd::chown(folder, Some(user.uid), Some(user.gid));
        owned.with_context(|| format!("pins = {}: giving it to {name:?}", folder.display()))?;
    }
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let tls = server::tls(&config.tls)?;
    let interface = link::find(&config.interface).await?;
    // Whoever cannot listen shall not touch what is at work.
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listen = {}", config.listen))?;
    let metrics = match config.metrics {
        Some(address) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("metrics = {address}"))?)
        }
        None => None,
    };
    let plane =
        DataPlane::resume(interface.mac, &config.limits, Pins::open(&config.pins)?, config.pair.is_some())?;
    let (reports, mut reported) = mpsc::unbounded_channel();
    let checker = Checker::new(config.check.clone(), reports).context("the client of HTTP checks")?;
    let prober = match probe::route(&interface).await {
        Ok(()) => Prober::start(&interface, config.limits.members),
        Err(error) => Err(error),
    };
    let checker = match prober {
        Ok(prober) => checker.with(prober),
        // Linux before 6.6, most of the time. Such checks fail, and say why.
        Err(error) => {
            tracing::warn!(%error, "VIPs cannot be checked by way of members");
            checker
        }
    };
    let book = Book::new(config.limits, config.on_link.clone());
    let (asks, asked) = watch::channel(BTreeSet::new());
    let learned = match config.learn {
        // What is known is there before the data plane is: a restart takes no member away.
        true => Some(Learned { macs: neighbours::known(&interface).await?, asks }),
        false => None,
    };
    let announcer = match config.on_link.is_empty() {
        true => None,
        false => Some(Announcer::open(&interface)?),
    };
    let store = Store::new(&config.state);
    let engine = Arc::new(Engine::start_learned(plane, checker, store, book, learned)?);
    // One on standby answers for nothing from its first packet on; and who stood down before may be active again.
    engine.set_active(match config.pair.as_ref().filter(|pair| !pair.addresses.is_empty()) {
        Some(pair) => link::present(&pair.addresses).await?,
        None => true,
    })?;
    match engine.attach(&interface, config.mode)? {
        Some(mode) => tracing::info!(interface = %interface.name, mac = %interface.mac, ?mode, "attached"),
        None => tracing::warn!("no state is kept: the data plane that was left stays until one comes"),
    }
    let local = server::bind_local(&config.socket)
        .with_context(|| format!("socket = {}", config.socket.display()))?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    if let Some(listener) = metrics {
        tasks.spawn(server::serve_plain(listener, metrics::router(engine.clone()), stop.clone()));
    }
    tasks.spawn(server::serve_local(local, server::router(engine.clone(), false), stop.clone()));
    tasks.spawn(server::serve_tls(listener, tls, server::router(engine.clone(), true), stop.clone()));
    if let Some(announcer) = announcer {
        tasks.spawn(announcer.keep_told(engine.on_link(), stop.clone()));
    }
    if config.learn {
        tasks.spawn(learn(engine.clone(), interface, asked, stop.clone()));
    }
    if let Some(pair) = config.pair {
        engine.pair();
        tasks.spawn(Peer::new(&pair)?.keep_told(engine.clone(), stop.clone()));
        if !pair.addresses.is_empty() {
            tasks.spawn(follow_role(engine.clone(), pair.addresses, stop.clone()));
        }
    }
    tracing::info!(listen = %config.listen, "ready");

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(first) = reported.recv() => {
                let mut reports = vec![first];
                while let Ok(next) = reported.try_recv() {
                    reports.push(next);
                }
                let engine = engine.clone();
                let done = tokio::task::spawn_blocking(move || engine.report(reports)).await?;
                if let Err(error) = done {
                    tracing::error!(%error, "members' health");
                }
            }
        }
    }
    tracing::info!("stopping");
    stop.cancel();
    // whoever waits for news gets them now, and waits for another process
    engine.mark();
    tasks.close();
    // Open requests get a moment. The data plane stays: the next process takes it over.
    if tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await.is_err() {
        tracing::warn!("requests were still open");
    }
    Ok(())
}

/// Takes in members' MAC addresses as neighbours tell them.
async fn learn(
    engine: Arc<Engine>,
    interface: Interface,
    asked: watch::Receiver<BTreeSet<IpAddr>>,
    stop: CancellationToken,
) {
    let (tell, mut told) = watch::channel(BTreeMap::new());
    let take_in = async {
        while told.changed().await.is_ok() {
            let (engine, macs) = (engine.clone(), told.borrow_and_update().clone());
            match tokio::task::spawn_blocking(move || engine.learn(macs)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "members' MAC addresses"),
                Err(error) => tracing::error!(%error, "members' MAC addresses"),
            }
        }
    };
    let (followed, ()) = tokio::join!(neighbours::follow(interface, asked, tell, stop), take_in);
    if let Err(error) = followed {
        tracing::error!(%error, "members' MAC addresses");
    }
}

/// Is active while this host has one of the addresses.
async fn follow_role(engine: Arc<Engine>, addresses: Vec<IpAddr>, stop: CancellationToken) {
    let tell = |active| {
        if let Err(error) = engine.set_active(active) {
            tracing::error!(%error, "role");
        }
    };
    if let Err(error) = link::presence(addresses, tell, stop).await {
        tracing::error!(%error, "role");
    }
}

/// Asks the balancer of this host.
async fn ask(config: &Config, path: &str) -> anyhow::Result<reqwest::Response> {
    let client = reqwest::Client::builder()
        .unix_socket(config.socket.clone())
        .tls_built_in_root_certs(false)
        .timeout(Duration::from_secs(5))
        .build()?;
    let answer = client.get(format!("http://ake-xdp{path}")).send().await;
    let answer =
        answer.with_context(|| format!("asking {}: is ake-xdp running?", config.socket.display()))?;
    Ok(answer.error_for_status()?)
}

async fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    let status: wire::StatusDocument = ask(config, wire::STATUS).await?.json().await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    match status.version {
        Some(version) => println!("version {version}"),
        None => println!("no state yet"),
    }
    if let Some(pair) = status.pair {
        let role = if pair.active { "active" } else { "on standby" };
        let peer = if pair.peer_told { "knows our flows" } else { "is not told of our flows" };
        println!("{role}; the other instance {peer}: {} told, {} heard", pair.flows_told, pair.flows_heard);
    }
    for pool in &status.pools {
        println!("pool {} (ring of {})", pool.owner, pool.ring_size);
        for member in &pool.members {
            let share = 100.0 * f64::from(member.slots) / f64::from(pool.ring_size.max(1));
            let (name, address, flows) = (&member.name, member.address, member.new_flows);
            let reason = member.reason.as_deref().unwrap_or("well");
            println!("  {name} {address}: {share:.1} % of new flows, {flows} so far; {reason}");
        }
    }
    for balancer in &status.load_balancers {
        println!("load balancer {} on {}", balancer.owner, balancer.vip);
        for listener in &balancer.listeners {
            let wire::ListenerStatus { protocol, port, packets, bytes, drops } = listener;
            let dropped = told(drops);
            println!("  {protocol}/{port}: {packets} packets, {bytes} bytes; dropped: {dropped}");
        }
        if !balancer.drops.is_empty() {
            println!("  elsewhere dropped: {}", told(&balancer.drops));
        }
    }
    println!("dropped: {}", told(&status.drops));
    Ok(())
}

async fn flows(config: &Config, json: bool) -> anyhow::Result<()> {
    let flows: Vec<FlowStatus> = ask(config, sync::FLOWS).await?.json().await?;
    if json {
        println!("{}", serde_json::to_string(&flows)?);
        return Ok(());
    }
    for FlowStatus { protocol, client, vip, member, ring } in &flows {
        let moved = ring.as_ref().map(|other| format!(" (the ring says {other})")).unwrap_or_default();
        println!("{protocol} {client} to {vip}: {member}{moved}");
    }
    let pinned = flows.iter().filter(|flow| flow.ring.is_some()).count();
    println!("{} flows; {pinned} of them the ring has elsewhere", flows.len());
    Ok(())
}

fn told(drops: &BTreeMap<String, u64>) -> String {
    let words: Vec<_> = drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
