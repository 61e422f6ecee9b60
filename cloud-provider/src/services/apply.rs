//! Takes steps: what fails holds up only the steps of the same owner, unless it concerns everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ake_api_client::{Batch, ClusterState, Write};
use k8s_openapi::api::core::v1::Service;
use openstack_client::security_groups::{self, RuleSpec};
use serde_json::json;

use super::{
    step::{Owner, Step},
    view::{FINALIZER, ServiceView},
    wanted::World,
};
use crate::{
    cloud::Cloud,
    cluster::{self, Cluster, Index, Key, Leadership},
    metrics,
};

/// How often a write that met another is tried again.
const TRIES: u32 = 5;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Kubernetes said no.
    #[error("{step}: {error}")]
    Kubernetes {
        /// What was to be done.
        step: String,
        /// Why not.
        error: cluster::Error,
    },
    /// OpenStack said no.
    #[error("{step}: {error}")]
    OpenStack {
        /// What was to be done.
        step: String,
        /// Why not.
        error: openstack_client::Error,
    },
    /// ake-api said no.
    #[error("{step}: {}", in_short(.error))]
    Api {
        /// What was to be done.
        step: String,
        /// Why not.
        error: ake_api_client::Error,
    },
    /// ake-api has another state by now than the one that was planned from.
    #[error("ake-api has changed meanwhile")]
    Stale,
    /// Somebody else leads.
    #[error("not leading any more")]
    Deposed,
}

/// What ake-api said to people, without the request that it said it to.
fn in_short(error: &ake_api_client::Error) -> String {
    match error {
        ake_api_client::Error::Refused { problem, .. } => problem.message.clone(),
        other => other.to_string(),
    }
}

impl StepError {
    /// Whether it concerns everybody: then nothing else is tried now.
    fn is_everybodys(&self) -> bool {
        match self {
            Self::Kubernetes { error, .. } => matches!(error, cluster::Error::Unreachable { .. }),
            Self::OpenStack { error, .. } => {
                use openstack_client::Class;
                matches!(error.class(), Class::Unreachable | Class::Login | Class::NoAccessRule | Class::Busy)
            }
            Self::Api { error, .. } => error.is_passing() || matches!(error, ake_api_client::Error::Login(_)),
            Self::Stale | Self::Deposed => true,
        }
    }
}

/// What came of the steps.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps that were taken.
    pub taken: Vec<Step>,
    /// What failed for one owner.
    pub failed: BTreeMap<Owner, StepError>,
    /// What failed for everybody, and ended the round.
    pub ended: Option<StepError>,
}

/// Takes steps.
pub struct Hands {
    /// Kubernetes.
    pub cluster: Cluster,
    /// OpenStack and ake-api.
    pub cloud: Arc<Cloud>,
    /// Without it nothing is written.
    pub leadership: Leadership,
    /// Is told what writes have returned.
    pub services: Index<Service, ServiceView>,
}

impl Hands {
    /// Takes the steps in order and brings `world` up to date with what they returned. `etag`: what ake-api's
    /// state was planned from.
    pub async fn apply(&self, world: &mut World, steps: Vec<Step>, etag: Option<String>) -> Outcome {
        let mut outcome = Outcome::default();
        let is_before = |step: &Step| matches!(step, Step::AddFinalizer { .. });
        let (before, rest): (Vec<_>, Vec<_>) = steps.into_iter().partition(is_before);
        let (writes, after): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|step| matches!(step, Step::Write { .. }));
        for step in before {
            self.one(world, step, &mut outcome).await;
        }
        self.write(world, writes, etag, &mut outcome).await;
        let (openings, after): (Vec<_>, Vec<_>) =
            after.into_iter().partition(|step| matches!(step, Step::AddRule { .. }));
        for step in self.open(world, openings, &mut outcome).await.into_iter().chain(after) {
            self.one(world, step, &mut outcome).await;
        }
        outcome
    }

    /// Opens the security group with one call; what is left is to be tried one by one, so that each owner
    /// hears its own refusal.
    async fn open(&self, world: &mut World, steps: Vec<Step>, outcome: &mut Outcome) -> Vec<Step> {
        let steps: Vec<Step> =
            steps.into_iter().filter(|step| !outcome.failed.contains_key(&step.owner())).collect();
        let specs: Vec<RuleSpec> = steps
            .iter()
            .filter_map(|step| match step {
                Step::AddRule { spec, .. } => Some(spec.clone()),
                _ => None,
            })
            .collect();
        let (Some(group), Some(known)) = (&self.cloud.security_group, &mut world.rules) else { return steps };
        if specs.len() < 2 || outcome.ended.is_some() || !self.leadership.is_valid() {
            return steps;
        }
        match security_groups::create_rules(&self.cloud.session, group, &specs).await {
            Ok(Some(rules)) => {
                known.extend(rules);
                for step in &steps {
                    tracing::info!("{step}");
                    metrics::step(step.kind(), false);
                }
                outcome.taken.extend(steps);
                Vec::new()
            }
            Ok(None) => steps,
            Err(error) => {
                tracing::debug!(%error, "rules are opened one by one");
                steps
            }
        }
    }

    /// Takes a step that is not a write to ake-api.
    async fn one(&self, world: &mut World, step: Step, outcome: &mut Outcome) {
        let owner = step.owner();
        if outcome.ended.is_some() || outcome.failed.contains_key(&owner) {
            return;
        }
        if !self.leadership.is_valid() {
            outcome.ended = Some(StepError::Deposed);
            return;
        }
        let shown = step.to_string();
        let result = match &step {
            Step::AddFinalizer { service, uid } => self
                .set_finalizer(service, uid, true)
                .await
                .map_err(|error| StepError::Kubernetes { step: shown, error }),
            Step::RemoveFinalizer { service, uid } => self
                .set_finalizer(service, uid, false)
                .await
                .map_err(|error| StepError::Kubernetes { step: shown, error }),
            Step::SetStatus { service, addresses, .. } => self
                .set_status(service, addresses)
                .await
                .map_err(|error| StepError::Kubernetes { step: shown, error }),
            Step::AddRule { .. } | Step::RemoveRule(_) => {
                self.set_rule(world, &step).await.map_err(|error| StepError::OpenStack { step: shown, error })
            }
            Step::Write { .. } => Ok(()),
        };
        metrics::step(step.kind(), result.is_err());
        match result {
            Ok(()) => {
                tracing::info!("{step}");
                outcome.taken.push(step);
            }
            Err(error) if error.is_everybodys() || owner == Owner::All => outcome.ended = Some(error),
            Err(error) => {
                outcome.failed.insert(owner, error);
            }
        }
    }

    async fn set_rule(&self, world: &mut World, step: &Step) -> Result<(), openstack_client::Error> {
        let (Some(group), Some(rules)) = (&self.cloud.security_group, &mut world.rules) else {
            return Ok(());
        };
        let session = &self.cloud.session;
        match step {
            Step::AddRule { spec, .. } => match security_groups::create_rule(session, group, spec).await? {
                Some(rule) => rules.push(rule),
                // Neutron holds one for the same that we took for another; look again.
                None => *rules = security_groups::list_rules(session, group).await?,
            },
            Step::RemoveRule(rule) => {
                security_groups::delete_rule(session, &rule.id).await?;
                rules.retain(|known| known.id != rule.id);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds or removes our finalizer on the Service as it stands now, if it is still that one.
    async fn set_finalizer(&self, key: &Key, uid: &str, wanted: bool) -> Result<(), cluster::Error> {
        let mut tries = 0;
        loop {
            let found = self.cluster.get::<Service>(key.namespace(), &key.name).await?;
            let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)) else {
                return Ok(());
            };
            let mut finalizers = found.metadata.finalizers.unwrap_or_default();
            if finalizers.iter().any(|name| name == FINALIZER) == wanted {
                return Ok(());
            }
            if wanted {
                finalizers.push(FINALIZER.to_owned());
            } else {
                finalizers.retain(|name| name != FINALIZER);
            }
            // The list is written whole, so the write carries the version that was read.
            let patch = json!({ "metadata": {
                "finalizers": finalizers,
                "resourceVersion": found.metadata.resource_version,
                "uid": uid,
            }});
            match self.cluster.merge::<Service>(key.namespace(), &key.name, &patch).await {
                Ok(written) => {
                    self.services.absorb(written);
                    return Ok(());
                }
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn set_status(&self, key: &Key, addresses: &[IpAddr]) -> Result<(), cluster::Error> {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
        let ingress = if ingress.is_empty() { json!(null) } else { json!(ingress) };
        let patch = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        match self.cluster.merge_status::<Service>(key.namespace(), &key.name, &patch).await {
            Ok(written) => {
                self.services.absorb(written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All writes in one batch. If ake-api refuses it, one by one for each owner, so that each hears its own.
    async fn write(&self, world: &mut World, steps: Vec<Step>, etag: Option<String>, outcome: &mut Outcome) {
        let steps: Vec<Step> =
            steps.into_iter().filter(|step| !outcome.failed.contains_key(&step.owner())).collect();
        if steps.is_empty() || outcome.ended.is_some() {
            return;
        }
        let error = match self.batch(world, &steps, etag).await {
            Ok(state) => return took(world, state, steps, outcome),
            Err(error) => error,
        };
        let owners: BTreeSet<Owner> = steps.iter().map(Step::owner).collect();
        if error.is_everybodys() {
            outcome.ended = Some(error);
            return;
        }
        if let ([owner], true) = (Vec::from_iter(owners.clone()).as_slice(), owners.len() == 1) {
            refused(owner.clone(), error, &steps, outcome);
            return;
        }
        // What is shared first, but what others may still refer to last.
        let is_last = |step: &&Step| step.owner() == Owner::All && step.kind().starts_with("delete");
        let last: Vec<Step> = steps.iter().filter(is_last).cloned().collect();
        let mut groups: Vec<(Owner, Vec<Step>)> = Vec::new();
        for owner in owners {
            let mine: Vec<Step> =
                steps.iter().filter(|s| s.owner() == owner && !is_last(s)).cloned().collect();
            groups.push((owner, mine));
        }
        groups.push((Owner::All, last));
        for (owner, steps) in groups {
            if steps.is_empty() || outcome.ended.is_some() {
                continue;
            }
            match self.batch(world, &steps, None).await {
                Ok(state) => took(world, state, steps, outcome),
                Err(error) if error.is_everybodys() => outcome.ended = Some(error),
                Err(error) => refused(owner, error, &steps, outcome),
            }
        }
    }

    async fn batch(
        &self,
        world: &World,
        steps: &[Step],
        etag: Option<String>,
    ) -> Result<ClusterState, StepError> {
        if !self.leadership.is_valid() {
            return Err(StepError::Deposed);
        }
        let writes: Vec<Write> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Write { write, .. } => Some(write.clone()),
                _ => None,
            })
            .collect();
        let batch = Batch { lease_transitions: self.leadership.transitions(), if_match: etag, writes };
        match self.cloud.api.batch(self.cloud.cluster_id, &batch).await {
            Ok(state) => Ok(state),
            Err(error) if error.code() == Some("stale") => Err(StepError::Stale),
            Err(error) if error.code() == Some("deposed") => {
                // If the Lease was made anew its count began anew too, and ours has to catch up.
                self.leadership.raise(world.state.lease_transitions + 1);
                Err(StepError::Deposed)
            }
            Err(error) => {
                let step = match steps {
                    [step] => step.to_string(),
                    [step, ..] => format!("{step}, and {} more", steps.len() - 1),
                    [] => "nothing".to_owned(),
                };
                Err(StepError::Api { step, error })
            }
        }
    }
}

fn took(world: &mut World, state: ClusterState, steps: Vec<Step>, outcome: &mut Outcome) {
    for step in &steps {
        tracing::info!("{step}");
        metrics::step(step.kind(), false);
    }
    outcome.taken.extend(steps);
    world.state = state;
}

fn refused(owner: Owner, error: StepError, steps: &[Step], outcome: &mut Outcome) {
    for step in steps {
        metrics::step(step.kind(), true);
    }
    if owner == Owner::All {
        outcome.ended = Some(error);
    } else {
        outcome.failed.insert(owner, error);
    }
}
