//! What Neutron must be asked before writes are judged, and what it said.

use std::{collections::BTreeSet, net::IpAddr};

use ake_api_client::{PoolRequest, Write};

/// A Neutron port, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFact {
    /// Its id.
    pub id: String,
    /// Its MAC address.
    pub mac: String,
    /// Id of its network.
    pub network: String,
    /// Its project.
    pub project: String,
    /// What kind of device it belongs to.
    pub device_owner: String,
    /// The device: a server's id.
    pub device_id: String,
    /// Its fixed addresses.
    pub addresses: Vec<IpAddr>,
}

impl PortFact {
    /// Whether it is a server's.
    #[must_use]
    pub fn is_of_a_server(&self) -> bool {
        self.device_owner.starts_with("compute:") && !self.device_id.is_empty()
    }
}

/// What Neutron said about the ports that writes name: those of the cluster's project on its network.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The ports.
    pub ports: Vec<PortFact>,
    /// Ids of the networks that VIPs are on.
    pub vip_networks: BTreeSet<String>,
}

impl Facts {
    pub(super) fn with_address(&self, address: IpAddr) -> Option<&PortFact> {
        let mut with = self.ports.iter().filter(|port| port.addresses.contains(&address));
        with.clone().find(|port| port.is_of_a_server()).or_else(|| with.next())
    }

    pub(super) fn with_id(&self, id: &str) -> Option<&PortFact> {
        self.ports.iter().find(|port| port.id == id)
    }
}

/// What must be known of Neutron to judge writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The ports that carry these addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports of these ids.
    pub ports: BTreeSet<String>,
    /// The ports of these ids, on the VIP network.
    pub adopted: BTreeSet<String>,
}

/// Lists what must be known of Neutron to judge these writes.
#[must_use]
pub fn needs(writes: &[Write]) -> Needs {
    let mut needs = Needs::default();
    for write in writes {
        match write {
            Write::PutPool { request: PoolRequest { members: Some(members), .. }, .. } => {
                needs.addresses.extend(members.values().map(|member| member.address));
            }
            Write::PutMember { request, .. } => {
                needs.addresses.insert(request.address);
            }
            Write::PutNodePort { port, .. } => {
                needs.ports.insert(port.clone());
            }
            Write::PutAddress { request, .. } => needs.adopted.extend(request.adopt.clone()),
            _ => {}
        }
    }
    needs
}
