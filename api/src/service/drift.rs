//! What others changed in Neutron: address pairs, MAC addresses and reserved blocks are compared each period.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ake_api_client::ClusterId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Service, ports};
use crate::{
    cloud::NodePortFact,
    decide::{facts::PortFact, orphans::Sweep, wanted::Wanted},
    device::Leadership,
    refusal::Refusal,
    store::{Change, Loaded, Origin},
};

/// Compares each period, and writes only where there is a difference.
pub struct Drift {
    /// Whose clusters.
    pub service: Arc<Service>,
    /// How often.
    pub period: Duration,
    /// Of several instances, the one that writes to balancers compares.
    pub leadership: Leadership,
}

impl Drift {
    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let (begun, mut sweep) = (Instant::now(), Sweep::default());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.period) => {}
            }
            if !self.leadership.may_write() {
                self.service.forget_ports(&mut sweep);
                continue;
            }
            if let Err(refusal) = self.service.sweep_ports(&mut sweep, begun.elapsed(), self.period).await {
                tracing::warn!(reason = %refusal, "Neutron's ports could not be looked through");
            }
            let clusters = match self.service.store.clusters(None).await {
                Ok(clusters) => clusters,
                Err(error) => {
                    tracing::error!(%error, "clusters cannot be compared with Neutron");
                    continue;
                }
            };
            self.service.finish_releases().await;
            for cluster in clusters.into_iter().filter(|cluster| !cluster.deleting) {
                if let Err(refusal) = self.service.settle(cluster.id).await {
                    tracing::warn!(cluster = %cluster.id, reason = %refusal, "what is in Neutron is not what is wanted");
                }
            }
        }
    }
}

impl Service {
    /// Compares one cluster with Neutron and puts right what is not as it should be.
    pub(super) async fn settle(&self, id: ClusterId) -> Result<(), Refusal> {
        let _lock = self.lock(id).await;
        let Some(loaded) = self.store.load(id).await?.filter(|loaded| !loaded.record.deleting) else {
            return Ok(());
        };
        if self.uses_neutron(&loaded.record.network) {
            self.settle_blocks(&loaded).await?;
        }
        if self.plain_network(&loaded.record.network).is_some() {
            return Ok(());
        }
        let watched = loaded.wanted.pools.values().any(|pool| !pool.members.is_empty())
            || !loaded.wanted.node_ports.is_empty();
        if !watched {
            return Ok(());
        }
        let ports = self.cloud.node_ports(&loaded.record.project, &loaded.record.network).await?;
        if let Some(wanted) = with_present_macs(&loaded.wanted, &ports)
            && self.store.save(&loaded, Change { wanted: Some(&wanted), ..Change::default() }).await?
        {
            tracing::info!(cluster = %id, "members have other MAC addresses now");
            self.devices.feed().touch(id);
            self.devices.signal();
        }
        for port in loaded.wanted.node_ports.keys() {
            // One that is not listed may be gone or hidden: nothing is concluded from that.
            if let Some(fact) = ports.get(port)
                && ports::plan(&loaded, port, fact)?.write.is_some()
            {
                self.sync_port(&loaded, port, Some(fact.clone())).await?;
            }
        }
        Ok(())
    }

    /// Finishes what was begun and broke off: addresses that were given back.
    async fn finish_releases(&self) {
        let going = match self.store.retained(None).await {
            Ok(all) => all.into_iter().filter(|one| one.going).collect(),
            Err(error) => {
                tracing::error!(%error, "retained addresses cannot be read");
                Vec::new()
            }
        };
        for one in going {
            if let Err(refusal) = self.end_release(&one).await {
                tracing::warn!(address = %one.address, reason = %refusal, "not given back yet");
            }
        }
    }

    async fn settle_blocks(&self, loaded: &Loaded) -> Result<(), Refusal> {
        let reserved = self.cloud.reserved(loaded.record.id, &loaded.record.blocks).await?;
        for record in self.store.blocks(Some(loaded.record.id)).await? {
            let is_neutrons = record.settled && record.origin == Origin::Neutron;
            if is_neutrons && !reserved.contains(&record.block) {
                tracing::error!(cluster = %loaded.record.id, block = %record.block, "somebody deleted the port that reserves this block; it is made anew");
                match self.cloud.reserve(&loaded.record, &record).await? {
                    crate::cloud::Reservation::Port(port) => {
                        self.metrics.neutron_written("block");
                        self.store.settle_block(&record, Some(&port)).await?;
                    }
                    crate::cloud::Reservation::Plain => {}
                    crate::cloud::Reservation::Taken => {
                        return Err(Refusal::conflict(format!(
                            "VIP block {}: its port was deleted, and somebody else's port has an address of it now",
                            record.block
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is wanted with the MAC addresses that the members' addresses have now; none where all are right.
fn with_present_macs(wanted: &Wanted, ports: &BTreeMap<String, NodePortFact>) -> Option<Wanted> {
    let mut next = wanted.clone();
    let servers = ports.values().map(|port| &port.fact).filter(|fact| fact.is_of_a_server());
    let holders: HashMap<IpAddr, &PortFact> =
        servers.flat_map(|fact| fact.addresses.iter().map(move |address| (*address, fact))).collect();
    for member in next.pools.values_mut().flat_map(|pool| pool.members.values_mut()) {
        if let Some(fact) = holders.get(&member.address) {
            member.mac.clone_from(&fact.mac);
            member.port.clone_from(&fact.id);
        }
    }
    (next != *wanted).then_some(next)
}

#[cfg(test)]
impl Service {
    /// One comparison that may fail.
    pub(crate) async fn compare_for_tests(&self, id: &str) {
        // what it says is the log's
        let _ = self.settle(id.parse().expect("a UUID")).await;
    }

    /// One look for ports that no row knows.
    pub(crate) async fn sweep_for_tests(&self, sweep: &mut Sweep, now: Duration) {
        self.sweep_ports(sweep, now, Duration::from_secs(300)).await.expect("looked through");
    }

    /// Finishes what was given back, as the period brings it.
    pub(crate) async fn finish_releases_for_tests(&self) {
        self.finish_releases().await;
    }

    /// One comparison, as the period brings it.
    pub(crate) async fn settle_for_tests(&self, id: &str) {
        self.settle(id.parse().expect("a UUID")).await.expect("settled");
    }
}
