//! `AKE::LB::VIP`: an address that is kept until the stack goes.

use std::net::IpAddr;

use ake_api_client::{AddressRequest, ClusterId, Family};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    plan::{Invalid, Plan, Resource, Seen, Step},
    schema::{Attribute, Property, Reference, ResourceType, Type, cluster_property},
};

/// Its name in templates.
pub const NAME: &str = "AKE::LB::VIP";

/// A VIP.
#[derive(Debug, Clone, Deserialize)]
pub struct Vip {
    cluster: ClusterId,
    name: String,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    family: Family,
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    ResourceType {
        name: NAME,
        description: "An address of the cluster's blocks, kept until the resource goes. With \
            `deletion_policy: Retain` it is kept until the cluster goes.",
        reference: Reference::Own,
        properties: vec![
            cluster_property(),
            Property::new("name", Type::String, "Its name among the cluster's addresses.")
                .required()
                .name_like(),
            Property::new(
                "address",
                Type::String,
                "A certain address of the cluster's blocks; without it, any.",
            )
            .checked_as("ip_addr"),
            Property::new("family", Type::String, "The family, where no address is named.")
                .default("IPv4")
                .one_of(&["IPv4", "IPv6"]),
        ],
        attributes: vec![
            Attribute::new("address", Type::String, "The address."),
            Attribute::new("name", Type::String, "Its name among the cluster's addresses."),
        ],
    }
}

impl Resource for Vip {
    fn wanted(&self, seen: &Seen) -> Result<Plan, Invalid> {
        let address: Option<IpAddr> = match &self.address {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Invalid::new("address", text, "an IP address"))?),
        };
        let state = seen.cluster.as_ref();
        match (state.and_then(|state| state.addresses.get(&self.name)), address) {
            (Some(_), None) => Ok(Plan::default()),
            (Some(kept), Some(wanted)) if kept.address == wanted => Ok(Plan::default()),
            (Some(kept), Some(wanted)) => Err(Invalid::new(
                "address",
                wanted,
                format!("{}, which address {} of the cluster is already", kept.address, self.name),
            )),
            (None, _) => {
                let family = match address {
                    Some(IpAddr::V6(_)) => Family::V6,
                    Some(IpAddr::V4(_)) => Family::V4,
                    None => self.family,
                };
                Ok(Plan::steps(vec![Step::PutAddress(
                    self.name.clone(),
                    AddressRequest { address, family, adopt: None },
                )]))
            }
        }
    }

    fn unwanted(&self, seen: &Seen) -> Plan {
        match seen.cluster.as_ref().and_then(|state| state.addresses.get(&self.name)) {
            Some(_) => Plan::steps(vec![Step::DeleteAddress(self.name.clone())]),
            None => Plan::default(),
        }
    }

    fn missing(&self, seen: &Seen) -> Option<String> {
        let kept = seen.cluster.as_ref().and_then(|state| state.addresses.get(&self.name));
        kept.is_none().then(|| format!("ake-api has no address {} of cluster {}", self.name, self.cluster))
    }

    fn attributes(&self, seen: &Seen) -> Map<String, Value> {
        let kept = seen.cluster.as_ref().and_then(|state| state.addresses.get(&self.name));
        let mut attributes = Map::from_iter([("name".to_owned(), json!(self.name))]);
        if let Some(kept) = kept {
            attributes.insert("address".to_owned(), json!(kept.address));
        }
        attributes
    }

    fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
