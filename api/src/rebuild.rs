//! `ake-api rebuild`: makes a lost database anew from what the balancers hold and what Neutron has reserved. Nothing
//! is written to either.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;
use lb_driver::{diff, driver::Driver, model::State};

use crate::{
    cloud::Cloud,
    config::{Config, Network, Vip},
    decide::remains::{self, Found, PodPool, Remains},
    device::translate,
    refusal::Refusal,
    store::{Loaded, Store, StoreError},
};

/// What is lost with every database: nothing else keeps it.
const LOST: &[&str] = &[
    "sealed bundles: a stack must be updated before new nodes of its cluster can join",
    "which cluster an application credential belongs to: each is bound again to the first that it names",
    "counts of Lease transitions: until the leading controller writes, a deposed one could",
    "clusters that were being deleted: their stacks must be deleted again",
    "which addresses are to outlive their clusters: stacks and Services say it again where they still ask for it",
];

/// Why a database was not made anew. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A balancer does not tell what it holds.
    #[error("{url}: {reason}; every balancer must answer, or its part would be lost")]
    Balancer {
        /// Which one.
        url: String,
        /// Why.
        reason: String,
    },
    /// OpenStack does not answer.
    #[error("{0}")]
    Cloud(Refusal),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not empty.
    #[error(
        "the database has {0} clusters: expected an empty one; stop ake-api, move the old one away, and run this again"
    )]
    NotEmpty(usize),
    /// Something must be known and is not.
    #[error("cluster {cluster}: it cannot be told: {missing}")]
    Unknown {
        /// Whose.
        cluster: ClusterId,
        /// What.
        missing: String,
    },
    /// What was found is not what the balancers hold.
    #[error("what was found would change the balancers: {0}")]
    Differs(String),
}

/// Finds what there is, and keeps it unless this is a rehearsal. The answer is for the operator to read.
pub async fn rebuild(
    config: &Config,
    cloud: &Cloud,
    drivers: &BTreeMap<String, Arc<dyn Driver>>,
    store: &Store,
    pods: &BTreeMap<ClusterId, IpNetwork>,
    rehearsal: bool,
) -> Result<String, RebuildError> {
    let has = store.clusters(None).await?.len();
    if has != 0 {
        return Err(RebuildError::NotEmpty(has));
    }
    let mut out = String::new();
    let state = newest(drivers, &mut out).await?;
    let remains = gather(config, cloud, state, pods).await.map_err(RebuildError::Cloud)?;
    say(&mut out, format_args!("Neutron has {} ports that reserve VIP blocks", remains.blocks.len()));
    for one in &remains.retained {
        say(&mut out, format_args!("address {} is retained by project {}", one.address, one.project));
    }
    let mut found = Vec::new();
    for cluster in remains::clusters(&remains) {
        let one =
            remains::find(&remains, cluster).map_err(|missing| RebuildError::Unknown { cluster, missing })?;
        describe(&mut out, &one);
        found.push(one);
    }
    let held = remains.state.version;
    let all: Vec<Loaded> = found.iter().map(|one| one.loaded.clone()).collect();
    let wanted = translate::state(held, &all).map_err(|e| RebuildError::Differs(e.to_string()))?;
    let changes = diff::diff(&wanted, &remains.state);
    if !changes.is_empty() {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        return Err(RebuildError::Differs(changes.join("; ")));
    }
    say(&mut out, format_args!("what nobody knows any more:"));
    for lost in LOST {
        say(&mut out, format_args!("  {lost}"));
    }
    if rehearsal {
        say(&mut out, format_args!("nothing is kept: this was a rehearsal"));
        return Ok(out);
    }
    let version = store.restore(&found, &remains.retained, held).await?;
    say(
        &mut out,
        format_args!(
            "kept: {} clusters; the database is at {version}, the balancers hold the same content, and nothing was written to them",
            found.len()
        ),
    );
    Ok(out)
}

/// What the balancers hold. They all get the same state, so the newest counts.
async fn newest(
    drivers: &BTreeMap<String, Arc<dyn Driver>>,
    out: &mut String,
) -> Result<State, RebuildError> {
    let mut newest = State::default();
    for (url, driver) in drivers {
        let state = driver
            .read()
            .await
            .map_err(|e| RebuildError::Balancer { url: url.clone(), reason: e.to_string() })?;
        say(
            out,
            format_args!(
                "balancer {url} holds state {}: {} pools, {} load balancers",
                state.version,
                state.pools.len(),
                state.load_balancers.len()
            ),
        );
        if state.version >= newest.version {
            newest = state;
        }
    }
    Ok(newest)
}

async fn gather(
    config: &Config,
    cloud: &Cloud,
    state: State,
    pods: &BTreeMap<ClusterId, IpNetwork>,
) -> Result<Remains, Refusal> {
    let (mut blocks, mut retained) = (Vec::new(), Vec::new());
    if config.networks.iter().any(Network::uses_neutron) {
        blocks = cloud.block_ports().await?;
        retained = cloud.retained_ports().await?;
    }
    let mut remains = Remains { state, blocks, retained, pods: pods.clone(), ..Remains::default() };
    let mut of_neutron: BTreeSet<String> = BTreeSet::new();
    for network in &config.networks {
        let id = cloud.configured(network).await?;
        if network.neutron {
            of_neutron.insert(id.clone());
        }
        remains.plain.extend(network.vips.iter().filter(|vip| vip.network.is_none()).map(Vip::range));
        let v6 = network.pod_pool_v6.zip(network.pod_prefix_v6);
        for (pool, prefix) in [Some((network.pod_pool, network.pod_prefix)), v6].into_iter().flatten() {
            remains.pools.push(PodPool { network: id.clone(), pool, prefix });
        }
    }
    let owners = remains.state.pools.keys().chain(remains.state.load_balancers.keys());
    let on_balancers = owners.map(|owner| owner.project().to_owned());
    let described = remains.blocks.iter().filter_map(|block| block.description.project.clone());
    let projects: BTreeSet<String> = on_balancers.chain(described).collect();
    for project in projects {
        let mut ports = Vec::new();
        for network in &of_neutron {
            ports.extend(cloud.node_port_remains(&project, network).await?);
        }
        remains.ports.insert(project, ports);
    }
    Ok(remains)
}

fn describe(out: &mut String, found: &Found) {
    let Loaded { record, wanted, .. } = &found.loaded;
    let blocks: Vec<String> = record.blocks.iter().map(ToString::to_string).collect();
    say(
        out,
        format_args!(
            "cluster {} ({}) of project {}: nodes on {}, pods {}, VIP blocks {}; {} addresses, {} pools, {} load \
             balancers, {} node ports",
            record.id,
            record.name,
            record.project,
            record.network,
            record.pod_range,
            blocks.join(", "),
            wanted.addresses.len(),
            wanted.pools.len(),
            wanted.load_balancers.len(),
            wanted.node_ports.len()
        ),
    );
    for doubt in &found.doubts {
        say(out, format_args!("  not known: {doubt}"));
    }
}

fn say(out: &mut String, line: std::fmt::Arguments<'_>) {
    // a String takes everything
    let _ = writeln!(out, "{line}");
}
