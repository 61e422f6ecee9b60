//! What a cluster wants, as it is kept: one small document per object, named by the object's path.

use std::{collections::BTreeMap, net::IpAddr};

use ake_api_client::{Address, Check, ClusterId, KubernetesId, LoadBalancerRequest, NodePortRequest};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A cluster, without what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its identity.
    pub id: ClusterId,
    /// The name it was registered with.
    pub name: String,
    /// The Keystone project that owns it.
    pub project: String,
    /// Id of the Neutron network that its nodes are on.
    pub network: String,
    /// The range its pods' addresses come from.
    pub pod_range: IpNetwork,
    /// The same for IPv6, in a network whose clusters may be dual stack.
    pub pod_range_v6: Option<IpNetwork>,
    /// Its blocks of the VIP ranges.
    pub blocks: Vec<IpNetwork>,
    /// Whether it is going away.
    pub deleting: bool,
    /// Counts the changes; what an ETag begins with.
    pub revision: u64,
    /// The highest count of Lease transitions that a batch carried.
    pub lease_transitions: u64,
    /// The Kubernetes whose batches are taken; none before the first one.
    pub kubernetes: Option<KubernetesId>,
}

impl ClusterRecord {
    /// One that is new: without blocks, of no Kubernetes yet. Name, project and network, as the fields of these names.
    pub fn new(id: ClusterId, [name, project, network]: [&str; 3], pod_range: IpNetwork) -> Self {
        Self {
            id,
            name: name.to_owned(),
            project: project.to_owned(),
            network: network.to_owned(),
            pod_range,
            pod_range_v6: None,
            blocks: vec![],
            deleting: false,
            revision: 1,
            lease_transitions: 0,
            kubernetes: None,
        }
    }

    /// The ranges its pods' addresses come from.
    pub fn pod_ranges(&self) -> impl Iterator<Item = IpNetwork> {
        [Some(self.pod_range), self.pod_range_v6].into_iter().flatten()
    }
}

/// Everything that a cluster wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its VIPs.
    pub addresses: BTreeMap<String, IpAddr>,
    /// What else is known of VIPs, by name; of most there is nothing.
    pub notes: BTreeMap<String, Note>,
    /// Its pools.
    pub pools: BTreeMap<String, WantedPool>,
    /// Its load balancers.
    pub load_balancers: BTreeMap<String, LoadBalancerRequest>,
    /// What each asker wishes for each Neutron port.
    pub node_ports: BTreeMap<String, BTreeMap<String, NodePortRequest>>,
}

/// What is known of a VIP besides its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// It stays the project's when the cluster goes.
    pub retained: bool,
    /// What it is for, in words for people.
    pub about: Option<String>,
}

/// A pool as it is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedPool {
    /// How members are checked, sorted.
    pub checks: Vec<Check>,
    /// Members by name.
    pub members: BTreeMap<String, WantedMember>,
}

/// A member as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedMember {
    /// The node's own address.
    pub address: IpAddr,
    /// The MAC address of its port; empty where there is no Neutron, and the balancer asks for it.
    pub mac: String,
    /// Id of its port; empty where there is no Neutron.
    pub port: String,
    /// Share of new flows.
    pub weight: u16,
    /// Keeps its flows, takes no new ones.
    pub draining: bool,
}

#[derive(Serialize, Deserialize)]
struct PoolBody {
    #[serde(default)]
    checks: Vec<Check>,
    /// What was kept while a pool had one check at most.
    #[serde(default, skip_serializing)]
    check: Option<Check>,
}

/// An object that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("object {path}: {reason}")]
pub struct UnreadableObject {
    /// The path it is kept under.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Wanted {
    /// The documents to keep, by path. Names hold no `/`.
    pub fn to_objects(&self) -> Result<BTreeMap<String, Value>, UnreadableObject> {
        let mut objects = BTreeMap::new();
        let mut put = |path: String, value: Result<Value, serde_json::Error>| match value {
            Ok(value) => {
                objects.insert(path, value);
                Ok(())
            }
            Err(e) => Err(UnreadableObject { path, reason: e.to_string() }),
        };
        for (name, address) in &self.addresses {
            put(format!("addresses/{name}"), serde_json::to_value(self.shown(name, *address)))?;
        }
        for (name, pool) in &self.pools {
            put(
                format!("pools/{name}"),
                serde_json::to_value(PoolBody { checks: pool.checks.clone(), check: None }),
            )?;
            for (member, body) in &pool.members {
                put(format!("pools/{name}/members/{member}"), serde_json::to_value(body))?;
            }
        }
        for (name, body) in &self.load_balancers {
            put(format!("load-balancers/{name}"), serde_json::to_value(body))?;
        }
        for (port, askers) in &self.node_ports {
            for (asker, body) in askers {
                put(format!("node-ports/{port}/{asker}"), serde_json::to_value(body))?;
            }
        }
        Ok(objects)
    }

    /// Reads the documents back.
    pub fn from_objects(
        objects: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self, UnreadableObject> {
        let mut wanted = Self::default();
        for (path, body) in objects {
            wanted.read(&path, body).map_err(|reason| UnreadableObject { path, reason })?;
        }
        Ok(wanted)
    }

    fn read(&mut self, path: &str, body: Value) -> Result<(), String> {
        let text = |e: serde_json::Error| e.to_string();
        let segments: Vec<&str> = path.split('/').collect();
        match segments.as_slice() {
            ["addresses", name] => {
                let Address { address, retained, about } = serde_json::from_value(body).map_err(text)?;
                self.addresses.insert((*name).to_owned(), address);
                self.note((*name).to_owned(), Note { retained, about });
            }
            ["pools", name] => {
                let PoolBody { mut checks, check } = serde_json::from_value(body).map_err(text)?;
                checks.extend(check);
                self.pools.entry((*name).to_owned()).or_default().checks = checks;
            }
            ["pools", pool, "members", name] => {
                let member = serde_json::from_value(body).map_err(text)?;
                self.pools.entry((*pool).to_owned()).or_default().members.insert((*name).to_owned(), member);
            }
            ["load-balancers", name] => {
                self.load_balancers.insert((*name).to_owned(), serde_json::from_value(body).map_err(text)?);
            }
            ["node-ports", port, asker] => {
                let body = serde_json::from_value(body).map_err(text)?;
                self.node_ports.entry((*port).to_owned()).or_default().insert((*asker).to_owned(), body);
            }
            _ => return Err("not a path that this version keeps".to_owned()),
        }
        Ok(())
    }

    /// Keeps what is known of a VIP; nothing is not kept.
    pub fn note(&mut self, name: String, note: Note) {
        if note == Note::default() {
            self.notes.remove(&name);
        } else {
            self.notes.insert(name, note);
        }
    }

    /// A VIP with all that is known of it.
    #[must_use]
    pub fn shown(&self, name: &str, address: IpAddr) -> Address {
        let Note { retained, about } = self.notes.get(name).cloned().unwrap_or_default();
        Address { address, retained, about }
    }

    /// The pairs that the askers of a port want together.
    #[must_use]
    pub fn pairs_of(&self, port: &str, blocks: &[IpNetwork]) -> std::collections::BTreeSet<IpNetwork> {
        let Some(askers) = self.node_ports.get(port) else { return Default::default() };
        super::pairs::minimal(askers.values().flat_map(|ask| {
            let addresses =
                ask.addresses.iter().filter_map(|name| self.addresses.get(name)).map(|a| IpNetwork::from(*a));
            let blocks = blocks.iter().copied().filter(|_| ask.vip_blocks);
            ask.pod_ranges.iter().copied().chain(addresses).chain(blocks).collect::<Vec<_>>()
        }))
    }

    /// What is left when the cluster goes away: the API server's load balancer, its pool, and all addresses.
    #[must_use]
    pub fn leaving(&self) -> Self {
        let mut left = self.clone();
        left.load_balancers.retain(|name, _| name == KEPT_LOAD_BALANCER);
        let used: Vec<String> =
            left.load_balancers.values().flat_map(|lb| lb.listeners.iter().map(|l| l.pool.clone())).collect();
        for (name, pool) in &mut left.pools {
            if !used.contains(name) {
                pool.members.clear();
            }
        }
        left
    }
}

/// The load balancer that stays while a cluster goes away: its controllers still need the API server.
pub const KEPT_LOAD_BALANCER: &str = "api";

#[cfg(test)]
mod tests {
    use ake_api_client::{Affinity, Listener, Protocol};

    use super::*;

    pub(crate) fn sample() -> Wanted {
        let member = WantedMember {
            address: "192.168.77.20".parse().unwrap(),
            mac: "fa:16:3e:00:00:01".into(),
            port: "p1".into(),
            weight: 1,
            draining: false,
        };
        let pool =
            |checks| WantedPool { checks, members: BTreeMap::from([("m0".to_owned(), member.clone())]) };
        let balancer = |address: &str, pool: &str| LoadBalancerRequest {
            address: address.into(),
            listeners: vec![Listener { protocol: Protocol::Tcp, port: 80, pool: pool.into() }],
            source_ranges: vec![],
            affinity: Affinity::None,
        };
        Wanted {
            addresses: BTreeMap::from([
                ("api".into(), "203.0.113.17".parse().unwrap()),
                ("svc-1".into(), "203.0.113.18".parse().unwrap()),
            ]),
            notes: BTreeMap::from([(
                "svc-1".into(),
                Note { retained: true, about: Some("Service default/web".into()) },
            )]),
            pools: BTreeMap::from([
                (
                    "masters".into(),
                    pool(vec![Check::Tcp { port: 6443 }, Check::Vip { address: "api".into(), port: 6443 }]),
                ),
                ("nodes".into(), pool(vec![])),
                ("empty".into(), WantedPool::default()),
            ]),
            load_balancers: BTreeMap::from([
                ("api".into(), balancer("api", "masters")),
                ("svc-1".into(), balancer("svc-1", "nodes")),
            ]),
            node_ports: BTreeMap::from([(
                "p1".into(),
                BTreeMap::from([
                    (
                        "heat".into(),
                        NodePortRequest {
                            asker: "heat".into(),
                            pod_ranges: vec![],
                            addresses: vec!["api".into()],
                            vip_blocks: false,
                        },
                    ),
                    (
                        "controller".into(),
                        NodePortRequest {
                            asker: "controller".into(),
                            pod_ranges: vec!["10.240.1.0/24".parse().unwrap()],
                            addresses: vec![],
                            vip_blocks: true,
                        },
                    ),
                ]),
            )]),
        }
    }

    #[test]
    fn what_is_kept_reads_back_the_same() {
        let wanted = sample();
        assert_eq!(Wanted::from_objects(wanted.to_objects().unwrap()).unwrap(), wanted);
    }

    #[test]
    fn a_pool_kept_with_one_check_still_has_it() {
        let body = serde_json::json!({"check": {"type": "tcp", "port": 6443}});
        let wanted = Wanted::from_objects([("pools/masters".to_owned(), body)]).unwrap();
        assert_eq!(wanted.pools["masters"].checks, [Check::Tcp { port: 6443 }]);
    }

    #[test]
    fn the_pairs_of_a_port_are_the_union_of_its_askers() {
        let block: IpNetwork = "203.0.113.16/28".parse().unwrap();
        let pairs: Vec<String> = sample().pairs_of("p1", &[block]).iter().map(ToString::to_string).collect();
        assert_eq!(pairs, ["10.240.1.0/24", "203.0.113.16/28"]);
        let mut without = sample();
        without.node_ports.get_mut("p1").unwrap().remove("controller");
        let pairs: Vec<String> = without.pairs_of("p1", &[block]).iter().map(ToString::to_string).collect();
        assert_eq!(pairs, ["203.0.113.17/32"]);
    }

    #[test]
    fn a_cluster_that_leaves_keeps_its_api() {
        let left = sample().leaving();
        assert_eq!(left.load_balancers.keys().collect::<Vec<_>>(), ["api"]);
        assert_eq!(left.pools["masters"].members.len(), 1);
        assert_eq!(left.pools["nodes"].members.len(), 0);
        assert_eq!(left.addresses.len(), 2);
    }
}
