//! What a step of a resource's life sees, and what it decides.

use std::{fmt, time::Duration};

use ake_api_client::{
    AddressRequest, BundleRequest, ClusterId, ClusterRequest, ClusterState, LoadBalancerRequest,
    MemberRequest, NodePortRequest, PoolRequest,
};
use serde_json::{Map, Value};

/// Who asks for address pairs at `ake-api` in the name of a stack.
pub const ASKER: &str = "heat";

/// What was read before a plan is made.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Whether this is the first look of an action.
    pub first: bool,
    /// The cluster, if `ake-api` knows it.
    pub cluster: Option<ClusterState>,
    /// Servers that still have a port of the cluster.
    pub servers: Vec<String>,
    /// The cluster's volumes.
    pub volumes: Vec<Volume>,
    /// What the nodes are told of `ake-api`.
    pub service: Service,
}

/// Where `ake-api` is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Its base URL.
    pub url: String,
    /// The bundle that it is trusted by besides the system's; empty for none.
    pub ca: String,
}

/// A Cinder volume of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Cinder's word for its state.
    pub status: String,
    /// What becomes of it.
    pub reclaim: Reclaim,
}

/// What becomes of a volume when its cluster goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reclaim {
    /// It goes too, as the StorageClass says that it was made by.
    Delete,
    /// It stays, as the StorageClass says.
    Retain,
    /// It should go, but Cinder said that it cannot: it has snapshots, for one.
    Refused(String),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Register the cluster.
    PutCluster(ClusterRequest),
    /// Mark the cluster as going away.
    MarkDeleting,
    /// Forget the cluster.
    DeleteCluster,
    /// Reserve a VIP.
    PutAddress(String, AddressRequest),
    /// Free a VIP.
    DeleteAddress(String),
    /// Write a pool.
    PutPool(String, PoolRequest),
    /// Remove a pool.
    DeletePool(String),
    /// Write a load balancer.
    PutLoadBalancer(String, LoadBalancerRequest),
    /// Remove a load balancer.
    DeleteLoadBalancer(String),
    /// Write a member, by pool and name.
    PutMember(String, String, MemberRequest),
    /// Remove a member, by pool and name.
    DeleteMember(String, String),
    /// Have address pairs written on a port.
    PutNodePort(String, NodePortRequest),
    /// Take back our wishes for a port.
    DeleteNodePort(String),
    /// Store a role's bundle.
    PutBundle(&'static str, BundleRequest),
    /// Delete a volume.
    DeleteVolume(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutCluster(request) => write!(f, "register cluster {}", request.name),
            Self::MarkDeleting => f.write_str("mark the cluster as going away"),
            Self::DeleteCluster => f.write_str("forget the cluster"),
            Self::PutAddress(name, _) => write!(f, "reserve address {name}"),
            Self::DeleteAddress(name) => write!(f, "free address {name}"),
            Self::PutPool(name, _) => write!(f, "write pool {name}"),
            Self::DeletePool(name) => write!(f, "remove pool {name}"),
            Self::PutLoadBalancer(name, _) => write!(f, "write load balancer {name}"),
            Self::DeleteLoadBalancer(name) => write!(f, "remove load balancer {name}"),
            Self::PutMember(pool, name, _) => write!(f, "write member {name} of pool {pool}"),
            Self::DeleteMember(pool, name) => write!(f, "remove member {name} of pool {pool}"),
            Self::PutNodePort(port, _) => write!(f, "have address pairs put on port {port}"),
            Self::DeleteNodePort(port) => write!(f, "have address pairs taken off port {port}"),
            Self::PutBundle(role, _) => write!(f, "store the bundle of role {role}"),
            Self::DeleteVolume(id) => write!(f, "delete volume {id}"),
        }
    }
}

/// What is decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Writes, in this order; after them the world is looked at again.
    pub steps: Vec<Step>,
    /// What is waited for, where nothing is left to write.
    pub wait: Option<Wait>,
    /// Something for the stack's events.
    pub event: Option<String>,
}

/// Something that takes its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What is waited for, for whoever reads the fault if it does not come.
    pub reason: String,
    /// When it is worth looking again.
    pub again: Duration,
    /// When to give up, from the beginning of the action.
    pub limit: Duration,
}

impl Plan {
    /// Writes, and then another look.
    #[must_use]
    pub fn steps(steps: Vec<Step>) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Nothing to write: wait.
    #[must_use]
    pub fn wait(reason: String, again_s: u64, limit_s: u64) -> Self {
        let wait = Wait { reason, again: Duration::from_secs(again_s), limit: Duration::from_secs(limit_s) };
        Self { wait: Some(wait), ..Self::default() }
    }
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value}: expected {expected}")]
pub struct Invalid {
    /// The property, with its path.
    pub field: String,
    /// What was given.
    pub value: String,
    /// What can be used.
    pub expected: String,
}

impl Invalid {
    /// Of a property's value.
    #[must_use]
    pub fn new(field: &str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { field: field.to_owned(), value: value.to_string(), expected: expected.into() }
    }
}

/// What a resource type has to know.
pub trait Resource {
    /// What is missing or different.
    fn wanted(&self, seen: &Seen) -> Result<Plan, Invalid>;
    /// What is left over.
    fn unwanted(&self, seen: &Seen) -> Plan;
    /// What is missing of a resource that should be complete; nothing if it is.
    fn missing(&self, seen: &Seen) -> Option<String>;
    /// Its attributes.
    fn attributes(&self, seen: &Seen) -> Map<String, Value>;
    /// The cluster it belongs to.
    fn cluster(&self) -> ClusterId;
    /// Whether servers and volumes have to be looked at while it goes.
    fn outlives_servers(&self) -> bool {
        false
    }
}
