//! What is told as Events on Services and Nodes, with upstream's reasons and words.

use std::collections::BTreeSet;

use ake_api_client::Write;
use k8s_openapi::api::core::v1::{Node, Service};

use super::{
    apply::StepError,
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

/// Tells people.
pub struct Voice {
    recorder: Recorder,
    /// UIDs of Services that were told to be on their way.
    ensuring: BTreeSet<String>,
}

impl Voice {
    /// Has said nothing yet.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder, ensuring: BTreeSet::new() }
    }

    /// How things stand, before anything is done.
    pub fn say(&mut self, world: &World, plan: &Plan) {
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
        for (key, reason) in plan.waiting.iter().filter_map(|(key, reason)| Some((key, reason.as_ref()?))) {
            let message = format!("Error syncing load balancer: the device does not have it yet: {reason}");
            self.warn(world, key, "SyncLoadBalancerFailed", message);
        }
        for uid in plan.settled.iter().filter(|uid| self.ensuring.remove(*uid)).collect::<Vec<_>>() {
            self.normal(find(world, uid), "EnsuredLoadBalancer", "Ensured load balancer");
        }
    }

    /// A Service's change that is news by itself.
    pub fn changed(&self, key: &Key, service: &ServiceView, reason: &str, message: &str) {
        self.normal(Some((key, service)), reason, message);
    }

    /// What is about to be done.
    pub fn announce(&mut self, world: &World, steps: &[Step]) {
        for step in steps {
            let Step::Write { owner: Owner::Service(uid), write } = step else { continue };
            let found = find(world, uid);
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
    pub fn done(&mut self, world: &World, step: &Step) {
        match step {
            Step::RemoveFinalizer { uid, .. } => {
                self.ensuring.remove(uid);
                self.normal(find(world, uid), "DeletedLoadBalancer", "Deleted load balancer");
            }
            Step::SetStatus { uid, addresses, .. } if !addresses.is_empty() => {
                self.ensuring.remove(uid);
                self.normal(find(world, uid), "EnsuredLoadBalancer", "Ensured load balancer");
            }
            Step::Write { write: Write::PutPool { name, .. }, .. } => {
                let balancers = world.state.load_balancers.iter();
                let of_pool = balancers
                    .filter(|(_, balancer)| balancer.listeners.iter().any(|listener| listener.pool == *name));
                let uids = of_pool.filter_map(|(name, _)| names::owner(name));
                // Services that are being made just now will be told so.
                for uid in uids.filter(|uid| !self.ensuring.contains(*uid)) {
                    self.normal(
                        find(world, uid),
                        "UpdatedLoadBalancer",
                        "Updated load balancer with new hosts",
                    );
                }
            }
            _ => {}
        }
    }

    /// What failed for one owner.
    pub fn failed(&self, world: &World, owner: &Owner, error: &StepError) {
        match owner {
            Owner::Service(uid) => match find(world, uid) {
                Some((key, service)) => self.trouble(key, service, None, &error.to_string()),
                None => tracing::warn!(uid, %error, "a step for a Service that is gone has failed"),
            },
            Owner::Node(name) => {
                let uid = world.nodes.get(name).map(|node| node.uid.clone()).unwrap_or_default();
                let subject = Subject::new::<Node>(Key::whole(name), uid);
                self.recorder.warn(NODE_COMPONENT, subject, "AddressPairsFailed", error.to_string());
            }
            Owner::All => tracing::warn!(%error, "a step for everybody has failed"),
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

    fn normal(&self, found: Option<(&Key, &ServiceView)>, reason: &str, message: &str) {
        if let Some((key, service)) = found {
            self.recorder.normal(COMPONENT, subject(key, service), reason, message);
        }
    }
}

fn find<'a>(world: &'a World, uid: &str) -> Option<(&'a Key, &'a ServiceView)> {
    world.services.iter().find(|(_, service)| service.uid == uid)
}

fn subject(key: &Key, service: &ServiceView) -> Subject {
    Subject::new::<Service>(key.clone(), service.uid.clone())
}
