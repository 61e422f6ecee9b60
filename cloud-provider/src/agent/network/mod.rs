//! `ake-node-agent network`: observe, plan, apply, whenever a Node changed and once per period.
//!
//! It keeps host-gw routes to the other nodes' pods, on a worker the CNI configuration, and the guard rules. A look
//! that finds everything as it should be writes nothing.

pub mod apply;
pub mod cni;
pub mod guard;
pub mod observe;
pub mod plan;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{api, config::NodeConfig, join, netlink, netlink::Netlink};
use crate::cluster::{self, Cluster, Index, Selector};
use plan::NodeView;

/// How often it is looked for a link to guard, before the nodes are known.
const SOON: Duration = Duration::from_secs(1);

/// Changes that come together are handled together.
const SETTLE: Duration = Duration::from_millis(50);

/// Why the network cannot be kept at all; what can pass is logged and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Netlink cannot be opened.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] api::Error),
    /// The watch cannot be started.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}

/// Where things are, and how often they are looked at.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kubeconfig that `join` wrote.
    pub kubeconfig: PathBuf,
    /// Folder of containerd's CNI configuration.
    pub cni: PathBuf,
    /// The period between looks when nothing seems to change.
    pub period: Duration,
}

/// Keeps the network until told to stop.
pub async fn run(config: &NodeConfig, options: &Options, stop: &CancellationToken) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    let mut keeper = Keeper { netlink, config, options, guard: guard::Guard::default(), told: String::new() };
    let Some(nodes) = keeper.watch(stop).await? else { return Ok(()) };
    let (nodes, changed) = nodes;
    loop {
        keeper.round(&nodes).await;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = timeout(options.period, changed.notified()) => tokio::time::sleep(SETTLE).await,
        }
    }
}

type Nodes = Index<Node, NodeView>;

struct Keeper<'a> {
    netlink: Netlink,
    config: &'a NodeConfig,
    options: &'a Options,
    guard: guard::Guard,
    /// The last complaint, so that each is made once.
    told: String,
}

impl Keeper<'_> {
    /// The loop protection and the way to metadata do not wait for the API server; the watch does, and so does the
    /// right to read nodes, which an own unit of a master grants.
    async fn watch(&mut self, stop: &CancellationToken) -> Result<Option<(Nodes, Arc<Notify>)>, Error> {
        let api = api::ApiServer::from_kubeconfig(&self.options.kubeconfig)?;
        let mut guarded = false;
        let mut wait = std::pin::pin!(api.wait());
        loop {
            guarded = guarded || self.look(None).await;
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = &mut wait => break,
                () = tokio::time::sleep(SOON), if !guarded => {}
            }
        }
        let cluster = Cluster::connect(Some(&self.options.kubeconfig)).await?;
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let nodes = cluster.watch::<Node, NodeView>(
            Selector::default(),
            |node| Some(NodeView::of(&node)),
            move |_| wake.notify_one(),
        );
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            complete = nodes.ready() => tracing::info!(complete, "nodes are watched"),
        }
        Ok(Some((nodes, changed)))
    }

    async fn round(&mut self, nodes: &Nodes) {
        let nodes: Vec<_> = nodes.all().into_iter().map(|(_, node)| (*node).clone()).collect();
        self.look(Some(&nodes)).await;
    }

    /// One look: what is, what should be, the difference. Errors are for the next look; true if nothing is left to do.
    async fn look(&mut self, nodes: Option<&[NodeView]>) -> bool {
        match self.converge(nodes).await {
            Ok(true) => {
                self.told.clear();
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.complain(error.to_string());
                false
            }
        }
    }

    async fn converge(&mut self, nodes: Option<&[NodeView]>) -> Result<bool, apply::Error> {
        let seen = observe::observe(&self.netlink, &self.guard, &self.options.cni, self.config).await?;
        let own = own_address(self.config, &seen);
        let wanted = plan::Wanted::new(self.config, own, nodes);
        let plan = plan::plan(&wanted, &seen);
        if !plan.skipped.is_empty() {
            self.complain(plan.skipped.join("; "));
        }
        for step in &plan.steps {
            tracing::info!("{step}");
            apply::apply(step, &self.netlink, &mut self.guard, &self.options.cni).await?;
        }
        Ok(plan.skipped.is_empty())
    }

    fn complain(&mut self, error: String) {
        if self.told != error {
            tracing::warn!("{error}; looking again later");
            self.told = error;
        }
    }
}

fn own_address(config: &NodeConfig, seen: &observe::Observed) -> Option<IpAddr> {
    if let Some(master) = config.own_master() {
        return Some(master.address);
    }
    let uplink = seen.uplink.as_ref()?;
    join::own_address(config.vip, config.port)
        .ok()
        .filter(|address| uplink.addresses.iter().any(|network| network.ip() == *address))
}

#[cfg(test)]
mod tests;
