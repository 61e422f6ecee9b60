//! Hands sealed bundles out: to the servers they are for, once.

use std::net::IpAddr;

use ake_api_client::Bundle;

use super::Service;
use crate::{
    decide::{facts::PortFact, validate},
    refusal::{Kind, Refusal},
};

impl Service {
    /// Redeems a claim for whoever speaks from this address. Who it is, Neutron knows: the address is fixed to a
    /// port, and the switch lets nobody else send from it.
    pub async fn redeem(&self, peer: IpAddr, claim: &str) -> Result<Bundle, Refusal> {
        let unknown = || Refusal::new(Kind::NotFound, "claim: there is none like this");
        if !(32..=128).contains(&claim.len()) || !claim.bytes().all(validate::is_claim_byte) {
            return Err(unknown());
        }
        let bundle = self.store.find_bundle(claim).await?.ok_or_else(unknown)?;
        let cluster = self.store.load(bundle.cluster).await?.ok_or_else(unknown)?.record;
        if cluster.deleting {
            return Err(Refusal::new(Kind::Deleting, format!("cluster {} is being deleted", cluster.id)));
        }
        let peer = peer.to_canonical();
        if self.plain_network(&cluster.network).is_some() {
            let why = format!(
                "no Neutron knows network {}, so nobody can tell whose address this is",
                cluster.network
            );
            return Err(forbidden(peer, why));
        }
        let ports = self.cloud.ports_with_address(&cluster.network, peer).await?;
        let port = ports.iter().find(|port| port.project == cluster.project).ok_or_else(|| {
            forbidden(
                peer,
                format!(
                    "expected the fixed address of a port of the cluster's project on network {}",
                    cluster.network
                ),
            )
        })?;
        if !port.is_of_a_server() {
            return Err(Refusal::unavailable(format!(
                "claim: {peer}: port {} belongs to no server yet; ask again",
                port.id
            )));
        }
        self.check_tags(peer, port, cluster.id, &bundle.role).await?;
        if !self.store.redeem(cluster.id, claim, &port.device_id).await? {
            return Err(Refusal::conflict(format!(
                "claim: server {} has had its bundle already; it is handed out once per server",
                port.device_id
            )));
        }
        tracing::info!(cluster = %cluster.id, role = bundle.role, server = port.device_id, %peer, "bundle handed out");
        Ok(Bundle { ciphertext: bundle.ciphertext })
    }

    async fn check_tags(
        &self,
        peer: IpAddr,
        port: &PortFact,
        cluster: ake_api_client::ClusterId,
        role: &str,
    ) -> Result<(), Refusal> {
        if self.cloud.is_tagged(port, cluster, role).await? {
            return Ok(());
        }
        Err(forbidden(
            peer,
            format!("port {}: expected the tags ake-cluster={cluster} and ake-role={role}", port.id),
        ))
    }
}

fn forbidden(peer: IpAddr, why: String) -> Refusal {
    Refusal::new(Kind::Forbidden, format!("claim: {peer}: {why}"))
}
