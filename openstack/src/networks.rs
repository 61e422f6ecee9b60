//! Neutron: networks.

use http::Method;
use serde::Deserialize;

use crate::{Error, Service, Session, page};

/// A network.
#[derive(Debug, Clone, Deserialize)]
pub struct Network {
    /// Its UUID.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its subnets' UUIDs.
    #[serde(default)]
    pub subnets: Vec<String>,
    /// Whether all projects may use it.
    #[serde(default)]
    pub shared: bool,
    /// The project that owns it.
    #[serde(default)]
    pub project_id: String,
    /// Largest packet.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// `flat`, `vlan`, ...; administrators only.
    #[serde(default, rename = "provider:network_type")]
    pub network_type: Option<String>,
    /// The physical network; administrators only.
    #[serde(default, rename = "provider:physical_network")]
    pub physical_network: Option<String>,
}

/// One network.
pub async fn get(session: &Session, id: &str) -> Result<Network, Error> {
    session
        .call(Service::Network, Method::GET, "get network", format!("/networks/{id}"))
        .about(id)
        .fetch("network")
        .await
}

/// All networks that we see, or those with that name.
pub async fn list(session: &Session, name: Option<&str>) -> Result<Vec<Network>, Error> {
    let mut call = session.call(Service::Network, Method::GET, "list networks", "/networks");
    if let Some(name) = name {
        call = call.query("name", name);
    }
    page::collect(call, "networks").await
}
