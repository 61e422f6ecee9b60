//! Takes steps: what fails holds up only the steps of the same owner, unless it concerns everybody.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use openstack_client::security_groups::{self, Rule, RuleSpec};

use super::{
    batch::Writer,
    claim,
    publish::Pen,
    step::{Owner, Step},
    wanted::World,
};
use crate::{
    cloud::Cloud,
    cluster::{self, Leadership},
    steps,
};

/// Writes to the API server that are under way together.
const KUBERNETES: usize = 16;

/// Calls to Neutron that are under way together.
const NEUTRON: usize = 4;

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
    /// The project has as many security group rules as its quota allows.
    #[error(
        "{step}: the project's quota of security group rules is used up: expected a higher quota, or one rule of the \
         operator's for the ports of all Services: {error}"
    )]
    Quota {
        /// What was to be done.
        step: String,
        /// In Neutron's words.
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
    fn kubernetes(step: &Step, error: cluster::Error) -> Self {
        Self::Kubernetes { step: step.to_string(), error }
    }

    fn openstack(step: &Step, error: openstack_client::Error) -> Self {
        let step = step.to_string();
        if error.fault() == Some("OverQuota") {
            Self::Quota { step, error }
        } else {
            Self::OpenStack { step, error }
        }
    }

    /// Whether it concerns everybody: then nothing else is tried now.
    pub(super) fn is_everybodys(&self) -> bool {
        match self {
            Self::Kubernetes { error, .. } => matches!(error, cluster::Error::Unreachable { .. }),
            Self::OpenStack { error, .. } => {
                use openstack_client::Class;
                matches!(error.class(), Class::Unreachable | Class::Login | Class::NoAccessRule | Class::Busy)
            }
            Self::Quota { .. } => false,
            Self::Api { error, .. } => {
                error.is_passing()
                    || matches!(error, ake_api_client::Error::Login(_))
                    || error.code() == Some("other-kubernetes")
            }
            Self::Stale | Self::Deposed => true,
        }
    }

    /// How long whoever said no asks us to stay away.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OpenStack { error, .. } | Self::Quota { error, .. } => error.retry_after(),
            Self::Api { error, .. } => error.retry_after(),
            Self::Kubernetes { .. } | Self::Stale | Self::Deposed => None,
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

impl Outcome {
    pub(super) fn took(&mut self, step: Step) {
        tracing::info!("{step}");
        self.taken.push(step);
    }

    pub(super) fn failed(&mut self, owner: Owner, error: StepError) {
        if error.is_everybodys() {
            self.ended.get_or_insert(error);
        } else {
            self.failed.entry(owner).or_insert(error);
        }
    }

    /// Adds what came of other steps, which were taken at the same time.
    fn join(&mut self, other: Self) {
        self.taken.extend(other.taken);
        for (owner, error) in other.failed {
            self.failed.entry(owner).or_insert(error);
        }
        self.ended = self.ended.take().or(other.ended);
    }

    /// Steps of those for whom nothing has failed so far.
    fn able(&self, steps: Vec<Step>) -> Vec<Step> {
        if self.ended.is_some() {
            return Vec::new();
        }
        steps.into_iter().filter(|step| !self.failed.contains_key(&step.owner())).collect()
    }
}

/// Takes steps.
pub struct Hands {
    /// Kubernetes.
    pub pen: Pen,
    /// OpenStack and ake-api.
    pub cloud: Arc<Cloud>,
    /// Without it nothing is written.
    pub leadership: Leadership,
}

impl Hands {
    /// Takes the steps in order and brings `world` up to date with what they returned. `etag`: of ake-api's state that
    /// was planned from; afterwards, of the state that there is by now.
    pub async fn apply(&self, world: &mut World, steps: Vec<Step>, etag: &mut String) -> Outcome {
        let mut outcome = Outcome::default();
        let (before, rest): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::AddFinalizer { .. }));
        let (writes, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|step| matches!(step, Step::Write { .. }));
        let (openings, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|step| matches!(step, Step::AddRule { .. }));
        let (closings, after): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|step| matches!(step, Step::RemoveRule(_)));
        outcome.join(self.tell_kubernetes(before).await);

        // Neither waits for the other. What was opened for a Service that ake-api refuses is closed in the next round.
        let (writes, openings) = (outcome.able(writes), outcome.able(openings));
        let mut rules = world.rules.take();
        let writer = Writer::new(&self.cloud, &self.leadership);
        let (wrote, opened) =
            tokio::join!(writer.write(&mut world.state, writes, etag), self.open(&mut rules, openings));
        outcome.join(wrote);
        outcome.join(opened);
        let closings = outcome.able(closings);
        outcome.join(self.close(&mut rules, closings).await);
        world.rules = rules;

        let after = outcome.able(after);
        outcome.join(self.tell_kubernetes(after).await);
        outcome
    }

    /// Has ake-api know that the cluster is this Kubernetes.
    pub async fn claim(&self, world: &mut World, etag: &mut String) -> Result<(), StepError> {
        claim::take(&self.cloud, &self.leadership, &mut world.state, etag).await
    }

    /// Writes to Services: those of one Service in order, of several at the same time.
    async fn tell_kubernetes(&self, steps: Vec<Step>) -> Outcome {
        let mut by_owner: BTreeMap<Owner, Vec<Step>> = BTreeMap::new();
        for step in steps {
            by_owner.entry(step.owner()).or_default().push(step);
        }
        let each = stream::iter(by_owner).map(async |(owner, steps)| {
            let mut outcome = Outcome::default();
            for step in steps {
                if !self.leadership.is_valid() {
                    outcome.ended = Some(StepError::Deposed);
                    return outcome;
                }
                steps::begin(step.kind());
                let result = match &step {
                    Step::AddFinalizer { service, uid } => self.pen.set_finalizer(service, uid, true).await,
                    Step::RemoveFinalizer { service, uid } => {
                        self.pen.set_finalizer(service, uid, false).await
                    }
                    Step::SetStatus { service, uid, addresses } => {
                        self.pen.set_status(service, uid, addresses).await
                    }
                    Step::AddRule { .. } | Step::RemoveRule(_) | Step::Write { .. } => Ok(()),
                };
                steps::end(step.kind(), result.is_err());
                match result {
                    Ok(()) => outcome.took(step),
                    Err(error) => {
                        outcome.failed(owner, StepError::kubernetes(&step, error));
                        return outcome;
                    }
                }
            }
            outcome
        });
        each.buffer_unordered(KUBERNETES)
            .fold(Outcome::default(), async |mut all, one| {
                all.join(one);
                all
            })
            .await
    }

    /// Opens the security group with one call; if that is refused, one by one, so that each owner hears its own.
    async fn open(&self, rules: &mut Option<Vec<Rule>>, steps: Vec<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        let (Some(group), Some(known)) = (&self.cloud.security_group, rules) else { return outcome };
        let session = &self.cloud.session;
        let specs: Vec<RuleSpec> = steps
            .iter()
            .filter_map(|step| match step {
                Step::AddRule { spec, .. } => Some(spec.clone()),
                _ => None,
            })
            .collect();
        if specs.is_empty() {
            return outcome;
        }
        if !self.leadership.is_valid() {
            outcome.ended = Some(StepError::Deposed);
            return outcome;
        }
        steps.iter().for_each(|step| steps::begin(step.kind()));
        if specs.len() > 1 {
            match security_groups::create_rules(session, group, &specs).await {
                Ok(Some(made)) => {
                    known.extend(made);
                    for step in steps {
                        steps::end(step.kind(), false);
                        outcome.took(step);
                    }
                    return outcome;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "rules are opened one by one"),
            }
        }
        let each = stream::iter(steps.into_iter().zip(specs)).map(async |(step, spec)| {
            let result = security_groups::create_rule(session, group, &spec).await;
            (step, result)
        });
        let results: Vec<_> = each.buffered(NEUTRON).collect().await;
        for (step, result) in results {
            steps::end(step.kind(), result.is_err());
            match result {
                Ok(made) => {
                    if made.is_none() {
                        // Neutron holds one for the same that we took for another; look again.
                        match security_groups::list_rules(session, group).await {
                            Ok(listed) => *known = listed,
                            Err(error) => outcome.failed(step.owner(), StepError::openstack(&step, error)),
                        }
                    }
                    known.extend(made);
                    outcome.took(step);
                }
                Err(error) => outcome.failed(step.owner(), StepError::openstack(&step, error)),
            }
        }
        outcome
    }

    async fn close(&self, rules: &mut Option<Vec<Rule>>, steps: Vec<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(known) = rules else { return outcome };
        let each = stream::iter(steps).map(async |step| {
            let Step::RemoveRule(rule) = &step else { return (step, Ok(())) };
            if !self.leadership.is_valid() {
                return (step, Err(StepError::Deposed));
            }
            steps::begin(step.kind());
            let result = security_groups::delete_rule(&self.cloud.session, &rule.id).await;
            steps::end(step.kind(), result.is_err());
            let result = result.map_err(|error| StepError::openstack(&step, error));
            (step, result)
        });
        let results: Vec<_> = each.buffered(NEUTRON).collect().await;
        for (step, result) in results {
            match (&step, result) {
                (Step::RemoveRule(rule), Ok(())) => {
                    known.retain(|known| known.id != rule.id);
                    outcome.took(step);
                }
                (_, Ok(())) => {}
                (step, Err(error)) => outcome.failed(step.owner(), error),
            }
        }
        outcome
    }
}
