//! The loop over the cluster's load balancers and address pairs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ake_api_client::Write;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    apply::{Hands, Outcome},
    changes, claim,
    drains::Drains,
    failure::Failure,
    feed::{self, Patience},
    health::Health,
    holds::{self, Holds},
    names,
    observe::{Eyes, Views},
    plan::{self, Plan},
    publish::Pen,
    step::{Owner, Step},
    sweep::Sweep,
    view::ServiceView,
    voice::Voice,
    wanted::World,
};
use crate::{
    cloud::Cloud,
    cluster::{Backoff, Change, Cluster, Key, Leadership, Recorder},
    metrics,
    steps::Kind,
};

/// As metrics name what waits here.
const QUEUE: &str = "service";

/// Changes that come together cost one round.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Rounds of planning and applying before a new look.
const ROUNDS: u32 = 6;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// How soon all is looked at again where somebody else has written meanwhile.
const POLL: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// What watches tell the loop between two rounds.
#[derive(Default)]
pub struct News {
    touched: Mutex<BTreeSet<String>>,
    gone: Mutex<BTreeSet<String>>,
    changes: Mutex<Vec<Told>>,
    /// Since when the oldest change has waited.
    since: Mutex<Option<Instant>>,
    /// Since when load balancers have not followed a change of Nodes.
    nodes_since: Mutex<Option<Instant>>,
    /// Wakes the loop.
    pub wake: Arc<Notify>,
}

/// A change of a Service that is told as an Event: the Service, and the Event's reason and message.
type Told = (Key, Arc<ServiceView>, &'static str, String);

/// More are not kept: whoever does not lead does not tell them.
const MOST_CHANGES: usize = 1024;

impl News {
    /// A Service has changed.
    pub fn service(&self, change: &Change<'_, ServiceView>) {
        if let (Some(old), Some(new)) = (change.old, change.new) {
            let mut changes = lock(&self.changes);
            changes.extend(
                changes::of(old, new)
                    .into_iter()
                    .map(|(reason, message)| (change.key.clone(), new.clone(), reason, message)),
            );
            changes.truncate(MOST_CHANGES);
        }
        let (old, new) = (change.old.map(|view| &view.uid), change.new.map(|view| &view.uid));
        if let Some(uid) = new {
            let mut touched = lock(&self.touched);
            touched.insert(uid.clone());
            metrics::queued(QUEUE, touched.len());
        }
        lock(&self.since).get_or_insert_with(Instant::now);
        // An event that says it is gone is proof; that it is missing in a list is none.
        if let Some(uid) = old.filter(|uid| Some(*uid) != new && !change.listed) {
            lock(&self.gone).insert(uid.clone());
        }
        self.wake.notify_one();
    }

    /// A Node has changed.
    pub fn node(&self) {
        lock(&self.nodes_since).get_or_insert_with(Instant::now);
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
    /// Whether these let through what pods send.
    pub routes: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// Runs until stopped.
pub async fn run(context: Context, stop: CancellationToken) {
    let eyes = Eyes::new(context.cloud.clone(), context.views.clone(), context.pairs, context.routes);
    let hands = Hands {
        pen: Pen { cluster: context.cluster.clone(), services: context.views.services.clone() },
        cloud: context.cloud.clone(),
        leadership: context.leadership.clone(),
    };
    let voice = Voice::new(context.recorder.clone());
    let mut controller = Controller {
        context,
        eyes,
        hands,
        holds: Holds::default(),
        drains: Drains::default(),
        sweep: Sweep::default(),
        health: Health::default(),
        begun: Instant::now(),
        news_of_api: None,
        gone: BTreeSet::new(),
        voice,
    };
    let mut refreshed: Option<Instant> = None;
    let (mut failures, mut stale) = (0, 0);
    loop {
        let begun = Instant::now();
        let refresh = refreshed.is_none_or(|at| at.elapsed() >= controller.context.drift_period);
        let nodes_since = *lock(&controller.context.news.nodes_since);
        if let Some(since) = lock(&controller.context.news.since).take() {
            metrics::dequeued(QUEUE, since.elapsed());
        }
        metrics::working(QUEUE);
        let result = controller.reconcile(refresh).await;
        metrics::reconciled("service", begun.elapsed(), result.is_err());
        let now = Instant::now();
        metrics::worked(QUEUE, now - begun, controller.holds.held(now).count());
        if let Some(since) = nodes_since {
            let has_failed = result.is_err() || controller.holds.held(now).any(|owner| owner == Owner::All);
            metrics::nodes_followed(since.elapsed(), has_failed);
            let mut latest = lock(&controller.context.news.nodes_since);
            // One that came meanwhile is another's.
            if !has_failed && *latest == nodes_since {
                *latest = None;
            }
        }
        let mut waiting = None;
        let pause = match result {
            Ok(seen) => {
                (failures, stale) = (0, 0);
                if refresh {
                    refreshed = Some(begun);
                }
                waiting = seen.map(|(tag, done)| {
                    (tag, if done { Patience::Long(begun.elapsed()) } else { Patience::Soon })
                });
                let drift = refreshed.map_or(now, |at| at + controller.context.drift_period);
                let drained = controller.drains.next(controller.begun.elapsed());
                let told = drained.into_iter().chain(controller.health.next());
                let due = controller.holds.next(now).into_iter().chain(told.map(|at| controller.begun + at));
                let next = due.min().map_or(drift, |next| next.min(drift));
                next.saturating_duration_since(now)
            }
            Err(Failure::Again) => {
                stale += 1;
                POLL.pause(stale)
            }
            Err(error) => {
                failures += 1;
                controller.tell(&error);
                holds::patience(BACKOFF, failures, error.retry_after())
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = controller.context.news.wake.notified(), if failures == 0 => {
                // One that comes alone does not wait for company.
                tokio::time::sleep(DEBOUNCE.saturating_sub(now.elapsed())).await;
            }
            news = follow(&controller.context.cloud, waiting.as_ref()) => controller.news_of_api = news,
        }
    }
}

/// Waits for news of what was seen; where nothing was, for ever.
async fn follow(cloud: &Cloud, seen: Option<&(String, Patience)>) -> Option<feed::News> {
    match seen {
        Some((tag, patience)) => feed::follow(cloud, tag, *patience).await,
        None => std::future::pending().await,
    }
}

struct Controller {
    context: Context,
    eyes: Eyes,
    hands: Hands,
    holds: Holds,
    drains: Drains,
    sweep: Sweep,
    health: Health,
    begun: Instant,
    /// ake-api's state, if it has told it already.
    news_of_api: Option<feed::News>,
    /// UIDs of Services whose end was seen.
    gone: BTreeSet<String>,
    voice: Voice,
}

impl Controller {
    /// One look, and as many rounds as it takes. The ETag of ake-api's state then, and whether the device has all of it.
    async fn reconcile(&mut self, refresh: bool) -> Result<Option<(String, bool)>, Failure> {
        self.holds.changed(std::mem::take(&mut *lock(&self.context.news.touched)));
        for (key, service, reason, message) in std::mem::take(&mut *lock(&self.context.news.changes)) {
            self.voice.changed(&key, &service, reason, &message);
        }
        let (mut world, mut etag) = self.eyes.look(refresh, self.news_of_api.take()).await?;
        self.gone.append(&mut lock(&self.context.news.gone));
        let turns = self.health.observe(self.begun.elapsed(), &world.state);
        metrics::pools_down(self.health.down());
        self.voice.turned(&world, &turns);
        for _ in 0..ROUNDS {
            world.held = self.holds.held(Instant::now()).collect();
            world.drained = self.drains.over(self.begun.elapsed());
            if self.context.pairs {
                metrics::routes_seen();
            }
            let plan = self.plan(&mut world)?;
            self.drains.observe(self.begun.elapsed(), &plan.leaving);
            self.voice.say(self.begun.elapsed(), &world, &plan);
            if !self.context.dry_run && claim::is_due(&world, !plan.steps.is_empty()) {
                self.hands.claim(&mut world, &mut etag).await?;
            }
            if plan.steps.is_empty() {
                self.gone.clear();
                return Ok(Some((etag, plan.waiting.is_empty())));
            }
            if self.context.dry_run {
                for step in &plan.steps {
                    tracing::info!("dry run: would {step}");
                }
                return Ok(None);
            }
            self.voice.announce(&world, &plan.steps);
            let begun = Instant::now();
            let outcome = self.hands.apply(&mut world, plan.steps, &mut etag).await;
            if outcome.taken.iter().any(|step| step.kind() == Kind::PutPool) {
                metrics::hosts_updated(begun.elapsed());
            }
            self.eyes.remember(&world, &outcome);
            self.conclude(&world, outcome)?;
            self.eyes.look_again(&mut world);
        }
        Ok(Some((etag, false)))
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
        let is_gone = |name: &&String| names::owner(name).is_some_and(|uid| self.gone.contains(uid));
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

    /// What has happened, on each Service; and what failed is left alone for a while.
    fn conclude(&mut self, world: &World, outcome: Outcome) -> Result<(), Failure> {
        let mut freed = false;
        self.voice.done(world, &outcome.taken);
        for step in &outcome.taken {
            freed |= matches!(step, Step::Write { write: Write::DeleteAddress { .. }, .. });
            let owner = step.owner();
            let is_its = matches!(step, Step::Write { .. }) || !matches!(owner, Owner::Service(_));
            if is_its && !outcome.failed.contains_key(&owner) {
                self.holds.lift(&owner);
            }
        }
        if freed {
            self.holds.lift_all();
        }
        for (owner, error) in outcome.failed {
            self.voice.failed(world, &owner, &error);
            self.holds.refused(owner, Instant::now(), error.retry_after());
        }
        match outcome.ended {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Something failed for everybody: says so on the Services that wait for it.
    fn tell(&self, failure: &Failure) {
        let condition = failure.condition();
        metrics::condition(condition);
        tracing::warn!(error = %failure, condition, "load balancers: will be tried again");
        let condition = Some(condition).filter(|condition| condition.starts_with("Cloud"));
        for (key, service) in self.context.views.services.all() {
            let waits = if service.is_wanted() { service.ingress.is_empty() } else { service.finalizer };
            if waits {
                self.voice.trouble(&key, &service, condition, &failure.to_string());
            }
        }
    }
}
