//! Reads all that a round is decided from: one GET of ake-api, one of the security group, and what is watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ake_api_client::{ClusterState, Family};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use openstack_client::{
    ports::{self, Filter, Port},
    security_groups::{self, Rule},
};

use super::{
    annotations::ADOPT,
    apply::Outcome,
    view::{Endpoints, ServiceView, SliceView},
    wanted::{ServerPort, World},
};
use crate::{
    cloud::{self, Cloud},
    cluster::{Index, Key},
    nodes::view::NodeView,
};

/// Why nothing could be seen.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// ake-api did not tell.
    #[error(transparent)]
    Api(#[from] ake_api_client::Error),
    /// OpenStack did not tell.
    #[error(transparent)]
    OpenStack(#[from] openstack_client::Error),
}

impl ObserveError {
    /// How long whoever did not tell asks us to stay away.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            Self::OpenStack(error) => error.retry_after(),
        }
    }

    /// The named condition that it stands for.
    #[must_use]
    pub fn condition(&self) -> &'static str {
        match self {
            Self::OpenStack(error) => cloud::condition(error),
            Self::Api(ake_api_client::Error::Login(_)) => "CloudCredentialRefused",
            Self::Api(ake_api_client::Error::Unreachable { .. }) => "AkeApiUnreachable",
            Self::Api(error) if error.code() == Some("unauthorized") => "CloudCredentialRefused",
            Self::Api(_) => "AkeApiError",
        }
    }
}

/// What is watched.
#[derive(Clone)]
pub struct Views {
    /// Services that concern us.
    pub services: Index<Service, ServiceView>,
    /// All Nodes.
    pub nodes: Index<Node, NodeView>,
    /// All EndpointSlices of Services.
    pub slices: Index<EndpointSlice, SliceView>,
}

impl Views {
    /// Waits until all of it is complete.
    pub async fn ready(&self) -> bool {
        self.services.ready().await && self.nodes.ready().await && self.slices.ready().await
    }
}

/// Reads, and remembers which ports servers have and which rules the security group has.
pub struct Eyes {
    cloud: Arc<Cloud>,
    views: Views,
    pairs: bool,
    ports: BTreeMap<String, Vec<ServerPort>>,
    /// Servers whose ports were asked for, and ports that Services adopt, whether or not there were any.
    asked: BTreeSet<String>,
    /// Addresses of ports that nothing uses.
    free_ports: BTreeMap<String, Vec<IpAddr>>,
    /// Whether ports may send what pods send.
    routes: bool,
    /// As they were listed, and as we have changed them since; none if they are to be listed.
    rules: Option<Vec<Rule>>,
}

impl Eyes {
    /// Has seen nothing yet. `pairs`: whether nodes' ports are looked at at all; `routes`: whether they are to let through
    /// what pods send.
    #[must_use]
    pub fn new(cloud: Arc<Cloud>, views: Views, pairs: bool, routes: bool) -> Self {
        let (ports, free_ports) = (BTreeMap::new(), BTreeMap::new());
        Self { cloud, views, pairs, routes, ports, free_ports, asked: BTreeSet::new(), rules: None }
    }

    /// Reads everything anew; with the ETag that ake-api gave. With `refresh` also what changes rarely. `known`: what ake-api
    /// has just told by itself.
    pub async fn look(
        &mut self,
        refresh: bool,
        known: Option<(ClusterState, String)>,
    ) -> Result<(World, String), ObserveError> {
        let cloud = self.cloud.clone();
        let state = async {
            match known {
                Some(known) => Ok(known),
                None => Ok::<_, ObserveError>(cloud.api.cluster(cloud.cluster_id).await?),
            }
        };
        let remembered = if refresh { None } else { self.rules.take() };
        let rules = async {
            match (&cloud.security_group, remembered) {
                (None, _) => Ok(None),
                (Some(_), Some(rules)) => Ok(Some(rules)),
                (Some(group), None) => {
                    Ok::<_, ObserveError>(Some(security_groups::list_rules(&cloud.session, group).await?))
                }
            }
        };
        let nodes = self.nodes();
        let ports = self.read_ports(&nodes, refresh);
        // None is cut short by another's failure: a call to OpenStack that meets an ended login renews it, which
        // ake-api's cannot do. And what OpenStack says of a login says more than ake-api's.
        let (state, rules, ports) = tokio::join!(state, rules, ports);
        ports?;
        let rules = rules?;
        self.rules.clone_from(&rules);
        let (state, etag) = state?;
        let mut world = World {
            services: BTreeMap::new(),
            nodes,
            endpoints: BTreeMap::new(),
            ports: self.ports.clone(),
            routes: self.routes,
            free_ports: self.pairs.then(|| self.free_ports.clone()),
            state,
            kubernetes: cloud.kubernetes,
            rules,
            held: BTreeSet::new(),
            ripe: BTreeSet::new(),
            drained: BTreeSet::new(),
        };
        self.look_again(&mut world);
        Ok((world, etag))
    }

    /// Takes in what has become of the security group. Where a call has failed, it is looked at anew.
    pub fn remember(&mut self, world: &World, outcome: &Outcome) {
        let has_failed = outcome.ended.is_some() || !outcome.failed.is_empty();
        self.rules = world.rules.clone().filter(|_| !has_failed);
    }

    /// Takes what is watched as it is by now; what was read over the network stays.
    pub fn look_again(&self, world: &mut World) {
        world.nodes = self.nodes();
        world.services =
            self.views.services.all().into_iter().map(|(key, view)| (key, (*view).clone())).collect();
        let mut endpoints: BTreeMap<(Key, Family), BTreeMap<String, Endpoints>> = BTreeMap::new();
        for (_, slice) in self.views.slices.all() {
            let Some(service) = &slice.service else { continue };
            let known = endpoints.entry((service.clone(), slice.family)).or_default();
            for (node, count) in &slice.nodes {
                let sum = known.entry(node.clone()).or_default();
                sum.ready = sum.ready.saturating_add(count.ready);
                sum.ending = sum.ending.saturating_add(count.ending);
            }
        }
        world.endpoints = endpoints;
    }

    fn nodes(&self) -> BTreeMap<String, NodeView> {
        self.views.nodes.all().into_iter().map(|(key, view)| (key.name, (*view).clone())).collect()
    }

    /// One list of the project's ports, when a server turns up that is not known yet, or a port that a Service adopts.
    async fn read_ports(
        &mut self,
        nodes: &BTreeMap<String, NodeView>,
        refresh: bool,
    ) -> Result<(), ObserveError> {
        let servers = nodes.values().filter_map(NodeView::server_id).map(ToOwned::to_owned);
        let of_interest: BTreeSet<String> = servers.chain(self.adopted()).collect();
        let unknown = !of_interest.is_subset(&self.asked);
        if !self.pairs || !(refresh || unknown) {
            return Ok(());
        }
        let filter = Filter { project_id: Some(self.cloud.session.project_id()), ..Filter::default() };
        let listed = ports::list(&self.cloud.session, &filter).await?;
        self.asked = of_interest;
        (self.ports, self.free_ports) = told_apart(listed, &self.asked);
        Ok(())
    }

    /// What Services adopt, ids of ports among it.
    fn adopted(&self) -> Vec<String> {
        let services = self.views.services.all();
        let lists = services.iter().filter_map(|(_, service)| service.annotations.get(ADOPT));
        lists.flat_map(|list| list.split(',')).map(|part| part.trim().to_owned()).collect()
    }
}

/// Ports of servers by server's id, and the addresses of those among the `asked` that nothing uses: what ake-api adopts has
/// neither a device nor an owner.
fn told_apart(
    listed: Vec<Port>,
    asked: &BTreeSet<String>,
) -> (BTreeMap<String, Vec<ServerPort>>, BTreeMap<String, Vec<IpAddr>>) {
    let mut of_servers: BTreeMap<String, Vec<ServerPort>> = BTreeMap::new();
    let mut free = BTreeMap::new();
    for port in listed {
        let addresses = port.addresses().collect();
        if !port.device_id.is_empty() {
            of_servers.entry(port.device_id).or_default().push(ServerPort { id: port.id, addresses });
        } else if port.device_owner.is_empty() && asked.contains(&port.id) {
            free.insert(port.id, addresses);
        }
    }
    (of_servers, free)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_free_where_it_has_neither_device_nor_owner() {
        let port = |id: &str, device: &str, owner: &str| {
            let port = json!({"id": id, "network_id": "n", "device_id": device, "device_owner": owner,
                "fixed_ips": [{"subnet_id": "s", "ip_address": "203.0.113.20"}]});
            serde_json::from_value::<Port>(port).unwrap()
        };
        let listed = vec![
            port("node", "server-0", "compute:nova"),
            port("owned", "", "ake:vip-retained"),
            port("free", "", ""),
            port("nobodys", "", ""),
        ];
        let asked = ["server-0", "owned", "free"].map(ToOwned::to_owned).into();
        let (of_servers, free) = told_apart(listed, &asked);
        assert_eq!(of_servers["server-0"][0].id, "node");
        assert_eq!((of_servers.len(), free.into_keys().collect::<Vec<_>>()), (1, vec!["free".to_owned()]));
    }
}
