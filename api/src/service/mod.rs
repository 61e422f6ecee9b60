//! What the service does: it loads, asks, lets decide, stores, and tells the balancers' task.

mod addresses;
pub mod answers;
mod blocks;
mod claims;
mod clusters;
mod drift;
mod kubernetes;
mod networks;
mod news;
mod orphans;
mod ports;
mod quota;
mod writes;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use ake_api_client::ClusterId;
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use drift::Drift;
pub use news::{News, Others};
pub use writes::{Guards, Written};

use crate::{
    cloud::Cloud,
    config::Config,
    decide::{
        access::{self, Caller},
        wanted::ClusterRecord,
    },
    device::Devices,
    metrics::Metrics,
    refusal::{Kind, Refusal},
    store::{Loaded, Store},
};

/// How long an answer waits for the balancers.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that requests need.
pub struct Service {
    /// The wanted state.
    pub store: Store,
    /// OpenStack.
    pub cloud: Arc<Cloud>,
    /// The balancers.
    pub devices: Devices,
    /// What is counted.
    pub metrics: Metrics,
    config: Arc<Config>,
    locks: Mutex<HashMap<ClusterId, Weak<Mutex<()>>>>,
}

impl Service {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        store: Store,
        cloud: Arc<Cloud>,
        devices: Devices,
        metrics: Metrics,
    ) -> Self {
        Self { store, cloud, devices, metrics, config, locks: Mutex::default() }
    }

    /// Writes to one cluster happen one after the other.
    async fn lock(&self, cluster: ClusterId) -> OwnedMutexGuard<()> {
        let mut locks = self.locks.lock().await;
        let lock = locks.get(&cluster).and_then(Weak::upgrade).unwrap_or_else(|| {
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = Arc::new(Mutex::new(()));
            locks.insert(cluster, Arc::downgrade(&lock));
            lock
        });
        drop(locks);
        lock.lock_owned().await
    }

    /// Loads a cluster for a caller: another project's is not there, and an application credential belongs to
    /// the first cluster that it names.
    async fn load_for(&self, caller: &Caller, cluster: ClusterId) -> Result<Loaded, Refusal> {
        self.bound_elsewhere(caller, cluster).await?;
        let loaded = self.store.load(cluster).await?.filter(|c| c.record.project == caller.project);
        let loaded = loaded.ok_or_else(|| missing(cluster))?;
        self.bind(caller, cluster).await?;
        Ok(loaded)
    }

    /// The same without what the cluster wants.
    async fn brief_for(&self, caller: &Caller, cluster: ClusterId) -> Result<ClusterRecord, Refusal> {
        self.bound_elsewhere(caller, cluster).await?;
        let record = self.store.brief(cluster).await?.filter(|c| c.project == caller.project);
        let record = record.ok_or_else(|| missing(cluster))?;
        self.bind(caller, cluster).await?;
        Ok(record)
    }

    /// Whoever is bound to another cluster is not told whether there is this one.
    async fn bound_elsewhere(&self, caller: &Caller, cluster: ClusterId) -> Result<(), Refusal> {
        match &caller.credential {
            None => Ok(()),
            Some(credential) => {
                access::credential_may_touch(self.store.cluster_of_credential(credential).await?, cluster)
            }
        }
    }

    async fn bind(&self, caller: &Caller, cluster: ClusterId) -> Result<(), Refusal> {
        let Some(credential) = &caller.credential else { return Ok(()) };
        let bound = self.store.cluster_of_credential(credential).await?;
        access::credential_may_touch(bound, cluster)?;
        if bound.is_none() {
            self.store.bind_credential(credential, cluster).await?;
            // somebody may have been faster
            access::credential_may_touch(self.store.cluster_of_credential(credential).await?, cluster)?;
        }
        Ok(())
    }
}

fn missing(cluster: ClusterId) -> Refusal {
    Refusal::new(Kind::NotFound, format!("cluster {cluster}: the project has none of this id"))
}
