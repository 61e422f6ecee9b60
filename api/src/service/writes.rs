//! Writes to a cluster: one at a time, or several together.

use ake_api_client::{Batch, ClusterId, ClusterState, Write};

use super::{DEVICE_PATIENCE, Service, ports};
use crate::{
    decide::{
        access::Caller,
        checks,
        facts::{Facts, Needs, needs},
        kubernetes::{self, Writer},
        quota::Usage,
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
    /// Who writes.
    pub writer: Writer,
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
            writer: Writer::Controller(batch.kubernetes),
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
        kubernetes::admit(&loaded.record, &loaded.wanted, guards.writer)?;
        guards.admit(&loaded.record)?;
        let facts = self.facts(&loaded, writes).await?;
        let named = named_ports(writes);
        let (mut new_blocks, mut races) = (0, 0);
        let changed = loop {
            // as it was read last
            kubernetes::admit(&loaded.record, &loaded.wanted, guards.writer)?;
            match apply(&loaded.record, &loaded.wanted, &facts, writes) {
                Ok(wanted) => {
                    checks::judge(&self.config.check_ports, &loaded.wanted, &wanted, writes)?;
                    self.judge_pairs(&Loaded { wanted: wanted.clone(), ..loaded.clone() }, &named).await?;
                    let lease_transitions = guards.lease_transitions;
                    let kubernetes = guards.writer.kubernetes();
                    let change =
                        Change { wanted: Some(&wanted), lease_transitions, kubernetes, ..Change::default() };
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
                    self.admit_addresses(&loaded, writes).await?;
                    ports::admit_block(&loaded)?;
                    self.add_block_of(&loaded.record, family).await?;
                    loaded = self.load_for(caller, id).await?;
                }
                Err(Stop::NeedsAdoption(adoption)) if new_blocks < NEW_BLOCKS => {
                    new_blocks += 1;
                    // one that the project has retained is counted already
                    if !adoption.retained {
                        self.admit_addresses(&loaded, writes).await?;
                    }
                    ports::admit_block(&loaded)?;
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
        let mut needs = needs(writes);
        if loaded.record.deleting || needs == Needs::default() {
            return Ok(Facts::default());
        }
        let asked = std::mem::take(&mut needs.retained);
        let ClusterRecord { project, network, .. } = &loaded.record;
        let mut facts = match self.plain_network(network) {
            Some(plain) => Facts::plain(network, project, &plain.nodes_of(project), &needs),
            None => Facts::default(),
        };
        if self.plain_network(network).is_some() {
            needs.addresses.clear();
            needs.ports.clear();
        }
        if needs != Needs::default() {
            let asked = self.cloud.facts(project, network, &needs).await?;
            facts.ports.extend(asked.ports);
        }
        if !asked.is_empty() {
            let retained = self.store.retained(Some(&loaded.record.project)).await?;
            facts.retained = retained.into_iter().map(|one| (one.address, one)).collect();
        }
        if !needs.adopted.is_empty() {
            facts.vip_networks = self.vip_networks(&loaded.record).await?;
        }
        Ok(facts)
    }

    /// Refuses, before a block is reserved for them, addresses that the project may not have.
    async fn admit_addresses(&self, loaded: &Loaded, writes: &[Write]) -> Result<(), Refusal> {
        let after = Usage::with_addresses_of(&loaded.wanted, writes);
        Ok(self.store.admits(&loaded.record, &Usage::of(&loaded.wanted), &after).await?)
    }

    /// Refuses, before anything is stored, what Neutron would not take.
    async fn judge_pairs(&self, wanted: &Loaded, named: &[String]) -> Result<(), Refusal> {
        let seen = self.see_ports(wanted, named.len()).await?;
        for port in named.iter().filter(|port| wanted.wanted.node_ports.contains_key(*port)) {
            let fact = match seen.get(port) {
                Some(fact) => Some(fact.clone()),
                None => self.cloud.node_port(port).await?,
            };
            if let Some(fact) = fact {
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
