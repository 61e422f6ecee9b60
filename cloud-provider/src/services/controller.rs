//! The loop over the cluster's load balancers and address pairs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Service};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    apply::{Hands, Outcome, StepError},
    holds::Holds,
    observe::{Eyes, ObserveError, Views},
    plan::{self, Owner, Plan, Step},
    sweep::Sweep,
    view::ServiceView,
    wanted::{self, World},
};
use crate::{
    cloud::Cloud,
    cluster::{Backoff, Change, Cluster, Key, Leadership, Recorder, Subject},
    metrics,
};

/// Changes that come together cost one round.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Rounds of planning and applying before a new look.
const ROUNDS: u32 = 6;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// How often the device is asked whether it has what was written.
const POLL: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// The component of upstream under whose name our Events are looked for.
const COMPONENT: &str = "service-controller";
const NODE_COMPONENT: &str = "cloud-node-controller";

/// What watches tell the loop between two rounds.
#[derive(Default)]
pub struct News {
    touched: Mutex<BTreeSet<String>>,
    gone: Mutex<BTreeSet<String>>,
    /// Wakes the loop.
    pub wake: Arc<Notify>,
}

impl News {
    /// A Service has changed.
    pub fn service(&self, change: &Change<'_, ServiceView>) {
        let (old, new) = (change.old.map(|view| &view.uid), change.new.map(|view| &view.uid));
        if let Some(uid) = new {
            lock(&self.touched).insert(uid.clone());
        }
        // An event that says it is gone is proof; that it is missing in a list is none.
        if let Some(uid) = old.filter(|uid| Some(*uid) != new && !change.listed) {
            lock(&self.gone).insert(uid.clone());
        }
        self.wake.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the loop works with.
pub struct Context {
    /// Kubernetes.
    pub cluster: Cluster,
    /// OpenStack and ake-api.
    pub cloud: Arc<Cloud>,
    /// Where Events go.
    pub recorder: Recorder,
    /// Without it nothing is written.
    pub leadership: Leadership,
    /// What is watched.
    pub views: Views,
    /// What the watches tell.
    pub news: Arc<News>,
    /// How often everything is looked at without a reason.
    pub drift_period: Duration,
    /// Whether nodes' ports get their address pairs.
    pub pairs: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// Runs until stopped.
pub async fn run(context: Context, stop: CancellationToken) {
    let eyes = Eyes::new(context.cloud.clone(), context.views.clone(), context.pairs);
    let hands = Hands {
        cluster: context.cluster.clone(),
        cloud: context.cloud.clone(),
        leadership: context.leadership.clone(),
        services: context.views.services.clone(),
    };
    let mut controller = Controller {
        context,
        eyes,
        hands,
        holds: Holds::default(),
        sweep: Sweep::default(),
        begun: Instant::now(),
        gone: BTreeSet::new(),
        ensuring: BTreeSet::new(),
    };
    let mut refreshed: Option<Instant> = None;
    let (mut failures, mut polls) = (0, 0);
    loop {
        let begun = Instant::now();
        let refresh = refreshed.is_none_or(|at| at.elapsed() >= controller.context.drift_period);
        let result = controller.reconcile(refresh).await;
        metrics::reconciled("service", begun.elapsed(), result.is_err());
        let now = Instant::now();
        let pause = match result {
            Ok(waiting) => {
                failures = 0;
                if refresh {
                    refreshed = Some(begun);
                }
                polls = if waiting { polls + 1 } else { 0 };
                let drift = refreshed.map_or(now, |at| at + controller.context.drift_period);
                let next = controller.holds.next(now).map_or(drift, |next| next.min(drift));
                let next = next.saturating_duration_since(now);
                if waiting { next.min(POLL.pause(polls)) } else { next }
            }
            Err(Failure::Again) => Duration::from_millis(100),
            Err(error) => {
                failures += 1;
                controller.tell(&error);
                BACKOFF.pause(failures)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = controller.context.news.wake.notified(), if failures == 0 => {
                tokio::time::sleep(DEBOUNCE).await;
            }
        }
    }
}

/// Why a reconciliation did not get to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Apply(#[from] StepError),
    #[error("{0}")]
    Stopped(String),
    /// Somebody else has written meanwhile.
    #[error("planned from an old state")]
    Again,
}

impl Failure {
    fn condition(&self) -> &'static str {
        match self {
            Self::Observe(error) => error.condition(),
            Self::Apply(StepError::OpenStack { error, .. }) => crate::cloud::condition(error),
            Self::Apply(StepError::Api { .. }) => "AkeApiError",
            Self::Apply(_) => "SyncLoadBalancerFailed",
            Self::Stopped(_) => "LoadBalancerSyncStopped",
            Self::Again => "Again",
        }
    }
}

struct Controller {
    context: Context,
    eyes: Eyes,
    hands: Hands,
    holds: Holds,
    sweep: Sweep,
    begun: Instant,
    /// UIDs of Services whose end was seen.
    gone: BTreeSet<String>,
    /// UIDs of Services that were told to be on their way.
    ensuring: BTreeSet<String>,
}

impl Controller {
    /// One look, and as many rounds as it takes; true if the device does not have all of it yet.
    async fn reconcile(&mut self, refresh: bool) -> Result<bool, Failure> {
        for uid in std::mem::take(&mut *lock(&self.context.news.touched)) {
            self.holds.lift(&Owner::Service(uid));
        }
        let (mut world, etag) = self.eyes.look(refresh).await?;
        let mut etag = Some(etag);
        self.gone.append(&mut lock(&self.context.news.gone));
        for _ in 0..ROUNDS {
            world.held = self.holds.held(Instant::now()).collect();
            let mut plan = self.plan(&mut world)?;
            if plan.steps.iter().any(|step| matches!(step, Step::Write { .. })) && etag.is_none() {
                // The state came with the answer to a batch, which has no ETag to plan from.
                let (state, tag) = self
                    .context
                    .cloud
                    .api
                    .cluster(self.context.cloud.cluster_id)
                    .await
                    .map_err(ObserveError::from)?;
                world.state = state;
                etag = Some(tag);
                plan = self.plan(&mut world)?;
            }
            self.say(&world, &plan);
            if plan.steps.is_empty() {
                self.gone.clear();
                return Ok(!plan.waiting.is_empty());
            }
            if self.context.dry_run {
                for step in &plan.steps {
                    tracing::info!("dry run: would {step}");
                }
                return Ok(false);
            }
            self.announce(&world, &plan.steps);
            let wrote = plan.steps.iter().any(|step| matches!(step, Step::Write { .. }));
            let outcome = self.hands.apply(&mut world, plan.steps, etag.clone()).await;
            if wrote {
                etag = None;
            }
            self.conclude(&world, outcome)?;
            self.eyes.look_again(&mut world);
        }
        Ok(true)
    }

    /// Plans, and lets go of what has been without its Service for long enough.
    fn plan(&mut self, world: &mut World) -> Result<Plan, Failure> {
        world.ripe.clear();
        let first = plan::plan(world);
        if let Some(reason) = first.stopped {
            metrics::stopped("service", true);
            return Err(Failure::Stopped(reason));
        }
        if first.orphans.is_empty() {
            metrics::stopped("service", false);
            self.sweep = Sweep::default();
            return Ok(first);
        }
        let is_gone = |name: &&String| wanted::owner(name).is_some_and(|uid| self.gone.contains(uid));
        let (seen, unseen): (BTreeSet<&String>, BTreeSet<&String>) = first.orphans.iter().partition(is_gone);
        let state = &world.state;
        let total = state.addresses.len() + state.load_balancers.len() + state.pools.len();
        let unseen = unseen.into_iter().cloned().collect();
        let verdict = self.sweep.observe(self.begun.elapsed(), &unseen, total, self.context.drift_period);
        metrics::stopped("service", verdict.stopped.is_some());
        if let Some(reason) = &verdict.stopped {
            tracing::error!(reason, "nothing without a Service is removed from ake-api");
        }
        world.ripe = verdict.ripe;
        world.ripe.extend(seen.into_iter().cloned());
        Ok(if world.ripe.is_empty() { first } else { plan::plan(world) })
    }

    /// What is wrong with Services, on each of them.
    fn say(&mut self, world: &World, plan: &Plan) {
        for (key, finding) in &plan.findings {
            let reason =
                if finding.refused { "SyncLoadBalancerFailed" } else { "LoadBalancerSettingIgnored" };
            let message = if finding.refused {
                format!("Error syncing load balancer: {finding}")
            } else {
                finding.to_string()
            };
            self.warn(world, key, reason, message);
        }
        for key in &plan.without_nodes {
            let message = "There are no available nodes for LoadBalancer".to_owned();
            self.warn(world, key, "UnAvailableLoadBalancer", message);
        }
        for (key, reason) in plan.waiting.iter().filter_map(|(key, reason)| Some((key, reason.as_ref()?))) {
            let message = format!("Error syncing load balancer: the device does not have it yet: {reason}");
            self.warn(world, key, "SyncLoadBalancerFailed", message);
        }
        for uid in &plan.settled {
            if self.ensuring.remove(uid)
                && let Some((key, service)) = find(world, uid)
            {
                self.context.recorder.normal(
                    COMPONENT,
                    subject(key, service),
                    "EnsuredLoadBalancer",
                    "Ensured load balancer",
                );
            }
        }
    }

    fn warn(&self, world: &World, key: &Key, reason: &str, message: String) {
        if let Some(service) = world.services.get(key) {
            self.context.recorder.warn(COMPONENT, subject(key, service), reason, message);
        }
    }

    /// What is about to happen to Services, on each of them.
    fn announce(&mut self, world: &World, steps: &[Step]) {
        for step in steps {
            let Step::Write { owner: Owner::Service(uid), write } = step else { continue };
            let Some((key, service)) = find(world, uid) else { continue };
            let subject = subject(key, service);
            use ake_api_client::Write;
            match write {
                Write::PutAddress { .. } | Write::PutLoadBalancer { .. }
                    if self.ensuring.insert(uid.clone()) =>
                {
                    self.context.recorder.normal(
                        COMPONENT,
                        subject,
                        "EnsuringLoadBalancer",
                        "Ensuring load balancer",
                    );
                }
                Write::DeleteLoadBalancer { .. } if !service.is_wanted() => {
                    self.context.recorder.normal(
                        COMPONENT,
                        subject,
                        "DeletingLoadBalancer",
                        "Deleting load balancer",
                    );
                }
                _ => {}
            }
        }
    }

    /// What has happened, on each Service; and what failed is left alone for a while.
    fn conclude(&mut self, world: &World, outcome: Outcome) -> Result<(), Failure> {
        use ake_api_client::Write;
        let mut freed = false;
        for step in &outcome.taken {
            match step {
                Step::RemoveFinalizer { service: key, .. } => {
                    if let Some(service) = world.services.get(key) {
                        let subject = subject(key, service);
                        self.context.recorder.normal(
                            COMPONENT,
                            subject,
                            "DeletedLoadBalancer",
                            "Deleted load balancer",
                        );
                    }
                }
                Step::SetStatus { service: key, uid, addresses } if !addresses.is_empty() => {
                    if let Some(service) = world.services.get(key) {
                        self.ensuring.remove(uid);
                        let subject = subject(key, service);
                        self.context.recorder.normal(
                            COMPONENT,
                            subject,
                            "EnsuredLoadBalancer",
                            "Ensured load balancer",
                        );
                    }
                }
                Step::Write { write: Write::PutPool { name, .. }, .. } => self.updated(world, name),
                Step::Write { write: Write::DeleteAddress { .. }, .. } => freed = true,
                _ => {}
            }
            if !outcome.failed.contains_key(&step.owner()) && matches!(step, Step::Write { .. }) {
                self.holds.lift(&step.owner());
            }
        }
        if freed {
            self.holds.lift_all();
        }
        for (owner, error) in outcome.failed {
            self.report(world, &owner, &error);
            self.holds.refused(owner, Instant::now());
        }
        match outcome.ended {
            None => Ok(()),
            Some(StepError::Stale) => Err(Failure::Again),
            Some(error) => Err(error.into()),
        }
    }

    /// A pool has changed: so have the Services behind which it stands, unless they are being made just now.
    fn updated(&self, world: &World, pool: &str) {
        let of_pool = world
            .state
            .load_balancers
            .iter()
            .filter(|(_, balancer)| balancer.listeners.iter().any(|listener| listener.pool == pool));
        for uid in
            of_pool.filter_map(|(name, _)| wanted::owner(name)).filter(|uid| !self.ensuring.contains(*uid))
        {
            if let Some((key, service)) = find(world, uid) {
                let message = "Updated load balancer with new hosts";
                self.context.recorder.normal(
                    COMPONENT,
                    subject(key, service),
                    "UpdatedLoadBalancer",
                    message,
                );
            }
        }
    }

    fn report(&self, world: &World, owner: &Owner, error: &StepError) {
        match owner {
            Owner::Service(uid) => match find(world, uid) {
                Some((key, service)) if service.is_wanted() => {
                    let message = format!("Error syncing load balancer: {error}");
                    self.context.recorder.warn(
                        COMPONENT,
                        subject(key, service),
                        "SyncLoadBalancerFailed",
                        message,
                    );
                }
                Some((key, service)) => {
                    let message = format!("Error deleting load balancer: {error}");
                    self.context.recorder.warn(
                        COMPONENT,
                        subject(key, service),
                        "DeleteLoadBalancerFailed",
                        message,
                    );
                }
                None => tracing::warn!(uid, %error, "of a Service that is gone"),
            },
            Owner::Node(name) => {
                let uid = world.nodes.get(name).map(|node| node.uid.clone()).unwrap_or_default();
                let subject = Subject::new::<Node>(Key::whole(name), uid);
                self.context.recorder.warn(NODE_COMPONENT, subject, "AddressPairsFailed", error.to_string());
            }
            Owner::All => tracing::warn!(%error, "of everybody"),
        }
    }

    /// Something failed for everybody: says so on the Services that wait for it.
    fn tell(&self, failure: &Failure) {
        let condition = failure.condition();
        metrics::condition(condition);
        tracing::warn!(error = %failure, condition, "load balancers: will be tried again");
        for (key, service) in self.context.views.services.all() {
            let waits = service.is_wanted() && service.ingress.is_empty()
                || !service.is_wanted() && service.finalizer;
            if waits {
                let reason =
                    if service.is_wanted() { "SyncLoadBalancerFailed" } else { "DeleteLoadBalancerFailed" };
                let reason = if condition.starts_with("Cloud") { condition } else { reason };
                let verb = if service.is_wanted() { "syncing" } else { "deleting" };
                let message = format!("Error {verb} load balancer: {failure}");
                self.context.recorder.warn(COMPONENT, subject(&key, &service), reason, message);
            }
        }
    }
}

fn find<'a>(world: &'a World, uid: &str) -> Option<(&'a Key, &'a ServiceView)> {
    world.services.iter().find(|(_, service)| service.uid == uid)
}

fn subject(key: &Key, service: &ServiceView) -> Subject {
    Subject::new::<Service>(key.clone(), service.uid.clone())
}
