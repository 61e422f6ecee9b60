//! What Neutron must be asked before writes are judged, and what it said.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ake_api_client::{PoolRequest, Write};
use ipnetwork::IpNetwork;

/// A Neutron port, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFact {
    /// Its id; empty where there is no Neutron.
    pub id: String,
    /// Its MAC address; empty where there is no Neutron.
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
    /// Addresses that the cluster's project has retained.
    pub retained: BTreeMap<IpAddr, Retained>,
}

/// An address that outlived its cluster, and is a project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub project: String,
    /// The name that it had at its cluster.
    pub name: String,
    /// What it is for, in words for people.
    pub about: Option<String>,
    /// The Neutron port that keeps it; none of a plain range.
    pub port: Option<String>,
    /// Id of the Neutron network that it is on; empty where there is no Neutron.
    pub network: String,
    /// Id of its subnet.
    pub subnet: String,
    /// It was given back, and is about to go.
    pub going: bool,
}

impl Facts {
    /// What is known where there is no Neutron: any address of the project's ranges is a node.
    #[must_use]
    pub fn plain(network: &str, project: &str, ranges: &[IpNetwork], needs: &Needs) -> Self {
        let own =
            needs.addresses.iter().filter(|address| ranges.iter().any(|range| range.contains(**address)));
        let port = |address: &IpAddr| PortFact {
            id: String::new(),
            mac: String::new(),
            network: network.to_owned(),
            project: project.to_owned(),
            device_owner: "compute:".to_owned(),
            device_id: address.to_string(),
            addresses: vec![*address],
        };
        Self { ports: own.map(port).collect(), ..Self::default() }
    }
}

/// The same ports, found at once however many there are.
pub(super) struct Known<'a> {
    by_address: HashMap<IpAddr, &'a PortFact>,
    by_id: HashMap<&'a str, &'a PortFact>,
}

impl<'a> Known<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        let mut known = Self { by_address: HashMap::new(), by_id: HashMap::new() };
        for port in &facts.ports {
            known.by_id.entry(&port.id).or_insert(port);
            for address in &port.addresses {
                // Of several, a server's is meant.
                let held = known.by_address.entry(*address).or_insert(port);
                if port.is_of_a_server() && !held.is_of_a_server() {
                    *held = port;
                }
            }
        }
        known
    }

    pub(super) fn with_address(&self, address: IpAddr) -> Option<&'a PortFact> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn with_id(&self, id: &str) -> Option<&'a PortFact> {
        self.by_id.get(id).copied()
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
    /// Addresses that the project may have retained.
    pub retained: BTreeSet<IpAddr>,
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
            Write::PutAddress { request, .. } => match request.adopt.as_deref().map(str::parse) {
                None => {}
                Some(Ok(address)) => drop(needs.retained.insert(address)),
                Some(Err(_)) => needs.adopted.extend(request.adopt.clone()),
            },
            _ => {}
        }
    }
    needs
}
