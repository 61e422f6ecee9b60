//! What is done for Services and Nodes, and how it is told.

use std::{fmt, net::IpAddr};

use ake_api_client::{Check, Protocol, Write};
use openstack_client::security_groups::{Rule, RuleSpec};

use crate::{cluster::Key, steps::Kind};

/// Whom a step is for. One that fails holds up the others of the same owner only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Everybody: the pools that Services share.
    All,
    /// Everybody's checks of nodes, which are not let in without it.
    Checks,
    /// Nobody any more.
    Nobody,
    /// A Service, by UID.
    Service(String),
    /// A Node, by name.
    Node(String),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes sure that we hear of the Service's end.
    AddFinalizer {
        /// The Service.
        service: Key,
        /// Its UID.
        uid: String,
    },
    /// Opens the security group; after the writes, so that one that is refused leaves nothing open.
    AddRule {
        /// Whom it is for.
        owner: Owner,
        /// What it admits.
        spec: RuleSpec,
    },
    /// Writes to ake-api; all writes of a round go together.
    Write {
        /// Whom it is for.
        owner: Owner,
        /// What is written.
        write: Write,
    },
    /// Closes the security group.
    RemoveRule(Rule),
    /// Tells Kubernetes the addresses.
    SetStatus {
        /// The Service.
        service: Key,
        /// Its UID.
        uid: String,
        /// Its addresses; none if it has none any more.
        addresses: Vec<IpAddr>,
    },
    /// Lets the Service go.
    RemoveFinalizer {
        /// The Service.
        service: Key,
        /// Its UID.
        uid: String,
    },
}

impl Step {
    /// Whom it is for.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self {
            Self::AddRule { owner, .. } | Self::Write { owner, .. } => owner.clone(),
            Self::RemoveRule(_) => Owner::Nobody,
            Self::AddFinalizer { uid, .. }
            | Self::SetStatus { uid, .. }
            | Self::RemoveFinalizer { uid, .. } => Owner::Service(uid.clone()),
        }
    }

    /// The step's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::AddFinalizer { .. } => Kind::AddFinalizer,
            Self::AddRule { .. } => Kind::AddRule,
            Self::Write { write, .. } => match write {
                Write::PutAddress { .. } => Kind::PutAddress,
                Write::DeleteAddress { .. } => Kind::DeleteAddress,
                Write::PutPool { .. } | Write::PutMember { .. } => Kind::PutPool,
                Write::DeletePool { .. } | Write::DeleteMember { .. } => Kind::DeletePool,
                Write::PutLoadBalancer { .. } => Kind::PutLoadBalancer,
                Write::DeleteLoadBalancer { .. } => Kind::DeleteLoadBalancer,
                // A port goes with its server, and its pairs with it; a stack takes off its own.
                Write::PutNodePort { .. } | Write::DeleteNodePort { .. } => Kind::PutNodePort,
            },
            Self::RemoveRule(_) => Kind::RemoveRule,
            Self::SetStatus { .. } => Kind::SetStatus,
            Self::RemoveFinalizer { .. } => Kind::RemoveFinalizer,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddFinalizer { service, .. } => write!(f, "add the finalizer to Service {service}"),
            Self::AddRule { spec, .. } => write!(f, "open the security group for {}", Admits(spec)),
            Self::Write { write, .. } => write!(f, "{}", Shown(write)),
            Self::RemoveRule(rule) => write!(f, "close the security group for {}", Admits(&rule.spec)),
            Self::SetStatus { service, addresses, .. } if addresses.is_empty() => {
                write!(f, "take the addresses out of the status of Service {service}")
            }
            Self::SetStatus { service, addresses, .. } => {
                write!(f, "publish {} in the status of Service {service}", list(addresses))
            }
            Self::RemoveFinalizer { service, .. } => write!(f, "take the finalizer off Service {service}"),
        }
    }
}

struct Admits<'a>(&'a RuleSpec);

impl fmt::Display for Admits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleSpec { protocol, port_range_min, remote_ip_prefix, .. } = self.0;
        write!(f, "{} ", protocol.as_deref().unwrap_or("any protocol"))?;
        match port_range_min {
            Some(port) => write!(f, "{port}")?,
            None => f.write_str("any port")?,
        }
        match remote_ip_prefix {
            Some(from) => write!(f, " from {from}"),
            None => f.write_str(" from anywhere"),
        }
    }
}

struct Shown<'a>(&'a Write);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Write::PutAddress { name, request } => {
                match (&request.adopt, request.address) {
                    (Some(adopted), _) => write!(f, "adopt {adopted} as address {name}")?,
                    (None, Some(address)) => write!(f, "reserve address {name} = {address}")?,
                    (None, None) => write!(f, "reserve address {name}")?,
                }
                f.write_str(match request.retain {
                    Some(true) => ", to outlive the cluster",
                    Some(false) => ", to go with the cluster",
                    None => "",
                })
            }
            Write::DeleteAddress { name } => write!(f, "release address {name}"),
            Write::PutPool { name, request } => {
                let members = request.members.as_ref().map(|members| {
                    let shown = members.iter().map(|(name, member)| match (member.draining, member.weight) {
                        (true, _) => format!("{name} (draining)"),
                        (false, 1) => name.clone(),
                        (false, weight) => format!("{name} (weight {weight})"),
                    });
                    list(&shown.collect::<Vec<_>>())
                });
                write!(f, "set pool {name} to {}", members.as_deref().unwrap_or("its members"))?;
                request.checks.iter().try_for_each(|check| match check {
                    Check::Tcp { port } => write!(f, ", check TCP {port}"),
                    Check::Http { port, path } => write!(f, ", check HTTP {port}{path}"),
                    Check::Vip { address, port } => write!(f, ", check TCP {port} of {address}"),
                })
            }
            Write::DeletePool { name } => write!(f, "remove pool {name}"),
            Write::PutMember { pool, name, .. } => write!(f, "set member {name} of pool {pool}"),
            Write::DeleteMember { pool, name } => write!(f, "remove member {name} of pool {pool}"),
            Write::PutLoadBalancer { name, request } => {
                let ports = request.listeners.iter().map(|listener| {
                    let protocol = match listener.protocol {
                        Protocol::Tcp => "TCP",
                        Protocol::Udp => "UDP",
                        Protocol::Sctp => "SCTP",
                    };
                    format!("{protocol} {} -> {}", listener.port, listener.pool)
                });
                write!(f, "set load balancer {name}: {}", list(&ports.collect::<Vec<_>>()))?;
                if !request.source_ranges.is_empty() {
                    write!(f, ", from {}", list(&request.source_ranges))?;
                }
                Ok(())
            }
            Write::DeleteLoadBalancer { name } => write!(f, "remove load balancer {name}"),
            Write::PutNodePort { port, request } => {
                let blocks = request.vip_blocks.then(|| "the VIP blocks".to_owned());
                let sources: Vec<_> =
                    request.pod_ranges.iter().map(ToString::to_string).chain(blocks).collect();
                write!(f, "let port {port} send from {}", list(&sources))
            }
            Write::DeleteNodePort { port, .. } => write!(f, "take the address pairs off port {port}"),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "nothing".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
