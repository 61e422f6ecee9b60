//! Between the model and the wire, both ways, without IO.

use std::collections::BTreeMap;

use super::wire;
use crate::{
    driver::{Limits, MemberStatus, PoolStatus, Status, Traffic},
    model::{Check, Endpoint, InvalidState, LoadBalancer, Member, Owner, Pool, State},
};

/// Why a document is no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// Something stands in it twice.
    #[error("{what} stands in the document twice")]
    Twice {
        /// What.
        what: String,
    },
    /// A check whose path is no path.
    #[error(
        "pool {pool}: check path {path:?}: expected /... without spaces or control characters, up to 1024 characters"
    )]
    Path {
        /// Whose check.
        pool: Owner,
        /// What stood there.
        path: String,
    },
    /// A state that no device can do.
    #[error(transparent)]
    State(#[from] InvalidState),
}

/// What is sent for a state.
pub fn document(state: &State) -> wire::Document {
    wire::Document {
        version: state.version,
        pools: state.pools.iter().map(|(owner, pool)| wire_pool(owner, pool)).collect(),
        load_balancers: state.load_balancers.iter().map(|(owner, lb)| wire_balancer(owner, lb)).collect(),
    }
}

/// What a document says, once it was checked.
pub fn state(document: &wire::Document) -> Result<State, InvalidDocument> {
    let mut state = State { version: document.version, ..State::default() };
    for pool in &document.pools {
        if state.pools.insert(pool.owner.clone(), model_pool(pool)?).is_some() {
            return Err(InvalidDocument::Twice { what: format!("pool {}", pool.owner) });
        }
    }
    for balancer in &document.load_balancers {
        if state.load_balancers.insert(balancer.owner.clone(), model_balancer(balancer)?).is_some() {
            return Err(InvalidDocument::Twice { what: format!("load balancer {}", balancer.owner) });
        }
    }
    state.check()?;
    Ok(state)
}

/// What a status document says.
pub fn status(document: wire::StatusDocument) -> Status {
    let pool = |pool: wire::PoolStatus| {
        let members = pool.members.into_iter().map(|member| (member.name.clone(), member_status(member)));
        (pool.owner, PoolStatus { ring_size: pool.ring_size, members: members.collect() })
    };
    let balancer = |balancer: wire::LoadBalancerStatus| {
        let listeners = balancer.listeners.into_iter().map(|listener| {
            let endpoint = Endpoint { protocol: listener.protocol, port: listener.port };
            (endpoint, Traffic { packets: listener.packets, bytes: listener.bytes })
        });
        (balancer.owner, listeners.collect::<BTreeMap<_, _>>())
    };
    Status {
        mark: document.mark,
        version: document.version,
        active: document.pair.map(|pair| pair.active),
        pools: document.pools.into_iter().map(pool).collect(),
        load_balancers: document.load_balancers.into_iter().map(balancer).collect(),
        drops: document.drops,
    }
}

/// How much the device says that it takes; anything where it does not say.
pub fn limits(told: Option<wire::Limits>) -> Limits {
    let most = |most: Option<u32>| most.and_then(|most| usize::try_from(most).ok());
    let told = told.unwrap_or_default();
    Limits {
        load_balancers: most(told.load_balancers),
        listeners: most(told.listeners),
        source_ranges: most(told.source_ranges),
        pools: most(told.pools),
        members: most(told.members),
        checks: None,
    }
}

fn member_status(member: wire::MemberStatus) -> MemberStatus {
    MemberStatus {
        healthy: member.healthy,
        reason: member.reason,
        slots: member.slots,
        new_flows: member.new_flows,
    }
}

fn wire_pool(owner: &Owner, pool: &Pool) -> wire::Pool {
    let member = |(name, member): (&String, &Member)| wire::Member {
        name: name.clone(),
        address: member.address,
        mac: member.mac,
        weight: member.weight,
        draining: member.draining,
    };
    wire::Pool {
        owner: owner.clone(),
        members: pool.members.iter().map(member).collect(),
        checks: pool.checks.iter().map(wire_check).collect(),
    }
}

fn wire_check(check: &Check) -> wire::Check {
    match check {
        Check::Tcp { port } => wire::Check::Tcp { port: *port },
        Check::Http { port, path } => wire::Check::Http { port: *port, path: path.clone() },
        Check::Vip { vip, port } => wire::Check::Vip { vip: *vip, port: *port },
    }
}

fn model_pool(pool: &wire::Pool) -> Result<Pool, InvalidDocument> {
    let mut members = BTreeMap::new();
    for wire::Member { name, address, mac, weight, draining } in &pool.members {
        let member = Member { address: *address, mac: *mac, weight: *weight, draining: *draining };
        if members.insert(name.clone(), member).is_some() {
            return Err(InvalidDocument::Twice { what: format!("pool {}: member {name:?}", pool.owner) });
        }
    }
    let checks = pool.checks.iter().map(|check| model_check(&pool.owner, check)).collect::<Result<_, _>>()?;
    Ok(Pool { members, checks })
}

fn model_check(pool: &Owner, check: &wire::Check) -> Result<Check, InvalidDocument> {
    match check {
        wire::Check::Tcp { port } => Ok(Check::Tcp { port: *port }),
        wire::Check::Http { port, path } => {
            let fits =
                path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic());
            if !fits {
                return Err(InvalidDocument::Path { pool: pool.clone(), path: path.clone() });
            }
            Ok(Check::Http { port: *port, path: path.clone() })
        }
        wire::Check::Vip { vip, port } => Ok(Check::Vip { vip: *vip, port: *port }),
    }
}

fn wire_balancer(owner: &Owner, balancer: &LoadBalancer) -> wire::LoadBalancer {
    let listener = |(endpoint, pool): (&Endpoint, &Owner)| wire::Listener {
        protocol: endpoint.protocol,
        port: endpoint.port,
        pool: pool.clone(),
    };
    wire::LoadBalancer {
        owner: owner.clone(),
        vip: balancer.vip,
        listeners: balancer.listeners.iter().map(listener).collect(),
        source_ranges: balancer.source_ranges.iter().copied().collect(),
        affinity: balancer.affinity,
    }
}

fn model_balancer(balancer: &wire::LoadBalancer) -> Result<LoadBalancer, InvalidDocument> {
    let mut listeners = BTreeMap::new();
    for wire::Listener { protocol, port, pool } in &balancer.listeners {
        let endpoint = Endpoint { protocol: *protocol, port: *port };
        if listeners.insert(endpoint, pool.clone()).is_some() {
            let what = format!("load balancer {}: listener {endpoint}", balancer.owner);
            return Err(InvalidDocument::Twice { what });
        }
    }
    Ok(LoadBalancer {
        vip: balancer.vip,
        listeners,
        source_ranges: balancer.source_ranges.iter().copied().collect(),
        affinity: balancer.affinity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
        "version": {"epoch": 1, "number": 7},
        "pools": [{
            "owner": "p/c/nodes",
            "members": [
                {"name": "w0", "address": "192.168.77.20", "mac": "fa:16:3e:00:00:20", "weight": 1},
                {"name": "w1", "address": "fd00:77::21", "weight": 0, "draining": true}
            ],
            "checks": [
                {"type": "http", "port": 10256, "path": "/healthz"},
                {"type": "vip", "vip": "203.0.113.17", "port": 80}
            ]
        }],
        "load_balancers": [{
            "owner": "p/c/svc-1",
            "vip": "203.0.113.17",
            "listeners": [{"protocol": "SCTP", "port": 36412, "pool": "p/c/nodes"}],
            "source_ranges": ["198.51.100.0/24"],
            "affinity": "ClientIP"
        }]
    }"#;

    #[test]
    fn a_document_comes_back_as_it_was() {
        let read: wire::Document = serde_json::from_str(DOCUMENT).unwrap();
        let state = state(&read).unwrap();
        assert_eq!(document(&state), read);
        assert_eq!(super::state(&document(&state)).unwrap(), state);
    }

    #[test]
    fn what_is_no_state_is_named() {
        let error = |from: &str, to: &str| {
            let text = DOCUMENT.replace(from, to);
            assert_ne!(text, DOCUMENT);
            match serde_json::from_str::<wire::Document>(&text) {
                Ok(document) => state(&document).unwrap_err().to_string(),
                Err(error) => error.to_string(),
            }
        };
        for (from, to, expected) in [
            ("\"w1\"", "\"w0\"", "pool p/c/nodes: member \"w0\" stands in the document twice"),
            ("/healthz", "healthz", "pool p/c/nodes: check path \"healthz\": expected /..."),
            (
                "vip\": \"203.0.113.17\",\n            \"l",
                "vip\": \"0.0.0.0\", \"l",
                "load balancer p/c/svc-1: address 0.0.0.0",
            ),
            (
                "vip\": \"203.0.113.17\", \"p",
                "vip\": \"0.0.0.0\", \"p",
                "pool p/c/nodes: check of a VIP: address 0.0.0.0",
            ),
            ("203.0.113.17", "2001:db8::1", "source range 198.51.100.0/24: expected a range of the family"),
            (
                "\"pool\": \"p/c/nodes\"",
                "\"pool\": \"p/c/other\"",
                "SCTP/36412: pool p/c/other is not in the state",
            ),
            ("36412", "0", "nonzero u16"),
            ("fa:16:3e:00:00:20", "ff:ff:ff:ff:ff:ff", "is not a MAC address of a station"),
            ("\"weight\": 1", "\"wieght\": 1", "unknown field `wieght`"),
        ] {
            let error = error(from, to);
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }
}
