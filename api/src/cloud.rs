//! What is asked of OpenStack, as the service user.

mod reservations;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Mutex,
};

use ake_api_client::ClusterId;
use openstack_client::{
    CloudConfig, Error, SecretString, Session,
    config::{Auth, Identifier},
    networks,
    ports::{self, AddressPair, Filter, Port, PortUpdate},
    subnets,
    tokens::{self, TokenInfo},
};
use tokio::sync::OnceCell;

use crate::{
    config::{Config, ConfigError, Network, Vip},
    decide::{
        facts::{Facts, Needs, PortFact},
        pairs::Pair,
        remains::NodePortRemains,
        wanted::ClusterRecord,
    },
    refusal::{Kind, Refusal},
};

pub use reservations::{BLOCK_OWNER, RETAINED_OWNER, Reservation};

/// More ports or addresses than this are looked up by one listing of the project's ports.
pub const SINGLE_LOOKUPS: usize = 4;

/// A port, with what a change of its address pairs needs.
#[derive(Debug, Clone)]
pub struct NodePortFact {
    /// The port.
    pub fact: PortFact,
    /// Its address pairs.
    pub pairs: Vec<Pair>,
    /// What a change must be based on.
    pub revision: u64,
}

/// OpenStack, logged in to when it is first needed.
pub struct Cloud {
    config: CloudConfig,
    session: OnceCell<Session>,
    /// Names from the configuration that were looked up, as `kind/name`.
    ids: Mutex<HashMap<String, String>>,
}

impl Cloud {
    /// Takes the configuration in; nothing is asked yet.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let keystone = &config.keystone;
        let mut cloud = CloudConfig::new(
            &keystone.auth_url,
            Auth::Password {
                username: keystone.username.clone(),
                user_domain: keystone.user_domain.clone(),
                password: SecretString::from(config.password()?),
                project: Identifier::Name(keystone.project.clone()),
                project_domain: Some(Identifier::Name(keystone.project_domain.clone())),
            },
        );
        cloud.region.clone_from(&keystone.region);
        cloud.ca_file.clone_from(&keystone.ca);
        Ok(Self { config: cloud, session: OnceCell::new(), ids: Mutex::default() })
    }

    async fn session(&self) -> Result<&Session, Refusal> {
        self.session.get_or_try_init(|| Session::connect(&self.config)).await.map_err(|e| unavailable(&e))
    }

    /// What Keystone says of a caller's token; none for one that it does not take.
    pub async fn describe_token(&self, token: &SecretString) -> Result<Option<TokenInfo>, Refusal> {
        tokens::validate(self.session().await?, token).await.map_err(|e| unavailable(&e))
    }

    /// The id of a network that the configuration names.
    pub async fn network_id(&self, configured: &str) -> Result<String, Refusal> {
        if let Some(id) = self.known("network", configured) {
            return Ok(id);
        }
        let session = self.session().await?;
        let found = match networks::get(session, configured).await {
            Ok(network) => vec![network],
            Err(e) if e.is_missing() => {
                networks::list(session, Some(configured)).await.map_err(|e| unavailable(&e))?
            }
            Err(e) => return Err(unavailable(&e)),
        };
        let ids = found.into_iter().map(|network| network.id);
        self.keep("network", configured, ids.collect())
    }

    /// The id of a network of the configuration; of one without Neutron, its name.
    pub async fn configured(&self, network: &Network) -> Result<String, Refusal> {
        if network.neutron { self.network_id(&network.network).await } else { Ok(network.network.clone()) }
    }

    /// The ids of the network and the subnet that a VIP range is on; none of a plain range.
    pub async fn vip_ids(&self, vip: &Vip) -> Result<Option<(String, String)>, Refusal> {
        let (Some(network), Some(subnet)) = (&vip.network, &vip.subnet) else { return Ok(None) };
        let network = self.network_id(network).await?;
        if let Some(id) = self.known("subnet", subnet) {
            return Ok(Some((network, id)));
        }
        let found =
            subnets::list(self.session().await?, Some(&network), None).await.map_err(|e| unavailable(&e))?;
        let ids = found.into_iter().filter(|s| s.id == *subnet || s.name == *subnet).map(|s| s.id);
        Ok(Some((network, self.keep("subnet", subnet, ids.collect())?)))
    }

    fn known(&self, kind: &str, name: &str) -> Option<String> {
        self.ids.lock().ok()?.get(&format!("{kind}/{name}")).cloned()
    }

    fn keep(&self, kind: &str, name: &str, mut ids: Vec<String>) -> Result<String, Refusal> {
        match (ids.pop(), ids.len()) {
            (Some(id), 0) => {
                if let Ok(mut known) = self.ids.lock() {
                    known.insert(format!("{kind}/{name}"), id.clone());
                }
                Ok(id)
            }
            (None, _) => Err(Refusal::unavailable(format!(
                "the operator's configuration of ake-api: {kind} = {name}: Neutron knows none of this id or name"
            ))),
            (Some(_), more) => Err(Refusal::unavailable(format!(
                "the operator's configuration of ake-api: {kind} = {name}: Neutron has {} of this name; give the id",
                more + 1
            ))),
        }
    }

    /// The ports of a project on a network that writes need to know.
    pub async fn facts(&self, project: &str, network: &str, needs: &Needs) -> Result<Facts, Refusal> {
        let mut found = BTreeMap::new();
        let filter = || Filter {
            project_id: Some(project.to_owned()),
            network_id: Some(network.to_owned()),
            ..Filter::default()
        };
        let listed = needs.addresses.len() > SINGLE_LOOKUPS || needs.ports.len() > SINGLE_LOOKUPS;
        if listed {
            for port in self.list(&filter()).await? {
                found.insert(port.id.clone(), fact(&port));
            }
        } else {
            for address in &needs.addresses {
                for port in self.list(&Filter { ip_address: Some(*address), ..filter() }).await? {
                    found.insert(port.id.clone(), fact(&port));
                }
            }
        }
        // What the project does not list on the network is not what is needed of the first kind.
        let ports = needs.ports.iter().filter(|_| !listed);
        for id in ports.chain(&needs.adopted).filter(|id| uuid::Uuid::parse_str(id).is_ok()) {
            if let Some(port) = self.node_port(id).await? {
                found.insert(id.clone(), port.fact);
            }
        }
        Ok(Facts { ports: found.into_values().collect(), ..Facts::default() })
    }

    /// One port, with its address pairs.
    pub async fn node_port(&self, id: &str) -> Result<Option<NodePortFact>, Refusal> {
        match ports::get(self.session().await?, id).await {
            Ok(port) => Ok(Some(node_port(&port))),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(unavailable(&e)),
        }
    }

    /// All ports of a project on a network, with their address pairs, by id.
    pub async fn node_ports(
        &self,
        project: &str,
        network: &str,
    ) -> Result<BTreeMap<String, NodePortFact>, Refusal> {
        let filter = Filter {
            project_id: Some(project.to_owned()),
            network_id: Some(network.to_owned()),
            ..Filter::default()
        };
        Ok(self.list(&filter).await?.iter().map(|port| (port.id.clone(), node_port(port))).collect())
    }

    /// Writes a port's address pairs. False if the port changed since it was read.
    pub async fn write_pairs(&self, id: &str, revision: u64, pairs: &[Pair]) -> Result<bool, Refusal> {
        let pairs = pairs
            .iter()
            .map(|pair| AddressPair {
                ip_address: pair.range,
                bare: pair.bare,
                mac_address: Some(pair.mac.clone()),
            })
            .collect();
        let update = PortUpdate { allowed_address_pairs: Some(pairs), ..PortUpdate::default() };
        match ports::update(self.session().await?, id, Some(revision), &update).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_missing() => Ok(true),
            Err(e) if e.is_conflict() => Ok(false),
            Err(e) if e.status().is_some_and(|status| status.as_u16() == 400) => {
                Err(Refusal::invalid("port", id, format!("Neutron refuses its address pairs: {e}")))
            }
            Err(e) => Err(unavailable(&e)),
        }
    }

    /// The cluster's ports that still belong to servers, by name or id.
    pub async fn servers_ports(&self, cluster: &ClusterRecord) -> Result<Vec<String>, Refusal> {
        let filter = Filter {
            project_id: Some(cluster.project.clone()),
            tags: vec![cluster_tag(cluster.id)],
            ..Filter::default()
        };
        let bound = self.list(&filter).await?.into_iter().filter(|port| !port.device_id.is_empty());
        Ok(bound.map(|port| if port.name.is_empty() { port.id } else { port.name }).collect())
    }

    /// The ports of a network that have an address.
    pub async fn ports_with_address(&self, network: &str, address: IpAddr) -> Result<Vec<PortFact>, Refusal> {
        let filter =
            Filter { network_id: Some(network.to_owned()), ip_address: Some(address), ..Filter::default() };
        Ok(self.list(&filter).await?.iter().map(fact).collect())
    }

    /// Whether a port is tagged as one of a cluster and role. Neutron shows the `service` role no tags, but it
    /// filters by them.
    pub async fn is_tagged(&self, port: &PortFact, cluster: ClusterId, role: &str) -> Result<bool, Refusal> {
        let filter = Filter {
            network_id: Some(port.network.clone()),
            device_id: Some(port.device_id.clone()),
            tags: vec![cluster_tag(cluster), format!("ake-role={role}")],
            ..Filter::default()
        };
        Ok(self.list(&filter).await?.iter().any(|tagged| tagged.id == port.id))
    }

    /// The ports of a project on a network, with all that they may send.
    pub async fn node_port_remains(
        &self,
        project: &str,
        network: &str,
    ) -> Result<Vec<NodePortRemains>, Refusal> {
        let ports = self.node_ports(project, network).await?;
        let remains = |(port, NodePortFact { fact, pairs, .. })| NodePortRemains {
            port,
            network: fact.network,
            mac: fact.mac,
            addresses: fact.addresses,
            pairs,
        };
        Ok(ports.into_iter().map(remains).collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Port>, Refusal> {
        ports::list(self.session().await?, filter).await.map_err(|e| unavailable(&e))
    }
}

fn cluster_tag(cluster: ClusterId) -> String {
    format!("ake-cluster={cluster}")
}

fn fact(port: &Port) -> PortFact {
    PortFact {
        id: port.id.clone(),
        mac: port.mac_address.clone(),
        network: port.network_id.clone(),
        project: port.project_id.clone(),
        device_owner: port.device_owner.clone(),
        device_id: port.device_id.clone(),
        addresses: port.addresses().collect(),
    }
}

fn node_port(port: &Port) -> NodePortFact {
    let pairs = port.allowed_address_pairs.iter().map(|pair| Pair {
        range: pair.ip_address,
        bare: pair.bare,
        mac: pair.mac_address.clone().unwrap_or_else(|| port.mac_address.clone()),
    });
    NodePortFact { fact: fact(port), pairs: pairs.collect(), revision: port.revision_number }
}

/// A failure of OpenStack is never the caller's fault: its calls are ours.
fn unavailable(error: &Error) -> Refusal {
    tracing::warn!(%error, "OpenStack failed");
    Refusal::new(Kind::Unavailable, format!("OpenStack, asked by ake-api: {error}"))
}
