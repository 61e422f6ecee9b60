//! Clusters come and go.

use ake_api_client::{BundleRequest, Cluster, ClusterId, ClusterRequest, ClusterState};

use super::{DEVICE_PATIENCE, Guards, Service};
use crate::{
    decide::{access::Caller, addresses, ranges, validate, wanted::ClusterRecord, wanted::Wanted},
    device::View,
    refusal::{Kind, Refusal},
    store::{Change, Loaded, Origin},
};

/// A pool of pod ranges, and the prefix length of each.
type Pool = (ipnetwork::IpNetwork, u8);

impl Service {
    /// The caller's project's clusters; for an application credential its own.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Cluster>, Refusal> {
        let bound = match &caller.credential {
            Some(credential) => self.store.cluster_of_credential(credential).await?,
            None => None,
        };
        let all = self.store.clusters(Some(&caller.project)).await?;
        let visible = all.iter().filter(|record| bound.is_none_or(|bound| bound == record.id));
        Ok(visible.map(|record| self.cluster_answer(record)).collect())
    }

    /// All that a cluster owns, and its ETag.
    pub async fn get(&self, caller: &Caller, id: ClusterId) -> Result<(ClusterState, String), Refusal> {
        let mark = self.devices.feed().mark(id);
        let loaded = self.load_for(caller, id).await?;
        let tag = self.devices.feed().etag(&loaded.record, mark);
        Ok((self.state_answer(&loaded, &self.devices.view()), tag))
    }

    /// Registers a cluster, or completes and answers with what is registered.
    pub async fn register(
        &self,
        caller: &Caller,
        id: ClusterId,
        guards: &Guards,
        request: &ClusterRequest,
    ) -> Result<(ClusterState, String), Refusal> {
        validate::cluster(request)?;
        let _lock = self.lock(id).await;
        self.bound_elsewhere(caller, id).await?;
        let network = self.allowed_network(&request.network).await?;
        match self.store.load(id).await? {
            Some(_) => {
                let loaded = self.load_for(caller, id).await?;
                guards.admit(&loaded.record)?;
                repeats(&loaded.record, request, &network)?;
                if loaded.record.name != request.name {
                    self.store.rename(id, &request.name).await?;
                    self.devices.feed().touch(id);
                }
                self.ensure_blocks(&loaded.record).await?;
            }
            None if guards.if_match.is_some() => {
                let message = format!("if_match: cluster {id} is not registered; expected no If-Match");
                return Err(Refusal::new(Kind::Stale, message).of_field("if_match"));
            }
            None => self.register_new(caller, id, request, network).await?,
        }
        self.get(caller, id).await
    }

    async fn register_new(
        &self,
        caller: &Caller,
        id: ClusterId,
        request: &ClusterRequest,
        network: String,
    ) -> Result<(), Refusal> {
        let pools = self.pod_pools(&network).await?;
        let mut record = ClusterRecord::new(id, [&request.name, &caller.project, &network], pools.0.0);
        let choose = |taken: &[ipnetwork::IpNetwork]| {
            let one = |(pool, prefix)| ranges::pod_range(&request.network, pool, prefix, taken);
            Ok((one(pools.0)?, pools.1.map(one).transpose()?))
        };
        (record.pod_range, record.pod_range_v6) = self.store.register(&record, choose).await??;
        if let Err(refusal) = self.ensure_blocks(&record).await {
            // Nothing is left behind of a cluster that could not be made. Where Neutron does not answer, the
            // record stays, so that a repetition or a deletion finds the ports.
            if !self.uses_neutron(&record.network) || self.cloud.release(id, &[]).await.is_ok() {
                self.store.forget(id).await?;
            }
            return Err(refusal);
        }
        tracing::info!(cluster = %id, name = record.name, project = record.project, pod_range = %record.pod_range, "registered");
        Ok(())
    }

    async fn allowed_network(&self, asked: &str) -> Result<String, Refusal> {
        let mut allowed = Vec::new();
        if let Some(plain) = self.plain_network(asked) {
            return Ok(plain.network.clone());
        }
        for network in &self.config.networks {
            let id = self.cloud.configured(network).await?;
            if asked == id || asked == network.network {
                return Ok(id);
            }
            allowed.push(if id == network.network { id } else { format!("{id} ({})", network.network) });
        }
        Err(Refusal::invalid(
            "network",
            asked,
            format!("expected a network that AKE serves: {}", allowed.join(", ")),
        ))
    }

    /// Where pod ranges come from, and their length; the second is for IPv6.
    async fn pod_pools(&self, id: &str) -> Result<(Pool, Option<Pool>), Refusal> {
        let network = self.configured_network(id).await?;
        let v6 = network.pod_pool_v6.zip(network.pod_prefix_v6);
        Ok(((network.pod_pool, network.pod_prefix), v6))
    }

    /// Marks a cluster as going away: all load balancers but the API server's go, nothing new is taken.
    pub async fn mark_deleting(
        &self,
        caller: &Caller,
        id: ClusterId,
        guards: &Guards,
    ) -> Result<(ClusterState, String), Refusal> {
        let _lock = self.lock(id).await;
        let loaded = self.load_for(caller, id).await?;
        guards.admit(&loaded.record)?;
        let left = loaded.wanted.leaving();
        let lease_transitions = guards.lease_transitions;
        let change = Change { wanted: Some(&left), deleting: true, lease_transitions, ..Change::default() };
        if self.store.save(&loaded, change).await? {
            self.devices.feed().touch(id);
            tracing::info!(cluster = %id, "is going away");
            self.devices.wait(self.devices.signal(), DEVICE_PATIENCE).await;
        }
        self.get(caller, id).await
    }

    /// Forgets a cluster once its servers are gone, and frees what it had.
    pub async fn delete(&self, caller: &Caller, id: ClusterId, guards: &Guards) -> Result<(), Refusal> {
        let _lock = self.lock(id).await;
        let loaded = self.load_for(caller, id).await?;
        guards.admit(&loaded.record)?;
        let servers = match self.plain_network(&loaded.record.network) {
            Some(_) => Vec::new(),
            None => self.cloud.servers_ports(&loaded.record).await?,
        };
        if !servers.is_empty() {
            return Err(Refusal::conflict(format!(
                "cluster {id}: {} ports tagged as its own still belong to servers ({}); delete the servers first",
                servers.len(),
                some_of(&servers)
            )));
        }
        self.sees_reservations(&loaded).await?;
        let blocks = self.store.blocks(Some(id)).await?;
        let outliving = addresses::outliving(&loaded, &blocks);
        let nothing = Wanted::default();
        let change =
            Change { wanted: Some(&nothing), deleting: true, retained: &outliving, ..Change::default() };
        if self.store.save(&loaded, change).await? {
            self.devices.feed().touch(id);
        }
        for one in &outliving {
            tracing::info!(cluster = %id, address = %one.address, name = one.name, "outlives its cluster");
        }
        let view = self.devices.wait(self.devices.signal(), DEVICE_PATIENCE).await;
        if let Some(reason) = still_there(&view, id) {
            return Err(Refusal::unavailable(format!(
                "cluster {id}: a balancer still has its load balancers, so its addresses cannot be freed: {reason}; ask again"
            )));
        }
        let emptied = Loaded { wanted: nothing, ..loaded };
        self.sync_ports(&emptied, |_| true).await?;
        self.store.give_up_blocks(id).await?;
        let mut released = 0;
        if self.uses_neutron(&emptied.record.network) {
            let kept = self.store.retained(Some(&emptied.record.project)).await?;
            released = self.cloud.release(id, &kept).await?;
        }
        for _ in 0..released {
            self.metrics.neutron_written("release block");
        }
        self.store.forget(id).await?;
        self.devices.feed().touch(id);
        tracing::info!(cluster = %id, blocks = released, "forgotten");
        Ok(())
    }

    /// A list without servers is believed only where Neutron shows, at the same time, what must be there: the ports
    /// that reserve the cluster's blocks.
    async fn sees_reservations(&self, loaded: &Loaded) -> Result<(), Refusal> {
        let records = self.store.blocks(Some(loaded.record.id)).await?;
        let kept = records.iter().filter(|record| record.settled && record.origin == Origin::Neutron);
        let kept: Vec<_> = kept.map(|record| record.block).collect();
        if kept.is_empty() || !self.cloud.reserved(loaded.record.id, &kept).await?.is_empty() {
            return Ok(());
        }
        Err(Refusal::unavailable(format!(
            "cluster {}: Neutron shows none of the {} ports that reserve its VIP blocks, so it may not show its servers' \
             ports either; nothing is deleted. Ask again",
            loaded.record.id,
            kept.len()
        )))
    }

    /// Stores a role's sealed bundle.
    pub async fn put_bundle(
        &self,
        caller: &Caller,
        id: ClusterId,
        guards: &Guards,
        role: &str,
        request: &BundleRequest,
    ) -> Result<(), Refusal> {
        validate::bundle(role, request)?;
        let _lock = self.lock(id).await;
        let loaded = self.load_for(caller, id).await?;
        guards.admit(&loaded.record)?;
        if loaded.record.deleting {
            return Err(Refusal::new(
                Kind::Deleting,
                format!("bundle {role}: cluster {id} is being deleted and takes nothing new"),
            ));
        }
        if self.store.claim_is_taken(id, role, &request.claim).await? {
            return Err(
                Refusal::conflict("claim: another bundle has it; expected one of its own").of_field("claim")
            );
        }
        self.store.put_bundle(id, role, &request.claim, &request.ciphertext).await?;
        Ok(())
    }
}

/// Whether a registration asks for what is registered.
fn repeats(record: &ClusterRecord, request: &ClusterRequest, network: &str) -> Result<(), Refusal> {
    if record.deleting {
        return Err(Refusal::new(
            Kind::Deleting,
            format!(
                "cluster {}: it is being deleted and cannot be registered anew before it is gone",
                record.id
            ),
        ));
    }
    if record.network != network {
        return Err(Refusal::conflict(format!(
            "network: {}: cluster {} is registered on network {}, which cannot be changed",
            request.network, record.id, record.network
        ))
        .of_field("network"));
    }
    Ok(())
}

/// Why it is not sure that the balancers have nothing of a cluster any more.
fn still_there(view: &View, cluster: ClusterId) -> Option<String> {
    let id = cluster.to_string();
    if view.devices.is_empty() {
        return Some("no balancer was asked yet".to_owned());
    }
    view.devices.iter().find_map(|(url, seen)| match &seen.state {
        None => Some(seen.failure.clone().unwrap_or_else(|| format!("{url}: its state is not known"))),
        Some(state) => {
            let held = state.load_balancers.keys().find(|owner| owner.cluster() == id)?;
            let failure = seen.failure_of(held.project());
            Some(failure.unwrap_or_else(|| format!("{url}: it has not let go yet")))
        }
    })
}

fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}
