//! Address pairs of nodes' ports.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    cloud::NodePortFact,
    decide::pairs::{self, PairPlan},
    refusal::Refusal,
    store::Loaded,
};

/// How often a port that changed between reading and writing is read anew.
const ATTEMPTS: u32 = 3;

impl Service {
    /// Brings the pairs of a cluster's ports to what is wanted: of those that `also` names, and of those whose
    /// pairs as they were written differ.
    pub(super) async fn sync_ports(
        &self,
        loaded: &Loaded,
        also: impl Fn(&str) -> bool,
    ) -> Result<(), Refusal> {
        let ports: BTreeSet<&String> = loaded.wanted.node_ports.keys().chain(loaded.pairs.keys()).collect();
        for port in ports {
            let wanted = loaded.wanted.pairs_of(port, &loaded.record.blocks);
            let written = loaded.pairs.get(port);
            let settled = written.map_or(wanted.is_empty(), |written| *written == wanted);
            if !settled || also(port) {
                self.sync_port(loaded, port, None).await?;
            }
        }
        Ok(())
    }

    /// Brings the pairs of one port to what is wanted. `seen` is the port, where it was read already.
    pub(super) async fn sync_port(
        &self,
        loaded: &Loaded,
        port: &str,
        seen: Option<NodePortFact>,
    ) -> Result<(), Refusal> {
        let mut seen = seen;
        for _ in 0..ATTEMPTS {
            let fact = match seen.take() {
                Some(fact) => Some(fact),
                None => self.cloud.node_port(port).await?,
            };
            let Some(fact) = fact else { return self.forget_pairs(loaded, port).await };
            if self.write_port(loaded, port, &fact).await? {
                return Ok(());
            }
        }
        Err(Refusal::unavailable(format!(
            "node port {port}: others keep changing it; its address pairs could not be written in {ATTEMPTS} tries"
        )))
    }

    /// False if the port changed since it was read.
    async fn write_port(&self, loaded: &Loaded, port: &str, fact: &NodePortFact) -> Result<bool, Refusal> {
        let PairPlan { write, ours } = plan(loaded, port, fact)?;
        let written = loaded.pairs.get(port).cloned().unwrap_or_default();
        if let Some(pairs) = write {
            // Whatever happens in between, what may be ours is known as ours.
            let before: BTreeSet<_> = written.union(&ours).copied().collect();
            if before != written {
                self.save_pairs(loaded, port, &before).await?;
            }
            if !self.cloud.write_pairs(port, fact.revision, &pairs).await? {
                return Ok(false);
            }
            self.metrics.neutron_written("address pairs");
            tracing::info!(cluster = %loaded.record.id, port, pairs = ?ours.iter().map(ToString::to_string).collect::<Vec<_>>(), "address pairs written");
            self.save_pairs(loaded, port, &ours).await?;
        } else if ours != written {
            self.save_pairs(loaded, port, &ours).await?;
        }
        Ok(true)
    }

    async fn save_pairs(
        &self,
        loaded: &Loaded,
        port: &str,
        ours: &BTreeSet<IpNetwork>,
    ) -> Result<(), Refusal> {
        self.store.save_pairs(loaded.record.id, port, ours).await?;
        self.devices.feed().touch(loaded.record.id);
        Ok(())
    }

    /// A port that is not there has no pairs. As long as it is wanted, its absence may be a mistake of Neutron's, and
    /// what is ours on it is not forgotten.
    async fn forget_pairs(&self, loaded: &Loaded, port: &str) -> Result<(), Refusal> {
        if loaded.pairs.contains_key(port) && !loaded.wanted.node_ports.contains_key(port) {
            self.save_pairs(loaded, port, &BTreeSet::new()).await?;
        }
        Ok(())
    }
}

/// What a port should have, judged before anything is stored.
pub(super) fn plan(loaded: &Loaded, port: &str, fact: &NodePortFact) -> Result<PairPlan, Refusal> {
    let wanted = loaded.wanted.pairs_of(port, &loaded.record.blocks);
    let written = loaded.pairs.get(port).cloned().unwrap_or_default();
    pairs::plan(port, &fact.fact.mac, &fact.pairs, &written, &wanted)
}
