//! A project's addresses: those of its clusters, and those that outlived theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ake_api_client::{ClusterId, ProjectAddress};
use ipnetwork::IpNetwork;

use super::Service;
use crate::{
    decide::{access::Caller, facts::Retained},
    refusal::{Kind, Refusal},
    store::{Origin, Release},
};

impl Service {
    /// The project's addresses, in order; for an application credential those of its own cluster, and those that no
    /// cluster has.
    pub async fn addresses(&self, caller: &Caller) -> Result<Vec<ProjectAddress>, Refusal> {
        let bound = self.bound(caller).await?;
        let mut all: BTreeMap<IpAddr, ProjectAddress> = BTreeMap::new();
        let retained = self.store.retained(Some(&caller.project)).await?;
        for one in retained.into_iter().filter(|one| !one.going) {
            let Retained { address, name, about, .. } = one;
            let cluster = None;
            all.insert(
                address,
                ProjectAddress { address, name, cluster, retained: true, used: false, about },
            );
        }
        let clusters: BTreeSet<ClusterId> =
            self.store.clusters(Some(&caller.project)).await?.into_iter().map(|record| record.id).collect();
        // A block may be a cluster's before any address of it has a name.
        for block in self.store.blocks(None).await?.into_iter().filter(|b| b.origin == Origin::Retained) {
            if let Some(one) = all.get_mut(&block.block.ip()) {
                one.cluster = Some(block.cluster);
            }
        }
        for id in &clusters {
            let Some(loaded) = self.store.load(*id).await? else { continue };
            for (name, address) in &loaded.wanted.addresses {
                let shown = loaded.wanted.shown(name, *address);
                let outlives = all.get(address).is_some_and(|one| one.cluster == Some(*id));
                let one = ProjectAddress {
                    address: *address,
                    name: name.clone(),
                    cluster: Some(*id),
                    retained: shown.retained || outlives,
                    used: loaded.wanted.load_balancers.values().any(|balancer| balancer.address == *name),
                    about: shown.about,
                };
                all.insert(*address, one);
            }
        }
        let visible = |one: &ProjectAddress| match (one.cluster, bound) {
            (Some(cluster), Some(bound)) => cluster == bound,
            _ => true,
        };
        Ok(all.into_values().filter(visible).collect())
    }

    /// Gives back an address that outlived its cluster. No application credential may.
    pub async fn release_address(&self, caller: &Caller, address: IpAddr) -> Result<(), Refusal> {
        // one that no cluster has yet may be the next one's
        if caller.credential.is_some() {
            let message = format!(
                "address {address}: an application credential is one cluster's; expected the project's own login, which gives \
                 back what is the project's"
            );
            return Err(Refusal::new(Kind::Forbidden, message));
        }
        match self.store.begin_release(&caller.project, address).await? {
            Release::Going(retained) => self.end_release(&retained).await,
            Release::Adopted => Err(self.in_use(caller, address).await?),
            Release::Missing => match self.holder(caller, address).await? {
                Some(_) => Err(self.in_use(caller, address).await?),
                None => {
                    let message = format!("address {address}: the project has retained none such");
                    Err(Refusal::new(Kind::NotFound, message))
                }
            },
        }
    }

    /// Finishes what was begun: the port goes, or keeps what else it has, and then the address is forgotten.
    pub(super) async fn end_release(&self, retained: &Retained) -> Result<(), Refusal> {
        if let Some(port) = &retained.port {
            let all = self.store.retained(None).await?;
            let stay: Vec<&Retained> =
                all.iter().filter(|one| one.port.as_ref() == Some(port) && !one.going).collect();
            if self.cloud.shrink_retained(port, &stay).await? {
                self.metrics.neutron_written("release address");
            }
        }
        self.store.end_release(retained.address).await?;
        tracing::info!(address = %retained.address, project = retained.project, "given back");
        Ok(())
    }

    async fn bound(&self, caller: &Caller) -> Result<Option<ClusterId>, Refusal> {
        match &caller.credential {
            Some(credential) => Ok(self.store.cluster_of_credential(credential).await?),
            None => Ok(None),
        }
    }

    /// The cluster of the caller's project whose block has an address.
    async fn holder(&self, caller: &Caller, address: IpAddr) -> Result<Option<ClusterId>, Refusal> {
        let clusters = self.store.clusters(Some(&caller.project)).await?;
        let has = |block: &IpNetwork| block.contains(address);
        Ok(clusters.into_iter().find(|record| record.blocks.iter().any(has)).map(|record| record.id))
    }

    async fn in_use(&self, caller: &Caller, address: IpAddr) -> Result<Refusal, Refusal> {
        let holder = match self.holder(caller, address).await? {
            Some(cluster) => format!("cluster {cluster} has it"),
            None => "its cluster is not gone yet".to_owned(),
        };
        Ok(Refusal::conflict(format!(
            "address {address}: {holder}; expected one that no cluster has: delete it there first"
        )))
    }
}
