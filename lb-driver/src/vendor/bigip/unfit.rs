//! What a BIG-IP cannot do of a state, whatever else is on it.

use std::{collections::BTreeMap, net::IpAddr};

use super::derive::{Style, User};
use crate::model::{Check, Owner, State};

/// Why something of a state cannot be on this device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Members are told apart by their address.
    #[error("pool {pool}: members {first} and {second}: both have the address {address}; a BIG-IP takes one")]
    SameAddress {
        /// Whose members.
        pool: Owner,
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// The address.
        address: IpAddr,
    },
    /// An object may use what is in its own partition.
    #[error("load balancer {load_balancer}: pool {pool}: expected a pool of its own project")]
    OtherProject {
        /// Whose listener.
        load_balancer: Owner,
        /// The pool that it names.
        pool: Owner,
    },
    /// What a monitor says cannot hold these.
    #[error(
        "pool {pool}: check path {path:?}: expected printable ASCII without blanks, quotes and backslashes"
    )]
    Path {
        /// Whose check.
        pool: Owner,
        /// The path.
        path: String,
    },
    /// One address is in one partition only.
    #[error("{address}: another project has it on this BIG-IP, where an address is in one partition")]
    SharedAddress {
        /// The address of a member or a VIP.
        address: IpAddr,
    },
    /// A partition's name is too long.
    #[error("project {project:?}: its partition {partition:?} would have more than 63 characters")]
    Partition {
        /// The project.
        project: String,
        /// What its partition would be called.
        partition: String,
    },
}

/// Longest name of a partition.
const PARTITION_LENGTH: usize = 63;

/// By address, the project in whose partition it is.
pub type Holders = BTreeMap<IpAddr, String>;

/// What the device cannot do, by what it is wanted for. An address that two projects want is left to the one that
/// holds it, else to the first.
pub fn unfit(state: &State, style: &Style, nodes: &Holders, vips: &Holders) -> Vec<(User, Unfit)> {
    let members =
        state.pools.iter().flat_map(|(owner, pool)| pool.members.values().map(move |m| (m.address, owner)));
    let nodes = rightful(members, nodes);
    let vips = rightful(state.load_balancers.iter().map(|(owner, balancer)| (balancer.vip, owner)), vips);
    let not_theirs = |rightful: &BTreeMap<IpAddr, &str>, address: IpAddr, owner: &Owner| {
        let other = rightful.get(&address).is_some_and(|project| *project != owner.project());
        other.then_some(Unfit::SharedAddress { address })
    };
    let too_long = |project: &str| {
        let partition = style.partition(project);
        let too_long = partition.len() > PARTITION_LENGTH;
        too_long.then(|| Unfit::Partition { project: project.to_owned(), partition })
    };
    let mut unfit = Vec::new();
    for (owner, pool) in &state.pools {
        let mut problems: Vec<Unfit> = too_long(owner.project()).into_iter().collect();
        let mut seen: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, member) in &pool.members {
            problems.extend(not_theirs(&nodes, member.address, owner));
            if let Some(first) = seen.insert(member.address, name) {
                problems.push(Unfit::SameAddress {
                    pool: owner.clone(),
                    first: first.to_owned(),
                    second: name.clone(),
                    address: member.address,
                });
            }
        }
        for check in &pool.checks {
            if let Check::Http { path, .. } = check
                && !path.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
            {
                problems.push(Unfit::Path { pool: owner.clone(), path: path.clone() });
            }
        }
        unfit.extend(problems.into_iter().map(|problem| (User::Pool(owner.clone()), problem)));
    }
    for (owner, balancer) in &state.load_balancers {
        let mut problems: Vec<Unfit> = too_long(owner.project()).into_iter().collect();
        problems.extend(not_theirs(&vips, balancer.vip, owner));
        if let Some(pool) = balancer.listeners.values().find(|pool| pool.project() != owner.project()) {
            problems.push(Unfit::OtherProject { load_balancer: owner.clone(), pool: pool.clone() });
        }
        unfit.extend(problems.into_iter().map(|problem| (User::Balancer(owner.clone()), problem)));
    }
    unfit
}

/// Whose an address is, of those who want it.
fn rightful<'a>(
    wants: impl Iterator<Item = (IpAddr, &'a Owner)>,
    holders: &Holders,
) -> BTreeMap<IpAddr, &'a str> {
    let mut rightful: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (address, owner) in wants {
        let holds = holders.get(&address).is_some_and(|holder| holder == owner.project());
        let first = rightful.entry(address).or_insert_with(|| owner.project());
        if holds {
            *first = owner.project();
        }
    }
    rightful
}
