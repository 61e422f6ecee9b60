//! The networks of the configuration, by the ids that clusters have them by.

use super::Service;
use crate::{config::Network, refusal::Refusal};

impl Service {
    /// A network that no Neutron knows.
    pub(super) fn plain_network(&self, id: &str) -> Option<&Network> {
        self.config.networks.iter().find(|network| !network.neutron && network.network == id)
    }

    /// Whether anything of a network's clusters is in Neutron; of one that is in the configuration no longer it may be.
    pub(super) fn uses_neutron(&self, id: &str) -> bool {
        self.plain_network(id).is_none_or(Network::uses_neutron)
    }

    /// What the configuration says of a network.
    pub(super) async fn configured_network(&self, id: &str) -> Result<&Network, Refusal> {
        if let Some(plain) = self.plain_network(id) {
            return Ok(plain);
        }
        for network in &self.config.networks {
            if self.cloud.configured(network).await? == id {
                return Ok(network);
            }
        }
        let message = format!("network {id}: it is no longer in the operator's configuration of ake-api");
        Err(Refusal::unavailable(message))
    }
}
