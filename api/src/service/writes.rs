//! Writes to a cluster: one at a time, or several together.

use ake_api_client::{Batch, ClusterId, ClusterState, Write};

use super::{DEVICE_PATIENCE, Service, ports};
use crate::{
    decide::{
        access::Caller,
        facts::{Facts, Needs, needs},
        wanted::ClusterRecord,
        writes::{Stop, apply},
    },
    device::View,
    feed,
    refusal::{Kind, Refusal},
    store::{Change, Loaded, StoreError},
};

/// A request may need this many new blocks at most; more means that something is wrong.
const NEW_BLOCKS: usize = 64;
/// How often a request is decided anew because another instance changed the cluster meanwhile.
const RACES: usize = 5;

/// Most writes of one batch.
const MOST_WRITES: usize = 10_000;

/// What must hold for a write to count.
#[derive(Debug, Clone, Default)]
pub struct Guards {
    /// The ETag that it was planned from.
    pub if_match: Option<String>,
    /// The writer's count of Lease transitions.
    pub lease_transitions: Option<u64>,
}

impl Guards {
    /// Whether a write counts for a cluster as it is.
    pub(super) fn admit(&self, record: &ClusterRecord) -> Result<(), Refusal> {
        if let Some(transitions) = self.lease_transitions
            && transitions < record.lease_transitions
        {
            return Err(Refusal::new(
            Kind::Deposed,
            format!(
                "lease_transitions: {transitions}: a writer with {} was here; expected that or more: another one leads now",
                record.lease_transitions
            ),
        )
        .of_field("lease_transitions"));
        }
        match &self.if_match {
            Some(tags) => planned_from(tags, record.revision),
            None => Ok(()),
        }
    }
}

/// What a write came to.
pub struct Written {
    /// The cluster after it.
    pub loaded: Loaded,
    /// What the balancers had when the answer was due.
    pub view: View,
    /// The ETag of both.
    pub tag: String,
}

impl Service {
    /// Applies a batch: all of it or nothing.
    pub async fn batch(
        &self,
        caller: &Caller,
        id: ClusterId,
        guards: &Guards,
        batch: &Batch,
    ) -> Result<(ClusterState, String), Refusal> {
        let guards = Guards {
            if_match: batch.if_match.clone().or_else(|| guards.if_match.clone()),
            lease_transitions: Some(batch.lease_transitions),
        };
        if batch.writes.len() > MOST_WRITES {
            let expected = format!("expected at most {MOST_WRITES} in one batch");
            return Err(Refusal::invalid("writes", format!("{} of them", batch.writes.len()), expected));
        }
        let Written { loaded, view, tag } = self.write(caller, id, &guards, &batch.writes).await?;
        Ok((self.state_answer(&loaded, &view), tag))
    }

    /// Applies writes: all of them or nothing.
    pub async fn write(
        &self,
        caller: &Caller,
        id: ClusterId,
        guards: &Guards,
        writes: &[Write],
    ) -> Result<Written, Refusal> {
        let _lock = self.lock(id).await;
        let mut loaded = self.load_for(caller, id).await?;
        guards.admit(&loaded.record)?;
        let facts = self.facts(&loaded, writes).await?;
        let named = named_ports(writes);
        let (mut new_blocks, mut races) = (0, 0);
        let changed = loop {
            match apply(&loaded.record, &loaded.wanted, &facts, writes) {
                Ok(wanted) => {
                    self.judge_pairs(&Loaded { wanted: wanted.clone(), ..loaded.clone() }, &named).await?;
                    let lease_transitions = guards.lease_transitions;
                    let change = Change { wanted: Some(&wanted), deleting: false, lease_transitions };
                    match self.store.save(&loaded, change).await {
                        // another instance was faster: decide anew
                        Err(StoreError::Race(_)) if races < RACES => {
                            races += 1;
                            loaded = self.load_for(caller, id).await?;
                            guards.admit(&loaded.record)?;
                        }
                        saved => break saved?,
                    }
                }
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::NeedsBlock(family)) if new_blocks < NEW_BLOCKS => {
                    new_blocks += 1;
                    self.add_block_of(&loaded.record, family).await?;
                    loaded = self.load_for(caller, id).await?;
                }
                Err(Stop::NeedsAdoption(adoption)) if new_blocks < NEW_BLOCKS => {
                    new_blocks += 1;
                    self.adopt(&loaded.record, &adoption).await?;
                    loaded = self.load_for(caller, id).await?;
                }
                Err(Stop::NeedsBlock(_) | Stop::NeedsAdoption(_)) => {
                    return Err(Refusal::new(
                        Kind::Exhausted,
                        "addresses: more blocks would be needed than one request may take",
                    ));
                }
            }
        };
        let signal = changed.then(|| self.devices.signal());
        if changed {
            self.devices.feed().touch(id);
        }
        let mut after = self.load_for(caller, id).await?;
        self.sync_ports(&after, |port| named.iter().any(|named| named == port)).await?;
        if let Some(signal) = signal
            && concerns_balancers(writes)
        {
            self.devices.wait(signal, DEVICE_PATIENCE).await;
        }
        let mark = self.devices.feed().mark(id);
        if !named.is_empty() || changed {
            after = self.load_for(caller, id).await?;
        }
        let tag = self.devices.feed().etag(&after.record, mark);
        Ok(Written { loaded: after, view: self.devices.view(), tag })
    }

    async fn facts(&self, loaded: &Loaded, writes: &[Write]) -> Result<Facts, Refusal> {
        let needs = needs(writes);
        if loaded.record.deleting || needs == Needs::default() {
            return Ok(Facts::default());
        }
        let mut facts = self.cloud.facts(&loaded.record.project, &loaded.record.network, &needs).await?;
        if !needs.adopted.is_empty() {
            facts.vip_networks = self.vip_networks(&loaded.record).await?;
        }
        Ok(facts)
    }

    /// Refuses, before anything is stored, what Neutron would not take.
    async fn judge_pairs(&self, wanted: &Loaded, named: &[String]) -> Result<(), Refusal> {
        for port in named.iter().filter(|port| wanted.wanted.node_ports.contains_key(*port)) {
            if let Some(fact) = self.cloud.node_port(port).await? {
                ports::plan(wanted, port, &fact)?;
            }
        }
        Ok(())
    }
}

/// Whether a plan that was made from one of these ETags still counts. Only what is wanted makes it stale: health,
/// and what the balancers have, may have changed.
fn planned_from(tags: &str, revision: u64) -> Result<(), Refusal> {
    if tags.split(',').any(|tag| tag.trim() == "*" || feed::revision(tag) == Some(revision)) {
        return Ok(());
    }
    let message =
        format!("if_match: {tags}: the cluster is at revision {revision} now; read it and plan anew");
    Err(Refusal::new(Kind::Stale, message).of_field("if_match"))
}

fn named_ports(writes: &[Write]) -> Vec<String> {
    let named = writes.iter().filter_map(|write| match write {
        Write::PutNodePort { port, .. } | Write::DeleteNodePort { port, .. } => Some(port.clone()),
        _ => None,
    });
    named.collect()
}

fn concerns_balancers(writes: &[Write]) -> bool {
    writes
        .iter()
        .any(|write| matches!(write, Write::PutLoadBalancer { .. } | Write::DeleteLoadBalancer { .. }))
}
