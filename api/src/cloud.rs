//! What is asked of OpenStack, as the service user.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Mutex,
};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;
use openstack_client::{
    CloudConfig, Error, SecretString, Session,
    config::{Auth, Identifier},
    networks,
    ports::{self, AddressPair, Filter, FixedIp, NewPort, Port, PortUpdate},
    subnets,
    tokens::{self, TokenInfo},
};
use tokio::sync::OnceCell;

use crate::{
    config::{Config, ConfigError, Vip},
    decide::{
        facts::{Facts, Needs, PortFact},
        pairs::Pair,
        ranges::Span,
        remains::{BlockPort, Description, NodePortRemains},
        wanted::ClusterRecord,
    },
    refusal::{Kind, Refusal},
    store::BlockRecord,
};

/// What marks a Neutron port as the reservation of a VIP block. Nothing else is ever deleted.
pub const BLOCK_OWNER: &str = "ake:vip-block";

/// More addresses than this are looked up by one listing of the project's ports.
const SINGLE_LOOKUPS: usize = 4;

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
        if needs.addresses.len() > SINGLE_LOOKUPS {
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
        for id in needs.ports.union(&needs.adopted).filter(|id| uuid::Uuid::parse_str(id).is_ok()) {
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
            .map(|pair| AddressPair { ip_address: pair.range, mac_address: Some(pair.mac.clone()) })
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

    /// Gives back all blocks of a cluster that Neutron has reserved: only ports that say that they are ours.
    pub async fn release(&self, cluster: ClusterId) -> Result<usize, Refusal> {
        let session = self.session().await?;
        let mut released = 0;
        for port in self.list(&block_filter(cluster)).await? {
            if port.device_owner == BLOCK_OWNER && port.device_id == cluster.to_string() {
                ports::delete(session, &port.id).await.map_err(|e| unavailable(&e))?;
                released += 1;
            }
        }
        Ok(released)
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
        mac: pair.mac_address.clone().unwrap_or_else(|| port.mac_address.clone()),
    });
    NodePortFact { fact: fact(port), pairs: pairs.collect(), revision: port.revision_number }
}

/// A failure of OpenStack is never the caller's fault: its calls are ours.
fn unavailable(error: &Error) -> Refusal {
    tracing::warn!(%error, "OpenStack failed");
    Refusal::new(Kind::Unavailable, format!("OpenStack, asked by ake-api: {error}"))
}
