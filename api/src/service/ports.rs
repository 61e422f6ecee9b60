//! Address pairs of nodes' ports.

use std::collections::{BTreeMap, BTreeSet};

use futures::{TryStreamExt as _, stream};
use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    cloud::{NodePortFact, SINGLE_LOOKUPS},
    decide::pairs::{self, PairPlan},
    refusal::{Kind, Refusal},
    store::Loaded,
};

/// How often a port that changed between reading and writing is read anew.
const ATTEMPTS: u32 = 3;
/// Ports that are written at a time: a new VIP block is one more pair on every node's.
const AT_ONCE: usize = 8;

impl Service {
    /// Brings the pairs of a cluster's ports to what is wanted: of those that `also` names, and of those whose
    /// pairs as they were written differ.
    pub(super) async fn sync_ports(
        &self,
        loaded: &Loaded,
        also: impl Fn(&str) -> bool,
    ) -> Result<(), Refusal> {
        let ports: BTreeSet<&String> = loaded.wanted.node_ports.keys().chain(loaded.pairs.keys()).collect();
        let to_sync = ports.into_iter().filter(|port| {
            let wanted = loaded.wanted.pairs_of(port, &loaded.record.blocks);
            let written = loaded.pairs.get(*port);
            !written.map_or(wanted.is_empty(), |written| *written == wanted) || also(port)
        });
        let to_sync: Vec<&String> = to_sync.collect();
        let mut seen = self.see_ports(loaded, to_sync.len()).await?;
        let each = to_sync.into_iter().map(|port| Ok((port, seen.remove(port))));
        let write = async |(port, seen): (&String, _)| self.sync_port(loaded, port, seen).await;
        stream::iter(each).try_for_each_concurrent(AT_ONCE, write).await
    }

    /// The ports of a cluster's project on its network, where so many of them are looked at that a listing is less to ask for.
    pub(super) async fn see_ports(
        &self,
        loaded: &Loaded,
        count: usize,
    ) -> Result<BTreeMap<String, NodePortFact>, Refusal> {
        if count <= SINGLE_LOOKUPS {
            return Ok(BTreeMap::new());
        }
        self.cloud.node_ports(&loaded.record.project, &loaded.record.network).await
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

/// Refuses one more block where the port of a node would need more pairs with it than Neutron takes: once the cluster
/// had it, nothing could be written to that port any more.
pub(super) fn admit_block(loaded: &Loaded) -> Result<(), Refusal> {
    let Loaded { wanted, record, .. } = loaded;
    let pairs = |port: &String| wanted.pairs_of(port, &record.blocks).len();
    let mut of_nodes =
        wanted.node_ports.iter().filter(|(_, askers)| askers.values().any(|ask| ask.vip_blocks));
    let Some((port, _)) = of_nodes.find(|(port, _)| pairs(port) >= pairs::LIMIT) else { return Ok(()) };
    let message = format!(
        "addresses: all of the cluster's {} VIP blocks are in use, and another one would be one address pair more than the \
         {} that Neutron allows, on port {port} among others; expected an address that is freed, or that Services share. \
         With larger blocks (block_prefix, the operator's) a cluster has room for more",
        record.blocks.len(),
        pairs::LIMIT
    );
    Err(Refusal::new(Kind::Exhausted, message).of_field("address"))
}
