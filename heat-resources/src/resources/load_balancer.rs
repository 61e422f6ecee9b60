//! `AKE::LB::LoadBalancer`: listeners on a VIP, and the pools behind them.

use ake_api_client::{Affinity, Check, ClusterId, Listener, LoadBalancerRequest, PoolRequest, Protocol};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    plan::{Invalid, Plan, Resource, Seen, Step},
    schema::{Attribute, Property, Reference, ResourceType, Type, cluster_property},
};

/// Its name in templates.
pub const NAME: &str = "AKE::LB::LoadBalancer";

/// Seconds that the device has to take it.
const LIMIT_S: u64 = 60;

/// Its properties.
#[derive(Debug, Clone, Deserialize)]
pub struct Properties {
    cluster: ClusterId,
    name: String,
    address: String,
    listeners: Vec<Listener>,
    #[serde(default)]
    pools: Vec<NamedPool>,
    #[serde(default)]
    source_ranges: Vec<String>,
    #[serde(default)]
    affinity: Affinity,
}

#[derive(Debug, Clone, Deserialize)]
struct NamedPool {
    name: String,
    #[serde(default)]
    check: Option<CheckProperties>,
}

#[derive(Debug, Clone, Deserialize)]
struct CheckProperties {
    #[serde(rename = "type")]
    kind: CheckType,
    port: u16,
    #[serde(default)]
    path: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CheckType {
    Tcp,
    Http,
}

/// What Heat is told of it.
#[must_use]
pub fn schema() -> ResourceType {
    let port = |description| Property::new("port", Type::Integer, description).required().range(1, 65_535);
    let name = |description| Property::new("name", Type::String, description).required().name_like();
    ResourceType {
        name: NAME,
        description: "Listeners on an address, and the pools behind them. No port is translated: members answer \
            on the listener's port. It is complete when the balancer has it.",
        reference: Reference::Own,
        properties: vec![
            cluster_property(),
            name("Its name among the cluster's load balancers."),
            Property::new("address", Type::String, "Name of one of the cluster's addresses.")
                .required()
                .name_like(),
            Property::new("listeners", Type::List, "The ports that are served.")
                .required()
                .updatable()
                .length(1, 64)
                .items(Property::new("listener", Type::Map, "One port.").fields(vec![
                    Property::new("protocol", Type::String, "Transport protocol.")
                        .default("TCP")
                        .one_of(&["TCP", "UDP", "SCTP"]),
                    port("The port."),
                    Property::new("pool", Type::String, "Name of the pool behind it.").required().name_like(),
                ])),
            Property::new("pools", Type::List, "Pools that come and go with the load balancer.")
                .default(json!([]))
                .updatable()
                .items(Property::new("pool", Type::Map, "One pool.").fields(vec![
                        name("Its name among the cluster's pools."),
                        Property::new(
                            "check",
                            Type::Map,
                            "How members are checked; without it, all count as healthy.",
                        )
                        .fields(vec![
                            Property::new("type", Type::String, "`tcp`: connect; `http`: GET.")
                                .default("tcp")
                                .one_of(&["tcp", "http"]),
                            port("Port on the member."),
                            Property::new("path", Type::String, "Path of the GET.").pattern("/.*"),
                        ]),
                    ])),
            Property::new("source_ranges", Type::List, "Clients that are let in; empty for everybody.")
                .default(json!([]))
                .updatable()
                .items(Property::new("range", Type::String, "A range of addresses.").checked_as("net_cidr")),
            Property::new("affinity", Type::String, "`ClientIP`: a client's flows go to one member.")
                .default("None")
                .updatable()
                .one_of(&["None", "ClientIP"]),
        ],
        attributes: vec![
            Attribute::new("name", Type::String, "Its name among the cluster's load balancers."),
            Attribute::new("address", Type::String, "The address that it listens on."),
        ],
    }
}

impl Resource for Properties {
    fn wanted(&self, seen: &Seen) -> Result<Plan, Invalid> {
        let request = self.request()?;
        let state = seen.cluster.as_ref();
        let mut steps = Vec::new();
        for (position, pool) in self.pools.iter().enumerate() {
            let checks: Vec<Check> = pool.check(position)?.into_iter().collect();
            let kept = state.and_then(|state| state.pools.get(&pool.name));
            if kept.is_none_or(|kept| kept.checks != checks) {
                steps.push(Step::PutPool(pool.name.clone(), PoolRequest { members: None, checks }));
            }
        }
        let kept = state.and_then(|state| state.load_balancers.get(&self.name));
        let same = kept.is_some_and(|kept| {
            let sorted = |listeners: &[Listener]| {
                let mut sorted = listeners.to_vec();
                sorted.sort();
                sorted
            };
            kept.address == request.address
                && sorted(&kept.listeners) == sorted(&request.listeners)
                && kept.source_ranges == request.source_ranges
                && kept.affinity == request.affinity
        });
        if !same {
            steps.push(Step::PutLoadBalancer(self.name.clone(), request));
        }
        match kept {
            Some(kept) if steps.is_empty() && !kept.applied => {
                let why = kept.reason.as_deref().unwrap_or("no reason given");
                Ok(Plan::wait(
                    format!("the balancer has not taken load balancer {}: {why}", self.name),
                    1,
                    LIMIT_S,
                ))
            }
            _ => Ok(Plan::steps(steps)),
        }
    }

    fn unwanted(&self, seen: &Seen) -> Plan {
        let Some(state) = &seen.cluster else { return Plan::default() };
        let mut steps = Vec::new();
        if state.load_balancers.contains_key(&self.name) {
            steps.push(Step::DeleteLoadBalancer(self.name.clone()));
        }
        let pools = self.pools.iter().filter(|pool| state.pools.contains_key(&pool.name));
        steps.extend(pools.map(|pool| Step::DeletePool(pool.name.clone())));
        Plan::steps(steps)
    }

    fn missing(&self, seen: &Seen) -> Option<String> {
        match seen.cluster.as_ref().and_then(|state| state.load_balancers.get(&self.name)) {
            None => Some(format!("ake-api has no load balancer {} of cluster {}", self.name, self.cluster)),
            Some(kept) if !kept.applied => Some(format!(
                "the balancer has not taken it: {}",
                kept.reason.as_deref().unwrap_or("no reason given")
            )),
            Some(_) => None,
        }
    }

    fn attributes(&self, seen: &Seen) -> Map<String, Value> {
        let mut attributes = Map::from_iter([("name".to_owned(), json!(self.name))]);
        if let Some(kept) = seen.cluster.as_ref().and_then(|state| state.load_balancers.get(&self.name)) {
            attributes.insert("address".to_owned(), json!(kept.vip));
        }
        attributes
    }

    fn cluster(&self) -> ClusterId {
        self.cluster
    }
}

impl Properties {
    fn request(&self) -> Result<LoadBalancerRequest, Invalid> {
        let mut seen: Vec<(Protocol, u16)> = Vec::new();
        for (position, listener) in self.listeners.iter().enumerate() {
            if seen.contains(&(listener.protocol, listener.port)) {
                let field = format!("listeners.{position}.port");
                return Err(Invalid::new(
                    &field,
                    listener.port,
                    "a port that no other listener of the protocol has",
                ));
            }
            seen.push((listener.protocol, listener.port));
        }
        let mut source_ranges = Vec::new();
        for (position, text) in self.source_ranges.iter().enumerate() {
            let range: IpNetwork = text.parse().map_err(|_| {
                Invalid::new(&format!("source_ranges.{position}"), text, "a range such as 198.51.100.0/24")
            })?;
            source_ranges.push(masked(range));
        }
        Ok(LoadBalancerRequest {
            address: self.address.clone(),
            listeners: self.listeners.clone(),
            source_ranges,
            affinity: self.affinity,
        })
    }
}

impl NamedPool {
    fn check(&self, position: usize) -> Result<Option<Check>, Invalid> {
        let Some(check) = &self.check else { return Ok(None) };
        match (check.kind, &check.path) {
            (CheckType::Tcp, None) => Ok(Some(Check::Tcp { port: check.port })),
            (CheckType::Http, path) => {
                let path = path.clone().unwrap_or_else(|| "/".to_owned());
                Ok(Some(Check::Http { port: check.port, path }))
            }
            (CheckType::Tcp, Some(path)) => {
                let field = format!("pools.{position}.check.path");
                Err(Invalid::new(&field, path, "no path with a check of type tcp"))
            }
        }
    }
}

/// Without the bits behind the prefix, as it is kept.
fn masked(range: IpNetwork) -> IpNetwork {
    IpNetwork::new(range.network(), range.prefix()).unwrap_or(range)
}
