//! Neutron: subnets.

use std::net::IpAddr;

use http::Method;
use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::{Error, Service, Session, page};

/// A subnet.
#[derive(Debug, Clone, Deserialize)]
pub struct Subnet {
    /// Its UUID.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The network that it is of.
    pub network_id: String,
    /// Its range.
    pub cidr: IpNetwork,
    /// 4 or 6.
    #[serde(default)]
    pub ip_version: u8,
    /// Its router's address.
    #[serde(default)]
    pub gateway_ip: Option<IpAddr>,
    /// What Neutron gives addresses from.
    #[serde(default)]
    pub allocation_pools: Vec<AllocationPool>,
    /// Whether Neutron answers DHCP on it.
    #[serde(default)]
    pub enable_dhcp: bool,
}

/// A run of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AllocationPool {
    /// The first.
    pub start: IpAddr,
    /// The last.
    pub end: IpAddr,
}

/// One subnet.
pub async fn get(session: &Session, id: &str) -> Result<Subnet, Error> {
    session
        .call(Service::Network, Method::GET, "get subnet", format!("/subnets/{id}"))
        .about(id)
        .fetch("subnet")
        .await
}

/// All subnets that we see, or those of a network, or with a name.
pub async fn list(
    session: &Session,
    network: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<Subnet>, Error> {
    let mut call = session.call(Service::Network, Method::GET, "list subnets", "/subnets");
    if let Some(network) = network {
        call = call.query("network_id", network);
    }
    if let Some(name) = name {
        call = call.query("name", name);
    }
    page::collect(call, "subnets").await
}
