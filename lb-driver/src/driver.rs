//! What a device must be able to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::Duration,
};

use crate::{
    diff::Change,
    model::{Endpoint, Owner, State, Version},
};

/// What a driver's calls give: boxed, so that drivers of different devices stand side by side.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DriverError>> + Send + 'a>>;

/// A device, or a pair of them that is managed as one.
///
/// Observe with [`read`](Driver::read), [`fit`](crate::fit::fit_to) what is wanted to the device, plan with
/// [`diff`](crate::diff::diff), act with [`apply`](Driver::apply) unless the plan is empty. After an error of any
/// call the same begins anew, with the same driver or another one; [`conformance`](crate::conformance) tries it.
///
/// A session that the device ended is begun again within the call, without an error.
pub trait Driver: Send + Sync {
    /// What the device can do, without IO; asked after each [`read`](Driver::read), which may find out.
    fn capabilities(&self) -> Capabilities;

    /// What the device has of ours. Objects of others are never part of it.
    fn read(&self) -> Answer<'_, State>;

    /// What keeps parts of `wanted` off the device as it was [`read`](Driver::read) last, and no capability says.
    /// Without IO.
    fn obstacles(&self, _wanted: &State) -> Obstacles {
        Obstacles::default()
    }

    /// Takes the device from what [`read`](Driver::read) gave to `wanted`. A device that takes whole states
    /// needs no more than `wanted`; one that is changed step by step follows `changes` in their order.
    fn apply<'a>(&'a self, wanted: &'a State, changes: &'a [Change]) -> Answer<'a, ()>;

    /// Health and counters.
    fn status(&self) -> Answer<'_, Status>;

    /// The status as soon as it is another one than the one whose [`Status::mark`] was `seen`, and after `longest`
    /// in any case. A device that cannot tell is asked once, at the end of [`POLL`] or of `longest`.
    fn news(&self, seen: Option<u64>, longest: Duration) -> Answer<'_, Status> {
        Box::pin(async move {
            if seen.is_some() {
                tokio::time::sleep(longest.min(POLL)).await;
            }
            self.status().await
        })
    }

    /// Gives back what the driver holds on the device, such as a session.
    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// How often a device is asked for its health that cannot tell of changes.
pub const POLL: Duration = Duration::from_secs(5);

/// What a device can do. TCP, UDP and IPv4 any device does; what it cannot do, [`fit`](crate::fit::fit) keeps
/// from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// IPv6 VIPs and members.
    pub ipv6: bool,
    /// SCTP listeners.
    pub sctp: bool,
    /// Several listeners on one pool; where not, each gets one of its own.
    pub shared_pools: bool,
    /// Keeps a draining member's flows; where not, it is out at once.
    pub drain: bool,
    /// Members of different weight.
    pub weights: bool,
    /// Is told members' MAC addresses; where not, it finds them by ARP and ND.
    pub macs: bool,
    /// Source ranges.
    pub source_ranges: bool,
    /// Affinity by the client's address.
    pub client_ip_affinity: bool,
    /// Ways to check members.
    pub checks: CheckKinds,
    /// How much it takes.
    pub limits: Limits,
    /// Keeps the version of what was applied, and refuses an older one.
    pub versioned: bool,
}

impl Capabilities {
    /// Of a device that can do everything that the model says.
    pub const ALL: Self = Self {
        ipv6: true,
        sctp: true,
        shared_pools: true,
        drain: true,
        weights: true,
        macs: true,
        source_ranges: true,
        client_ip_affinity: true,
        checks: CheckKinds { tcp: true, http: true, vip: true },
        limits: Limits {
            load_balancers: None,
            listeners: None,
            source_ranges: None,
            pools: None,
            members: None,
            checks: None,
        },
        versioned: true,
    };
}

/// What keeps load balancers and pools off a device, in words for those who want them: objects of others in the way,
/// names and values that it does not take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// By load balancer.
    pub load_balancers: BTreeMap<Owner, BTreeSet<String>>,
    /// By pool; they are in the way of the load balancers on it.
    pub pools: BTreeMap<Owner, BTreeSet<String>>,
}

impl Obstacles {
    /// One of them.
    pub fn first(&self) -> Option<&str> {
        let all = self.load_balancers.values().chain(self.pools.values());
        all.flatten().next().map(String::as_str)
    }
}

/// Ways to check members that a device knows; see [`Check`](crate::model::Check).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckKinds {
    /// By a TCP connection to the member.
    pub tcp: bool,
    /// By a GET to the member.
    pub http: bool,
    /// By a TCP connection to a VIP by way of the member.
    pub vip: bool,
}

/// How much a device takes; none where only its memory ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Load balancers in all.
    pub load_balancers: Option<usize>,
    /// Listeners in all.
    pub listeners: Option<usize>,
    /// Source ranges in all.
    pub source_ranges: Option<usize>,
    /// Pools in all.
    pub pools: Option<usize>,
    /// Members in all, counted once per pool.
    pub members: Option<usize>,
    /// Checks of one pool.
    pub checks: Option<usize>,
}

/// What a device says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Changes with every change of a member's health, of its reason, or of the version; none where the device keeps
    /// no such count.
    pub mark: Option<u64>,
    /// The state it holds, if any.
    pub version: Option<Version>,
    /// Of one of several: whether clients' packets are sent to it, as far as it knows.
    pub active: Option<bool>,
    /// Health and shares, by pool.
    pub pools: BTreeMap<Owner, PoolStatus>,
    /// Traffic, by load balancer and port.
    pub load_balancers: BTreeMap<Owner, BTreeMap<Endpoint, Traffic>>,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A pool, as the device sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolStatus {
    /// Slots of its ring; 0 where no member can take flows.
    pub ring_size: u32,
    /// Its members by name.
    pub members: BTreeMap<String, MemberStatus>,
}

/// A member, as the device sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberStatus {
    /// What the last check said; none before the first.
    pub healthy: Option<bool>,
    /// Why it takes no flows.
    pub reason: Option<String>,
    /// Slots of the ring that are its own: its share of new flows is `slots / ring_size`.
    pub slots: u32,
    /// Flows that began at it since the device took it in.
    pub new_flows: u64,
}

/// What passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}

/// Why a device did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// What the driver was set up with does not serve.
    #[error("{field}: {problem}")]
    Settings {
        /// Which setting.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No answer: name, network, TLS or deadline.
    #[error("{device}: no answer: {cause}")]
    Unreachable {
        /// The device's URL.
        device: String,
        /// What happened, to its root.
        cause: String,
    },
    /// The device holds a newer state.
    #[error("{device}: refused version {wanted}: it holds {held}")]
    Stale {
        /// The device's URL.
        device: String,
        /// What was sent.
        wanted: Version,
        /// What it holds.
        held: Version,
    },
    /// The device refused, and will refuse again.
    #[error("{device}: refused: {reason}")]
    Refused {
        /// The device's URL.
        device: String,
        /// In its words.
        reason: String,
    },
    /// The device refused what is of some projects, and has the rest.
    #[error("{device}: refused: {}", reasons.values().cloned().collect::<Vec<_>>().join("; "))]
    RefusedInPart {
        /// The device's URL.
        device: String,
        /// In its words, by project.
        reasons: BTreeMap<String, String>,
    },
    /// The device failed; it may serve later.
    #[error("{device}: failed: {reason}")]
    Failed {
        /// The device's URL.
        device: String,
        /// In its words.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is none that the driver knows.
    #[error("{device}: {problem}")]
    Protocol {
        /// The device's URL.
        device: String,
        /// What was not understood.
        problem: String,
    },
}

impl DriverError {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failed { .. })
    }
}
