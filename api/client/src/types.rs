//! Requests and answers, as JSON carries them.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Address, AddressRequest, KubernetesId};

/// A cluster's identity: the id of its root stack, or the UID of `kube-system` in drop-in use.
pub type ClusterId = uuid::Uuid;

/// Transport protocols of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// `PUT /clusters/{cluster}`: registers a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRequest {
    /// A name for people; need not be unique.
    pub name: String,
    /// Id of the Neutron network that the cluster's nodes are on.
    pub network: String,
}

/// A registered cluster and what was allocated for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// The name it was registered with.
    pub name: String,
    /// The Keystone project that owns it.
    pub project: String,
    /// Id of the Neutron network that its nodes are on.
    pub network: String,
    /// The range its pods' addresses come from; unique on the layer-2 segment.
    #[schemars(with = "String")]
    pub pod_range: IpNetwork,
    /// The range of its pods' IPv6 addresses; none where the operator gives the network no pool of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub pod_range_v6: Option<IpNetwork>,
    /// The aligned blocks of the VIP range that are this cluster's.
    #[schemars(with = "Vec<String>")]
    pub vip_blocks: Vec<IpNetwork>,
    /// Where health checks of its nodes come from; its security group must admit them.
    #[schemars(with = "Vec<String>")]
    pub check_sources: Vec<IpNetwork>,
    /// Whether it is going away: nothing new is taken.
    pub deleting: bool,
    /// The one Kubernetes whose batches are taken; none before the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesId>,
}

/// `GET /clusters/{cluster}`: everything that a cluster owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterState {
    /// The cluster itself.
    pub cluster: Cluster,
    /// Its VIPs by name.
    pub addresses: BTreeMap<String, Address>,
    /// Its pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Its load balancers by name.
    pub load_balancers: BTreeMap<String, LoadBalancer>,
    /// The Neutron ports that it asked address pairs for, by port id.
    pub node_ports: BTreeMap<String, NodePort>,
    /// The highest count of Lease transitions that a batch carried; a lower one is refused.
    pub lease_transitions: u64,
}

/// How members of a pool are checked. The device takes an unhealthy member out, never in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Check {
    /// A TCP connection to the port is accepted.
    Tcp {
        /// Port on the member, 1 to 65,535.
        port: u16,
    },
    /// A GET is answered with a status from 200 to 299.
    Http {
        /// Port on the member, 1 to 65,535.
        port: u16,
        /// Path of the request.
        path: String,
    },
    /// A TCP connection to a VIP is accepted when it is sent to the member: what clients do.
    Vip {
        /// Name of one of the cluster's addresses.
        address: String,
        /// Port of the VIP, 1 to 65,535.
        port: u16,
    },
}

/// `PUT .../pools/{name}`: a set of nodes. With `members` the set is replaced; without, it is kept, for
/// pools whose members are written one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// Members by name (the node's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<BTreeMap<String, MemberRequest>>,
    /// How members are checked: one is healthy when it passes all of them; without any, always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// A pool as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    /// Members by name.
    pub members: BTreeMap<String, Member>,
    /// How members are checked, each way once, in a fixed order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// `PUT .../members/{name}`: a node of a pool. Its address must be a fixed address of a port of a server
/// in the caller's project, on the cluster's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// The node's own address.
    pub address: IpAddr,
    /// Share of new flows relative to others; 0 takes none.
    #[serde(default = "one")]
    pub weight: u16,
    /// Keeps its flows, takes no new ones.
    #[serde(default)]
    pub draining: bool,
    /// Id of the Neutron port, if known; where it is given, it must carry the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

fn one() -> u16 {
    1
}

/// A member as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The node's own address.
    pub address: IpAddr,
    /// The MAC address of its Neutron port, to which packets are sent; empty where no Neutron knows the network, and the
    /// balancer asks for it.
    pub mac: String,
    /// Share of new flows relative to others.
    pub weight: u16,
    /// Keeps its flows, takes no new ones.
    pub draining: bool,
    /// What the device last saw; none before the first check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Why it is not healthy, in the device's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How flows are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, JsonSchema)]
pub enum Affinity {
    /// By addresses and ports.
    #[default]
    None,
    /// By the client's address alone.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// One port of a load balancer. Under direct server return no port is translated: members answer on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port, 1 to 65,535.
    pub port: u16,
    /// Name of the pool behind it.
    pub pool: String,
}

/// `PUT .../load-balancers/{name}`: a VIP's listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancerRequest {
    /// Name of one of the cluster's addresses.
    pub address: String,
    /// Its ports.
    pub listeners: Vec<Listener>,
    /// Clients that are let in; empty for everybody.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub source_ranges: Vec<IpNetwork>,
    /// How flows are spread.
    #[serde(default)]
    pub affinity: Affinity,
}

/// A load balancer as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadBalancer {
    /// Name of its address.
    pub address: String,
    /// The address itself.
    pub vip: IpAddr,
    /// Its ports.
    pub listeners: Vec<Listener>,
    /// Clients that are let in; empty for everybody.
    #[schemars(with = "Vec<String>")]
    pub source_ranges: Vec<IpNetwork>,
    /// How flows are spread.
    pub affinity: Affinity,
    /// Whether the device has it as it stands here.
    pub applied: bool,
    /// What the device said where it has it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `PUT .../node-ports/{port}`: what one Neutron port of the caller's project may send from, besides its
/// own addresses. Each asker names itself, and the union of all askers' wishes is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePortRequest {
    /// Who asks (`heat`, `controller`).
    pub asker: String,
    /// Ranges within the cluster's pod range.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub pod_ranges: Vec<IpNetwork>,
    /// Names of addresses of the cluster, each as a pair of its own.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// All of the cluster's VIP blocks.
    #[serde(default)]
    pub vip_blocks: bool,
}

/// A node's port as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodePort {
    /// The address pairs that `ake-api` has written there.
    #[schemars(with = "Vec<String>")]
    pub pairs: Vec<IpNetwork>,
}

/// `PUT .../bundles/{role}`: a sealed bundle of a role's configuration and secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleRequest {
    /// The claim's id: 32 to 128 characters of `A-Z a-z 0-9 _ -`, hard to guess.
    pub claim: String,
    /// The bundle, encrypted with a key that only the nodes have; base64.
    pub ciphertext: String,
}

/// `POST /claims/{claim}`: the bundle, to a server of that cluster and role, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bundle {
    /// As it was stored; base64.
    pub ciphertext: String,
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "write", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Write {
    /// As `PUT .../addresses/{name}`.
    PutAddress {
        /// Its name.
        name: String,
        /// What is asked for.
        request: AddressRequest,
    },
    /// As `DELETE .../addresses/{name}`.
    DeleteAddress {
        /// Its name.
        name: String,
    },
    /// As `PUT .../pools/{name}`.
    PutPool {
        /// Its name.
        name: String,
        /// What is asked for.
        request: PoolRequest,
    },
    /// As `DELETE .../pools/{name}`.
    DeletePool {
        /// Its name.
        name: String,
    },
    /// As `PUT .../pools/{pool}/members/{name}`.
    PutMember {
        /// Name of the pool.
        pool: String,
        /// Its name.
        name: String,
        /// What is asked for.
        request: MemberRequest,
    },
    /// As `DELETE .../pools/{pool}/members/{name}`.
    DeleteMember {
        /// Name of the pool.
        pool: String,
        /// Its name.
        name: String,
    },
    /// As `PUT .../load-balancers/{name}`.
    PutLoadBalancer {
        /// Its name.
        name: String,
        /// What is asked for.
        request: LoadBalancerRequest,
    },
    /// As `DELETE .../load-balancers/{name}`.
    DeleteLoadBalancer {
        /// Its name.
        name: String,
    },
    /// As `PUT .../node-ports/{port}`.
    PutNodePort {
        /// Id of the Neutron port.
        port: String,
        /// What is asked for.
        request: NodePortRequest,
    },
    /// As `DELETE .../node-ports/{port}`.
    DeleteNodePort {
        /// Id of the Neutron port.
        port: String,
        /// Who asked.
        asker: String,
    },
}

/// `POST .../batch`: writes that take effect together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// `leaseTransitions` of the writer's Lease; a lower one than was seen is refused with 412.
    pub lease_transitions: u64,
    /// The Kubernetes that the writer speaks for. The first one is the cluster's; then another one, or none, is refused
    /// with 409, but another one that finds nothing of Services there takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesId>,
    /// The ETag that the writer planned from; another one is refused with 412.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// In this order.
    pub writes: Vec<Write>,
}

/// What an error says, in words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A word for programs: `not-found`, `conflict`, `invalid`, `forbidden`, `exhausted`, `deposed`,
    /// `stale`, `deleting`, `other-kubernetes`, `unauthorized`, `unavailable`, `quota`, `too-large`, `too-many-requests`, `unsupported-media-type`,
    /// `method-not-allowed`.
    pub code: String,
    /// Names the field, its value and what was expected.
    pub message: String,
    /// The field, where one is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

#[cfg(test)]
mod tests;
