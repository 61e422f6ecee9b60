//! What is told as Events on Services and Nodes, with upstream's reasons and words.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use ake_api_client::{Family, LoadBalancer, Write};
use k8s_openapi::api::core::v1::{Node, Service};

use super::{
    apply::StepError,
    health::Turn,
    names,
    plan::Plan,
    step::{Owner, Step},
    view::ServiceView,
    wanted::World,
};
use crate::cluster::{Key, Recorder, Subject};

/// Components of upstream under whose names our Events are looked for.
const COMPONENT: &str = "service-controller";
const NODE_COMPONENT: &str = "cloud-node-controller";

/// Services that one thing is told on which concerns all of a kind; of the rest the log tells how many they are. What is
/// told on ten thousand keeps what matters from being written.
const MOST: usize = 100;

/// For how long a Service that has its addresses may be without its load balancer until that is told: a balancer, or an
/// ake-api, that starts again has nothing to show for a moment, while packets pass.
const MOMENT: Duration = Duration::from_secs(10);

/// Names of nodes that a message has at most.
const NAMED: usize = 10;

/// Tells people.
pub struct Voice {
    recorder: Recorder,
    /// UIDs of Services that were told to be on their way.
    ensuring: BTreeSet<String>,
    /// UIDs of Services that have their addresses and wait for the device, and since when.
    without: BTreeMap<String, Duration>,
}

impl Voice {
    /// Has said nothing yet.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder, ensuring: BTreeSet::new(), without: BTreeMap::new() }
    }

    /// How things stand `now`, before anything is done.
    pub fn say(&mut self, now: Duration, world: &World, plan: &Plan) {
        for (key, finding) in &plan.findings {
            if finding.refused {
                self.warn(
                    world,
                    key,
                    "SyncLoadBalancerFailed",
                    format!("Error syncing load balancer: {finding}"),
                );
            } else {
                self.warn(world, key, "LoadBalancerSettingIgnored", finding.to_string());
            }
        }
        for key in &plan.without_nodes {
            let message = "There are no available nodes for LoadBalancer".to_owned();
            self.warn(world, key, "UnAvailableLoadBalancer", message);
        }
        self.wait(now, world, plan);
        let ensured: Vec<&String> = plan.settled.iter().filter(|uid| self.ensuring.remove(*uid)).collect();
        if !ensured.is_empty() {
            let services = by_uid(world);
            for uid in ensured {
                self.normal(services.get(uid.as_str()), "EnsuredLoadBalancer", "Ensured load balancer");
            }
        }
    }

    /// Which Services wait for the device, and why.
    fn wait(&mut self, now: Duration, world: &World, plan: &Plan) {
        let mut before = std::mem::take(&mut self.without);
        for (key, reason) in &plan.waiting {
            let Some(service) = world.services.get(key) else { continue };
            if !service.ingress.is_empty() {
                let since = before.remove(&service.uid).unwrap_or(now);
                self.without.insert(service.uid.clone(), since);
                if now.saturating_sub(since) < MOMENT {
                    continue;
                }
            }
            if let Some(reason) = reason {
                let message = format!("the device does not have it yet: {reason}");
                self.trouble(key, service, None, &message);
            }
        }
    }

    /// A Service's change that is news by itself.
    pub fn changed(&self, key: &Key, service: &ServiceView, reason: &str, message: &str) {
        self.normal(Some(&(key, service)), reason, message);
    }

    /// What is about to be done.
    pub fn announce(&mut self, world: &World, steps: &[Step]) {
        let services = by_uid(world);
        for step in steps {
            let Step::Write { owner: Owner::Service(uid), write } = step else { continue };
            let found = services.get(uid.as_str());
            let wanted = found.is_some_and(|(_, service)| service.is_wanted());
            match write {
                Write::PutAddress { .. } | Write::PutLoadBalancer { .. }
                    if self.ensuring.insert(uid.clone()) =>
                {
                    self.normal(found, "EnsuringLoadBalancer", "Ensuring load balancer");
                }
                Write::DeleteLoadBalancer { .. } if !wanted => {
                    self.normal(found, "DeletingLoadBalancer", "Deleting load balancer");
                }
                _ => {}
            }
        }
    }

    /// What was done.
    pub fn done(&mut self, world: &World, steps: &[Step]) {
        let services = by_uid(world);
        for step in steps {
            self.did(world, &services, step);
        }
    }

    fn did(&mut self, world: &World, services: &ByUid<'_>, step: &Step) {
        match step {
            Step::RemoveFinalizer { uid, .. } => {
                self.ensuring.remove(uid);
                let found = services.get(uid.as_str());
                if let Some(message) = found.and_then(|(key, _)| kept(world, key)) {
                    self.normal(found, "LoadBalancerAddressKept", &message);
                }
                self.normal(found, "DeletedLoadBalancer", "Deleted load balancer");
            }
            Step::SetStatus { uid, addresses, .. } if !addresses.is_empty() => {
                self.ensuring.remove(uid);
                self.normal(services.get(uid.as_str()), "EnsuredLoadBalancer", "Ensured load balancer");
            }
            // A pool that many share is told in the log: ten thousand Events, each time that a node comes or goes, would
            // keep those that matter from being written.
            Step::Write { write: Write::PutPool { name, .. }, .. } => {
                // One that is being made just now will be told so.
                let uid = names::owner(name).filter(|uid| !self.ensuring.contains(*uid));
                let found = uid.and_then(|uid| services.get(uid));
                self.normal(found, "UpdatedLoadBalancer", "Updated load balancer with new hosts");
            }
            _ => {}
        }
    }

    /// What failed for one owner.
    pub fn failed(&self, world: &World, owner: &Owner, error: &StepError) {
        match owner {
            Owner::Service(uid) => match world.services.iter().find(|(_, service)| service.uid == *uid) {
                Some((key, service)) => self.trouble(key, service, None, &error.to_string()),
                None => tracing::warn!(uid, %error, "a step for a Service that is gone has failed"),
            },
            Owner::Node(name) => {
                let uid = world.nodes.get(name).map(|node| node.uid.clone()).unwrap_or_default();
                let subject = Subject::new::<Node>(Key::whole(name), uid);
                self.recorder.warn(NODE_COMPONENT, subject, "AddressPairsFailed", error.to_string());
            }
            Owner::All | Owner::Checks => {
                tracing::warn!(?owner, %error, "a step for everybody has failed");
                let waits = |service: &ServiceView| service.is_wanted() && service.ingress.is_empty();
                for (key, service) in world.services.iter().filter(|(_, service)| waits(service)) {
                    self.trouble(key, service, None, &error.to_string());
                }
                if *owner == Owner::All && matches!(error, StepError::Api { .. }) {
                    self.not_updated(world, error);
                }
            }
            Owner::Nobody => tracing::warn!(%error, "a rule that nobody needs stays"),
        }
    }

    /// The nodes that Services share could not be written: in upstream's words, on those that have an address.
    fn not_updated(&self, world: &World, error: &StepError) {
        let named: Vec<&str> = world.nodes.keys().take(NAMED).map(String::as_str).collect();
        let message = format!(
            "Error updating load balancer with new hosts [{}] [node names limited, total number of nodes: {}], error: {error}",
            named.join(" "),
            world.nodes.len()
        );
        let shares = |pool: &str| names::is_pool_of_services(pool) && names::owner(pool).is_none();
        self.on_those_with(world, &shares, |key, service| {
            self.recorder.warn(COMPONENT, subject(key, service), "UpdateLoadBalancerFailed", &message);
        });
    }

    /// Sets of nodes have lost their last well one, or have one again.
    pub fn turned(&self, world: &World, turns: &[Turn]) {
        for Turn { pool, down, message } in turns {
            tracing::info!(pool, "{message}");
            self.on_those_with(world, &|name| name == pool, |key, service| {
                let subject = subject(key, service);
                if *down {
                    self.recorder.warn(COMPONENT, subject, "LoadBalancerMembersDown", message);
                } else {
                    self.recorder.normal(COMPONENT, subject, "LoadBalancerMembersUp", message);
                }
            });
        }
    }

    /// Tells it on Services that have an address and a port with such a pool, but not on too many.
    fn on_those_with(
        &self,
        world: &World,
        is_such: &dyn Fn(&str) -> bool,
        tell: impl Fn(&Key, &ServiceView),
    ) {
        let services = by_uid(world);
        let has = |balancer: &LoadBalancer| balancer.listeners.iter().any(|one| is_such(&one.pool));
        let balancers = world.state.load_balancers.iter().filter(|(_, balancer)| has(balancer));
        let those: BTreeSet<&Key> = balancers
            .filter_map(|(name, _)| services.get(names::owner(name)?))
            .filter(|(_, service)| service.is_wanted() && !service.ingress.is_empty())
            .map(|(key, _)| *key)
            .collect();
        for key in those.iter().take(MOST) {
            if let Some(service) = world.services.get(*key) {
                tell(key, service);
            }
        }
        if those.len() > MOST {
            tracing::warn!(services = those.len(), told = MOST, "not told on all Services that it concerns");
        }
    }

    /// What keeps a Service from what it waits for. A trouble of the cloud itself has a `condition`, by which it
    /// is known.
    pub fn trouble(&self, key: &Key, service: &ServiceView, condition: Option<&str>, message: &str) {
        let (reason, verb) = if service.is_wanted() {
            ("SyncLoadBalancerFailed", "syncing")
        } else {
            ("DeleteLoadBalancerFailed", "deleting")
        };
        let message = format!("Error {verb} load balancer: {message}");
        self.recorder.warn(COMPONENT, subject(key, service), condition.unwrap_or(reason), message);
    }

    fn warn(&self, world: &World, key: &Key, reason: &str, message: String) {
        if let Some(service) = world.services.get(key) {
            self.recorder.warn(COMPONENT, subject(key, service), reason, message);
        }
    }

    fn normal(&self, found: Option<&(&Key, &ServiceView)>, reason: &str, message: &str) {
        if let Some((key, service)) = found {
            self.recorder.normal(COMPONENT, subject(key, service), reason, message);
        }
    }
}

/// What stays of a Service that goes.
fn kept(world: &World, service: &Key) -> Option<String> {
    let names = [Family::V4, Family::V6].map(|family| names::kept_address(service, family));
    let has = names.iter().filter_map(|name| Some((name, world.state.addresses.get(name)?)));
    let told: Vec<String> = has
        .map(|(name, address)| {
            let until = if address.retained { ", and outlives the cluster" } else { "" };
            format!("{} (address {name} at ake-api{until})", address.address)
        })
        .collect();
    (!told.is_empty()).then(|| format!("Kept for the next Service of this name: {}", told.join(", ")))
}

/// Services by UID: many are looked for where many change.
type ByUid<'a> = HashMap<&'a str, (&'a Key, &'a ServiceView)>;

fn by_uid(world: &World) -> ByUid<'_> {
    world.services.iter().map(|(key, service)| (service.uid.as_str(), (key, service))).collect()
}

fn subject(key: &Key, service: &ServiceView) -> Subject {
    Subject::new::<Service>(key.clone(), service.uid.clone())
}
