//! Neutron ports that hold what AKE has: blocks of VIPs, and addresses that outlived their cluster.

use std::{collections::BTreeSet, net::IpAddr};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;
use openstack_client::ports::{self, Filter, FixedIp, NewPort, Port, PortUpdate};

use super::{Cloud, unavailable};
use crate::{
    decide::{
        facts::Retained,
        ranges::Span,
        remains::{BlockPort, Description},
        wanted::ClusterRecord,
    },
    refusal::Refusal,
    store::BlockRecord,
};

/// What marks a Neutron port as the reservation of a VIP block. Nothing else is ever deleted.
pub const BLOCK_OWNER: &str = "ake:vip-block";

/// What marks a Neutron port as one of addresses that outlived their cluster; the device is the project.
pub const RETAINED_OWNER: &str = "ake:vip-retained";

/// Neutron's limit of a name, and of a description.
const NAME: usize = 255;

/// What came of an attempt to reserve a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// This port holds it.
    Port(String),
    /// There is no Neutron to reserve it in.
    Plain,
    /// Somebody else's port has an address of it.
    Taken,
}

impl Cloud {
    /// Reserves a block by one port that has all its addresses, or finds the port that does already.
    pub async fn reserve(
        &self,
        cluster: &ClusterRecord,
        record: &BlockRecord,
    ) -> Result<Reservation, Refusal> {
        let own = self.list(&block_filter(cluster.id)).await?;
        if let Some(port) = own.iter().find(|port| reserves(port, cluster.id, record.block)) {
            return Ok(Reservation::Port(port.id.clone()));
        }
        let new = NewPort {
            network_id: record.network.clone(),
            name: format!("ake-{}-{}", cluster.name, record.block),
            description: Description::text(cluster, record.block),
            fixed_ips: Span::of(record.block)
                .addresses()
                .map(|ip_address| FixedIp { subnet_id: Some(record.subnet.clone()), ip_address })
                .collect(),
            device_id: cluster.id.to_string(),
            device_owner: BLOCK_OWNER.to_owned(),
            admin_state_up: Some(false),
            port_security_enabled: Some(false),
            ..NewPort::default()
        };
        match ports::create(self.session().await?, &new).await {
            Ok(port) => Ok(Reservation::Port(port.id)),
            Err(e) if e.fault().is_some_and(|fault| fault.starts_with("IpAddress")) => Ok(Reservation::Taken),
            Err(e) if e.status().is_some_and(|status| status.as_u16() == 409) && e.is_conflict() => {
                Ok(Reservation::Taken)
            }
            Err(e) => Err(Refusal::unavailable(format!("VIP block {}: {e}", record.block))),
        }
    }

    /// Gives back all blocks of a cluster that Neutron has reserved: only ports that say that they are ours. What was
    /// retained of a block keeps its port, which is the project's from then on.
    pub async fn release(&self, cluster: ClusterId, retained: &[Retained]) -> Result<usize, Refusal> {
        let session = self.session().await?;
        let mut released = 0;
        for port in self.list(&block_filter(cluster)).await? {
            if port.device_owner != BLOCK_OWNER || port.device_id != cluster.to_string() {
                continue;
            }
            let stay: Vec<&Retained> =
                retained.iter().filter(|one| one.port.as_ref() == Some(&port.id)).collect();
            if stay.is_empty() {
                ports::delete(session, &port.id).await.map_err(|e| unavailable(&e))?;
            } else {
                self.hand_over(&port, &stay).await?;
            }
            released += 1;
        }
        Ok(released)
    }

    /// Leaves a port of retained addresses these alone; without any it goes. False where there was nothing to do.
    pub async fn shrink_retained(&self, port: &str, stay: &[&Retained]) -> Result<bool, Refusal> {
        let session = self.session().await?;
        let port = match ports::get(session, port).await {
            Ok(port) => port,
            Err(e) if e.is_missing() => return Ok(false),
            Err(e) => return Err(unavailable(&e)),
        };
        if port.device_owner != RETAINED_OWNER {
            return Ok(false);
        }
        if stay.is_empty() {
            ports::delete(session, &port.id).await.map_err(|e| unavailable(&e))?;
        } else if port.addresses().all(|address| stay.iter().any(|one| one.address == address)) {
            return Ok(false);
        } else {
            self.hand_over(&port, stay).await?;
        }
        Ok(true)
    }

    /// Makes a port one of retained addresses, with these alone.
    async fn hand_over(&self, port: &Port, stay: &[&Retained]) -> Result<(), Refusal> {
        let Some(project) = stay.first().map(|one| one.project.clone()) else { return Ok(()) };
        let names: Vec<&str> = stay.iter().map(|one| one.name.as_str()).collect();
        let keeps = |ip: &&FixedIp| stay.iter().any(|one| one.address == ip.ip_address);
        let change = PortUpdate {
            name: Some(format!("ake-retained-{}", names.join("-")).chars().take(NAME).collect()),
            description: Some(RetainedPort::text(stay)),
            fixed_ips: Some(port.fixed_ips.iter().filter(keeps).cloned().collect()),
            device_id: Some(project),
            device_owner: Some(RETAINED_OWNER.to_owned()),
            ..PortUpdate::default()
        };
        match ports::update(self.session().await?, &port.id, Some(port.revision_number), &change).await {
            Ok(_) => Ok(()),
            Err(e) => Err(unavailable(&e)),
        }
    }

    /// Deletes a port that no row knows, if it still says that it is ours in the same words. False where there was nothing to do.
    pub async fn remove_orphan(&self, port: &str, owner: &str) -> Result<bool, Refusal> {
        let session = self.session().await?;
        match ports::get(session, port).await {
            Ok(port) if port.device_owner == owner => {
                ports::delete(session, &port.id).await.map_err(|e| unavailable(&e))?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(e) if e.is_missing() => Ok(false),
            Err(e) => Err(unavailable(&e)),
        }
    }

    /// All retained addresses that Neutron keeps, of any project.
    pub async fn retained_ports(&self) -> Result<Vec<Retained>, Refusal> {
        let filter = Filter { device_owner: Some(RETAINED_OWNER.to_owned()), ..Filter::default() };
        let ports = self.list(&filter).await?.into_iter().filter(|port| port.device_owner == RETAINED_OWNER);
        Ok(ports.flat_map(|port| RetainedPort::read(&port)).collect())
    }

    /// The blocks of a cluster that Neutron has reserved, of those given.
    pub async fn reserved(
        &self,
        cluster: ClusterId,
        blocks: &[IpNetwork],
    ) -> Result<BTreeSet<IpNetwork>, Refusal> {
        let ports = self.list(&block_filter(cluster)).await?;
        Ok(blocks
            .iter()
            .filter(|block| ports.iter().any(|port| reserves(port, cluster, **block)))
            .copied()
            .collect())
    }

    /// All ports that reserve blocks, of any cluster.
    pub async fn block_ports(&self) -> Result<Vec<BlockPort>, Refusal> {
        let filter = Filter { device_owner: Some(BLOCK_OWNER.to_owned()), ..Filter::default() };
        let ports = self.list(&filter).await?.into_iter().filter(|port| port.device_owner == BLOCK_OWNER);
        let block = |port: Port| {
            Some(BlockPort {
                cluster: port.device_id.parse().ok()?,
                addresses: port.addresses().collect(),
                subnet: port.fixed_ips.first().and_then(|ip| ip.subnet_id.clone()).unwrap_or_default(),
                description: Description::read(&port.description),
                port: port.id,
                network: port.network_id,
            })
        };
        Ok(ports.filter_map(block).collect())
    }
}

fn block_filter(cluster: ClusterId) -> Filter {
    Filter {
        device_id: Some(cluster.to_string()),
        device_owner: Some(BLOCK_OWNER.to_owned()),
        ..Filter::default()
    }
}

fn reserves(port: &Port, cluster: ClusterId, block: IpNetwork) -> bool {
    port.device_owner == BLOCK_OWNER
        && port.device_id == cluster.to_string()
        && Span::of(block).addresses().all(|address| port.addresses().any(|has| has == address))
}

/// The port of retained addresses, as its description tells it.
struct RetainedPort;

impl RetainedPort {
    /// The text: for people, and for the day when the database is lost.
    fn text(addresses: &[&Retained]) -> String {
        let project = addresses.first().map(|one| one.project.as_str()).unwrap_or_default();
        let named: Vec<String> =
            addresses.iter().map(|one| format!("{}={}", one.address, one.name)).collect();
        let text = format!("AKE: retained VIPs; project {project}; {}", named.join("; "));
        text.chars().take(NAME).collect()
    }

    /// What a port keeps. The description tells the names, as far as it is one.
    fn read(port: &Port) -> Vec<Retained> {
        let named = |address: IpAddr| {
            let mut parts = port.description.split("; ");
            let name = parts.find_map(|part| part.strip_prefix(&address.to_string())?.strip_prefix('='));
            name.map_or_else(|| "retained".to_owned(), ToOwned::to_owned)
        };
        let one = |ip: &FixedIp| Retained {
            address: ip.ip_address,
            project: port.device_id.clone(),
            name: named(ip.ip_address),
            about: None,
            port: Some(port.id.clone()),
            network: port.network_id.clone(),
            subnet: ip.subnet_id.clone().unwrap_or_default(),
            going: false,
        };
        port.fixed_ips.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_port_keeps_is_read_back_from_it() {
        let retained = |address: &str, name: &str| Retained {
            address: address.parse().unwrap(),
            project: "p1".into(),
            name: name.into(),
            about: None,
            port: Some("port".into()),
            network: "vips".into(),
            subnet: "sub".into(),
            going: false,
        };
        let kept = [retained("203.0.113.18", "web"), retained("203.0.113.180", "kept-0a1b-ipv4")];
        let text = RetainedPort::text(&kept.iter().collect::<Vec<_>>());
        let ip = |one: &Retained| json!({"subnet_id": "sub", "ip_address": one.address});
        let port = |description: &str| -> Port {
            serde_json::from_value(json!({"id": "port", "network_id": "vips", "device_id": "p1",
                "description": description, "fixed_ips": kept.iter().map(ip).collect::<Vec<_>>()}))
            .unwrap()
        };
        assert_eq!(RetainedPort::read(&port(&text)), kept);
        let nameless = RetainedPort::read(&port(""));
        assert!(nameless.iter().all(|one| one.name == "retained" && one.project == "p1"));
    }
}
