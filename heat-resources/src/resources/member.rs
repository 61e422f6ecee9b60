//! `AKE::LB::Member`: one node of a pool.

use std::net::IpAddr;

use ake_api_client::{ClusterId, MemberRequest, NodePortRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    plan::{ASKER, Invalid, Plan, Resource, Seen, Step},
    schema::{Attribute, Property, Reference, ResourceType, Type, cluster_property},
};

/// Its name in templates.
pub const NAME: &str = "AKE::LB::Member";

/// Its properties.
#[derive(Debug, Clone, Deserialize)]
pub struct Properties {
    cluster: ClusterId,
    pool: String,
    name: String,
    address: String,
    port: String,
    #[serde(default = "one")]
    weight: u16,
    #[serde(default)]
    addresses: Vec<String>,
}

fn one() -> u16 {
    1
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    ResourceType {
        name: NAME,
        description: "One node of a pool. It stands in the node's own template, so that the pool follows when the \
            group of nodes grows and shrinks. It can also ask that the node's port may send from addresses of the \
            cluster, as a master does from the address of the API server.",
        reference: Reference::Own,
        properties: vec![
            cluster_property(),
            Property::new("pool", Type::String, "Name of the pool.").required().name_like(),
            Property::new("name", Type::String, "The member's name: the node's.").required().name_like(),
            Property::new("address", Type::String, "The node's own address.")
                .required()
                .checked_as("ip_addr"),
            Property::new("port", Type::String, "Id of the node's Neutron port.").required(),
            Property::new("weight", Type::Integer, "Share of new flows relative to others; 0 takes none.")
                .default(1)
                .updatable()
                .range(0, 256),
            Property::new(
                "addresses",
                Type::List,
                "Names of addresses of the cluster that the node answers from.",
            )
            .default(json!([]))
            .updatable()
            .items(Property::new("address", Type::String, "Name of an address.").name_like()),
        ],
        attributes: vec![Attribute::new("name", Type::String, "The member's name.")],
    }
}

impl Resource for Properties {
    fn wanted(&self, seen: &Seen) -> Result<Plan, Invalid> {
        let address: IpAddr =
            self.address.parse().map_err(|_| Invalid::new("address", &self.address, "an IP address"))?;
        let mut steps = Vec::new();
        let state = seen.cluster.as_ref();
        // The pairs come first: a member that is sent flows before it may answer them loses them.
        let has_pairs = state.is_some_and(|state| state.node_ports.contains_key(&self.port));
        if seen.first && (has_pairs || !self.addresses.is_empty()) {
            let request = NodePortRequest {
                asker: ASKER.to_owned(),
                pod_ranges: Vec::new(),
                addresses: self.addresses.clone(),
                vip_blocks: false,
            };
            steps.push(Step::PutNodePort(self.port.clone(), request));
        }
        let kept =
            state.and_then(|state| state.pools.get(&self.pool)).and_then(|pool| pool.members.get(&self.name));
        if kept.is_none_or(|kept| kept.address != address || kept.weight != self.weight) {
            let request = MemberRequest {
                address,
                weight: self.weight,
                draining: false,
                port: Some(self.port.clone()),
            };
            steps.push(Step::PutMember(self.pool.clone(), self.name.clone(), request));
        }
        Ok(Plan::steps(steps))
    }

    fn unwanted(&self, seen: &Seen) -> Plan {
        let Some(state) = &seen.cluster else { return Plan::default() };
        let mut steps = Vec::new();
        if state.pools.get(&self.pool).is_some_and(|pool| pool.members.contains_key(&self.name)) {
            steps.push(Step::DeleteMember(self.pool.clone(), self.name.clone()));
        }
        if seen.first && state.node_ports.contains_key(&self.port) {
            steps.push(Step::DeleteNodePort(self.port.clone()));
        }
        Plan::steps(steps)
    }

    fn missing(&self, seen: &Seen) -> Option<String> {
        let pool = seen.cluster.as_ref().and_then(|state| state.pools.get(&self.pool));
        let kept = pool.and_then(|pool| pool.members.get(&self.name));
        kept.is_none()
            .then(|| format!("pool {} of cluster {} has no member {}", self.pool, self.cluster, self.name))
    }

    fn attributes(&self, _: &Seen) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), json!(self.name))])
    }

    fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
