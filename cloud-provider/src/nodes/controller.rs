//! The loop over Nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    life_cycle::{self, List},
    observe::{self, ServerState, ServerView},
    plan::{self, Mismatch, Step},
    view::NodeView,
};
use crate::{
    cloud::{self, Cloud},
    cluster::{Backoff, Cluster, Index, Key, Leadership, Recorder, Subject},
    metrics,
    services::sweep::Sweep,
    steps,
};

/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(50);

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// Components of upstream under whose names our Events are looked for.
const NODE_CONTROLLER: &str = "cloud-node-controller";
const LIFE_CYCLE_CONTROLLER: &str = "cloud-node-lifecycle-controller";

/// What the loop works with.
pub struct Context {
    /// Kubernetes.
    pub cluster: Cluster,
    /// OpenStack.
    pub cloud: Arc<Cloud>,
    /// Where Events go.
    pub recorder: Recorder,
    /// Without it nothing is written.
    pub leadership: Leadership,
    /// All Nodes.
    pub nodes: Index<Node, NodeView>,
    /// Told of changes of Nodes.
    pub wake: Arc<Notify>,
    /// How often everything is looked at without a reason.
    pub drift_period: Duration,
    /// How often Nodes that are not ready are looked after.
    pub monitor_period: Duration,
    /// Whether Nodes are initialised and refreshed.
    pub initialize: bool,
    /// Whether Nodes of servers that are gone or switched off are seen to.
    pub life_cycle: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// Runs until stopped.
pub async fn run(context: Context, stop: CancellationToken) {
    let mut controller =
        Controller { context, sweep: Sweep::default(), met: BTreeSet::new(), begun: Instant::now() };
    let mut refreshed: Option<Instant> = None;
    let mut failures = 0;
    loop {
        let now = Instant::now();
        let refresh = refreshed.is_none_or(|at| now.duration_since(at) >= controller.context.drift_period);
        let begun = Instant::now();
        let result = controller.reconcile(refresh).await;
        metrics::reconciled("node", begun.elapsed(), result.is_err());
        let pause = match result {
            Ok(()) => {
                failures = 0;
                if refresh {
                    refreshed = Some(now);
                }
                let until_refresh = refreshed
                    .map_or(Duration::ZERO, |at| (at + controller.context.drift_period) - Instant::now());
                if controller.has_unready() {
                    until_refresh.min(controller.context.monitor_period)
                } else {
                    until_refresh
                }
            }
            Err(error) => {
                failures += 1;
                controller.tell(&error);
                BACKOFF.pause(failures)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = controller.context.wake.notified(), if failures == 0 => tokio::time::sleep(DEBOUNCE).await,
        }
    }
}

struct Controller {
    context: Context,
    sweep: Sweep,
    /// UIDs of Nodes of which we have begun to say what they are, and which are there still.
    met: BTreeSet<String>,
    begun: Instant,
}

impl Controller {
    fn has_unready(&self) -> bool {
        self.context.nodes.all().iter().any(|(_, node)| !node.ready || node.shutdown || is_new(node))
    }

    async fn reconcile(&mut self, refresh: bool) -> Result<(), openstack_client::Error> {
        let nodes = self.context.nodes.all();
        self.met.retain(|uid| nodes.iter().any(|(_, node)| node.uid == *uid));
        let new = self.context.initialize && nodes.iter().any(|(_, node)| is_new(node));
        if new || (refresh && !nodes.is_empty()) {
            // One list for all of them.
            let servers = observe::all(&self.context.cloud.session).await?;
            let by_id: BTreeMap<&str, &ServerView> =
                servers.iter().map(|server| (server.id.as_str(), server)).collect();
            if self.context.initialize {
                for (key, node) in nodes.iter().filter(|(_, node)| refresh || is_new(node)) {
                    self.introduce(&key.name, node, &servers, &by_id).await;
                }
            }
        }
        if self.context.life_cycle {
            self.look_after().await?;
        }
        Ok(())
    }

    /// Has a Node say what it is.
    async fn introduce(
        &mut self,
        name: &str,
        node: &NodeView,
        servers: &[ServerView],
        by_id: &BTreeMap<&str, &ServerView>,
    ) {
        let found = match node.server_id() {
            // One that is not in the list is looked after elsewhere.
            Some(id) => match by_id.get(id) {
                Some(server) => Ok(*server),
                None if !node.uninitialized => return,
                None => Err(Mismatch::NoServer { name: name.to_owned(), expected: format!(" with id {id}") }),
            },
            None => plan::find(name, node, servers, &self.context.cloud.cluster_id.to_string()),
        };
        let region = self.context.cloud.region.as_deref();
        let steps = found.and_then(|server| plan::plan(name, node, server, region));
        let subject = subject(name, node);
        match steps {
            Ok(steps) => {
                if node.uninitialized && self.met.insert(node.uid.clone()) {
                    metrics::node_met(node.age());
                }
                for step in steps {
                    if !self.take(&step, node).await {
                        return;
                    }
                    if matches!(step, Step::Initialize { .. }) {
                        metrics::node_released(node.age());
                        self.context.recorder.normal(
                            NODE_CONTROLLER,
                            subject.clone(),
                            "Synced",
                            "Node synced successfully",
                        );
                    }
                }
            }
            Err(mismatch) => {
                self.context.recorder.warn(NODE_CONTROLLER, subject, "SyncNodeFailed", mismatch.to_string())
            }
        }
    }

    /// Sees to Nodes that are not ready.
    async fn look_after(&mut self) -> Result<(), openstack_client::Error> {
        let nodes = self.context.nodes.all();
        let mut states: BTreeMap<String, ServerState> = BTreeMap::new();
        for (key, node) in nodes.iter().filter(|(_, node)| !node.ready && !node.uninitialized) {
            if let Some(id) = node.server_id() {
                states.insert(key.name.clone(), observe::state(&self.context.cloud.session, id).await?);
            }
        }
        let gone: BTreeSet<String> = states
            .iter()
            .filter(|(_, state)| **state == ServerState::Gone)
            .map(|(name, _)| name.clone())
            .collect();
        let verdict =
            self.sweep.observe(self.begun.elapsed(), &gone, nodes.len(), self.context.monitor_period);
        metrics::stopped("node-lifecycle", verdict.stopped.is_some());
        if let Some(reason) = &verdict.stopped {
            tracing::error!(reason, "no Node is deleted");
            for (key, node) in nodes.iter().filter(|(key, _)| gone.contains(&key.name)) {
                let message = format!("not deleted: {reason}");
                self.context.recorder.warn(
                    LIFE_CYCLE_CONTROLLER,
                    subject(&key.name, node),
                    "NodeRemovalStopped",
                    message,
                );
            }
        }
        let are_gone = verdict.ripe.is_empty() || self.are_gone(&gone).await?;
        for (key, node) in &nodes {
            let may_delete = are_gone && verdict.ripe.contains(&key.name);
            let state = states.get(&key.name);
            if let Some(step) = life_cycle::step(&key.name, node, state, may_delete) {
                if matches!(step, Step::Delete { .. }) {
                    let subject = subject(&key.name, node);
                    self.context.recorder.normal(
                        LIFE_CYCLE_CONTROLLER,
                        subject,
                        "DeletingNode",
                        step.to_string(),
                    );
                }
                self.take(&step, node).await;
            }
        }
        Ok(())
    }

    /// Whether the project's list of servers bears out that those of these Nodes are gone, which were not found by their ids.
    async fn are_gone(&self, names: &BTreeSet<String>) -> Result<bool, openstack_client::Error> {
        let id = self.context.cloud.cluster_id.to_string();
        let servers = observe::all(&self.context.cloud.session).await?;
        let (mut known, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (key, node) in self.context.nodes.all() {
            let Some(server) = node.server_id().map(ToOwned::to_owned) else { continue };
            if names.contains(&key.name) {
                gone.insert(server.clone());
            }
            known.insert(server);
        }
        let why = match List::read(&servers, &id, &known, &gone) {
            List::BearsOut => return Ok(true),
            List::ShowsNothing => "no server of this cluster is visible in the project",
            List::Contradicts => "the project lists a server that was just not found by its id",
        };
        tracing::error!("{why}: no Node is deleted");
        metrics::stopped("node-lifecycle", true);
        Ok(false)
    }

    /// Takes a step; whether it was taken.
    async fn take(&self, step: &Step, node: &NodeView) -> bool {
        if self.context.dry_run {
            tracing::info!("dry run: would {step}");
            return false;
        }
        if !self.context.leadership.is_valid() {
            return false;
        }
        steps::begin(step.kind());
        let result = super::apply::apply(&self.context.cluster, &self.context.nodes, step).await;
        steps::end(step.kind(), result.is_err());
        match result {
            Ok(()) => {
                tracing::info!("{step}");
                true
            }
            Err(error) => {
                let (component, reason) = match step {
                    Step::Delete { .. } => (LIFE_CYCLE_CONTROLLER, "DeletingNodeFailed"),
                    Step::MarkShutdown { .. } | Step::UnmarkShutdown { .. } => {
                        (LIFE_CYCLE_CONTROLLER, "SyncNodeFailed")
                    }
                    _ => (NODE_CONTROLLER, "SyncNodeFailed"),
                };
                self.context.recorder.warn(
                    component,
                    subject(step.node(), node),
                    reason,
                    format!("{step}: {error}"),
                );
                // The next change of the Node, or the next look, tries again.
                self.context.wake.notify_one();
                tokio::time::sleep(BACKOFF.first).await;
                false
            }
        }
    }

    /// The cloud failed: says so on the Nodes that wait for it.
    fn tell(&self, error: &openstack_client::Error) {
        let condition = cloud::condition(error);
        metrics::condition(condition);
        tracing::warn!(%error, condition, "nodes: the cloud failed");
        for (key, node) in self.context.nodes.all() {
            if node.uninitialized || !node.ready {
                let subject = subject(&key.name, &node);
                self.context.recorder.warn(NODE_CONTROLLER, subject, condition, error.to_string());
            }
        }
    }
}

fn is_new(node: &NodeView) -> bool {
    node.uninitialized || node.provider_id.is_none()
}

fn subject(name: &str, node: &NodeView) -> Subject {
    Subject::new::<Node>(Key::whole(name), node.uid.clone())
}
