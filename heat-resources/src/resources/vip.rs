//! `AKE::LB::VIP`: an address that is kept until the stack goes.

use std::net::IpAddr;

use ake_api_client::{Address, AddressRequest, ClusterId, Family};
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
    #[serde(default)]
    adopt: Option<String>,
    #[serde(default)]
    retain: bool,
}

impl Vip {
    /// What is to be done of an address that is there.
    fn keep(&self, kept: &Address) -> Plan {
        if kept.retained == self.retain {
            return Plan::default();
        }
        let request = AddressRequest {
            address: Some(kept.address),
            retain: Some(self.retain),
            ..AddressRequest::default()
        };
        Plan::steps(vec![Step::PutAddress(self.name.clone(), request)])
    }
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    ResourceType {
        name: NAME,
        description: "An address of the cluster's blocks, kept until the resource goes. With \
            `deletion_policy: Retain` it is kept until the cluster goes, with `retain` longer than that.",
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
            Property::new(
                "adopt",
                Type::String,
                "An address that the project has retained, or the id of a port of its own on the VIP network that \
                 nothing else uses: what the VIP shall be. It stays the project's when the resource goes.",
            )
            .length(1, 64),
            Property::new(
                "retain",
                Type::Boolean,
                "Whether the address stays when the resource goes, for the next one of its name, and stays the project's \
                 when the cluster goes; `GET /v1/addresses` of ake-api lists it, and `adopt` gives it to another cluster.",
            )
            .default(false)
            .updatable(),
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
        // a port's id says nothing of its address
        let adopted = self.adopt.as_ref().and_then(|text| text.parse().ok());
        if let (Some(address), Some(adopted)) = (address, adopted)
            && address != adopted
        {
            return Err(Invalid::new("address", address, format!("none, or what is adopted, {adopted}")));
        }
        let address: Option<IpAddr> = address.or(adopted);
        let state = seen.cluster.as_ref();
        match (state.and_then(|state| state.addresses.get(&self.name)), address) {
            (Some(kept), None) => Ok(self.keep(kept)),
            (Some(kept), Some(wanted)) if kept.address == wanted => Ok(self.keep(kept)),
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
                let (adopt, retain) = (self.adopt.clone(), self.retain.then_some(true));
                Ok(Plan::steps(vec![Step::PutAddress(
                    self.name.clone(),
                    AddressRequest { address, family, adopt, retain, about: None },
                )]))
            }
        }
    }

    fn unwanted(&self, seen: &Seen) -> Plan {
        match seen.cluster.as_ref().and_then(|state| state.addresses.get(&self.name)) {
            Some(kept) if self.retain => {
                let event = format!(
                    "address {} stays as {} of the cluster, and when that goes the project's",
                    kept.address, self.name
                );
                Plan { event: Some(event), ..Plan::default() }
            }
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
