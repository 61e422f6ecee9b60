//! Writes to ake-api, together as far as it takes them together.

use std::collections::BTreeSet;

use ake_api_client::{Batch, Client, ClusterId, ClusterState, KubernetesId, Write};

use super::{
    apply::{Outcome, StepError},
    plan,
    step::{Owner, Step},
};
use crate::{cloud::Cloud, cluster::Leadership, steps};

/// Writes of one batch; ake-api takes twice as many.
const BATCH: usize = 5_000;

/// Writes to one cluster's part of ake-api.
pub(super) struct Writer<'a> {
    pub(super) api: &'a Client,
    pub(super) cluster: ClusterId,
    /// Which Kubernetes writes.
    pub(super) kubernetes: KubernetesId,
    /// Without it nothing is written.
    pub(super) leadership: &'a Leadership,
}

impl<'a> Writer<'a> {
    pub(super) fn new(cloud: &'a Cloud, leadership: &'a Leadership) -> Self {
        let Cloud { api, cluster_id, kubernetes, .. } = cloud;
        Self { api, cluster: *cluster_id, kubernetes: *kubernetes, leadership }
    }

    /// All writes together. If ake-api refuses them, those of each half of their owners, and so on, so that in the end
    /// each owner hears its own refusal and nobody another's.
    pub(super) async fn write(
        &self,
        state: &mut ClusterState,
        steps: Vec<Step>,
        etag: &mut String,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut planned_from = Some(etag.clone());
        for steps in steps.chunks(BATCH) {
            match self.batch(state, steps, planned_from, etag, &mut outcome).await {
                Ok(()) => {}
                Err(error) if error.is_everybodys() => outcome.ended = Some(error),
                Err(error) => self.write_apart(state, steps, error, etag, &mut outcome).await,
            }
            if outcome.ended.is_some() {
                return outcome;
            }
            planned_from = Some(etag.clone());
        }
        outcome
    }

    /// Says which Kubernetes this is, with nothing else to write.
    pub(super) async fn claim(&self, state: &mut ClusterState, etag: &mut String) -> Result<(), StepError> {
        self.batch(state, &[], Some(etag.clone()), etag, &mut Outcome::default()).await?;
        tracing::info!(cluster = %self.cluster, kubernetes = %self.kubernetes, "the cluster is this Kubernetes");
        Ok(())
    }

    /// What is shared first, but what others may still refer to last.
    async fn write_apart(
        &self,
        state: &mut ClusterState,
        steps: &[Step],
        error: StepError,
        etag: &mut String,
        outcome: &mut Outcome,
    ) {
        let is_last = |step: &&Step| step.owner() == Owner::All && is_deletion(step);
        let of = |owners: &BTreeSet<Owner>| -> Vec<Step> {
            steps.iter().filter(|step| owners.contains(&step.owner()) && !is_last(step)).cloned().collect()
        };
        let owners: BTreeSet<Owner> = steps.iter().map(Step::owner).collect();
        let (shared, single): (BTreeSet<Owner>, BTreeSet<Owner>) =
            owners.into_iter().partition(|owner| *owner == Owner::All);
        let mut single: Vec<Owner> = single.into_iter().collect();
        let last: Vec<Step> = steps.iter().filter(is_last).cloned().collect();
        if shared.is_empty() && single.len() == 1 {
            return refused(single.remove(0), error, steps, outcome);
        }
        let half = single.split_off(single.len() / 2);
        let mut waiting = vec![half, single, shared.into_iter().collect()];
        while let Some(owners) = waiting.pop() {
            let steps = of(&owners.iter().cloned().collect());
            if steps.is_empty() || outcome.ended.is_some() {
                continue;
            }
            match (self.batch(state, &steps, None, etag, outcome).await, owners.as_slice()) {
                (Ok(()), _) => {}
                (Err(error), _) if error.is_everybodys() => outcome.ended = Some(error),
                (Err(error), [owner]) => refused(owner.clone(), error, &steps, outcome),
                (Err(_), owners) => {
                    let (first, second) = owners.split_at(owners.len() / 2);
                    waiting.extend([second.to_vec(), first.to_vec()]);
                }
            }
        }
        if !last.is_empty()
            && outcome.ended.is_none()
            && let Err(error) = self.batch(state, &last, None, etag, outcome).await
        {
            refused(Owner::All, error, &last, outcome);
        }
    }

    async fn batch(
        &self,
        state: &mut ClusterState,
        steps: &[Step],
        planned_from: Option<String>,
        etag: &mut String,
        outcome: &mut Outcome,
    ) -> Result<(), StepError> {
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
        let batch = Batch {
            lease_transitions: self.leadership.transitions(),
            kubernetes: Some(self.kubernetes),
            if_match: planned_from,
            writes,
        };
        steps.iter().for_each(|step| steps::begin(step.kind()));
        match self.api.batch_tagged(self.cluster, &batch).await {
            Ok((now, tag)) => {
                (*state, *etag) = (now, tag);
                for step in steps {
                    steps::end(step.kind(), false);
                    outcome.took(step.clone());
                }
                Ok(())
            }
            Err(error) if error.code() == Some("stale") => Err(StepError::Stale),
            Err(error) if error.code() == Some("deposed") => {
                // If the Lease was made anew its count began anew too, and ours has to catch up.
                self.leadership.raise(state.lease_transitions + 1);
                Err(StepError::Deposed)
            }
            Err(error) => {
                let step = match steps {
                    [step] => step.to_string(),
                    [step, ..] => format!("{step}, and {} more", steps.len() - 1),
                    [] => format!("say that the cluster is Kubernetes {}", self.kubernetes),
                };
                Err(StepError::Api { step, error })
            }
        }
    }
}

fn is_deletion(step: &Step) -> bool {
    matches!(step, Step::Write { write, .. } if plan::is_deletion(write))
}

fn refused(owner: Owner, error: StepError, steps: &[Step], outcome: &mut Outcome) {
    for step in steps {
        steps::end(step.kind(), true);
    }
    outcome.failed(owner, error);
}
