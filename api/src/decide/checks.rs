//! Which ports of members a balancer may be made to ask: it must not become a scanner of the nodes' network.

use std::fmt;

use ake_api_client::{Check, Listener, Protocol, Write};
use serde::Deserialize;

use super::wanted::Wanted;
use crate::refusal::Refusal;

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(try_from = "String")]
#[cfg_attr(test, serde(into = "String"))]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl TryFrom<String> for PortRange {
    type Error = String;

    /// Reads `10256` and `30000-32767`.
    fn try_from(text: String) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?}: expected a port from 1 to 65535, or two as \"first-last\"")),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

/// The ports that checks may ask where the operator says nothing: the API server's, kube-proxy's, and Kubernetes' range of
/// node ports, which healthCheckNodePort comes from.
#[must_use]
pub fn admitted() -> Vec<PortRange> {
    [(6443, 6443), (10256, 10256), (30000, 32767)].map(|(first, last)| PortRange { first, last }).to_vec()
}

/// Refuses the pools and listeners among these writes whose checks ask a port that the operator does not admit and no
/// listener in front has. What a pool was made to ask `before` it may go on asking when it is put again: whoever writes
/// members writes whole pools, and a list that is made shorter must not keep nodes from coming and going.
pub fn judge(
    admitted: &[PortRange],
    before: &Wanted,
    wanted: &Wanted,
    writes: &[Write],
) -> Result<(), Refusal> {
    let had = |name: &str, check: &Check| before.pools.get(name).is_some_and(|p| p.checks.contains(check));
    for write in writes {
        match write {
            Write::PutPool { name, .. } => judge_pool(admitted, wanted, name, |check| had(name, check))?,
            // other listeners may leave a check without the one that it asked
            Write::PutLoadBalancer { request, .. } => {
                for Listener { pool, .. } in &request.listeners {
                    let goes_on = |check: &Check| had(pool, check) && !is_served(before, pool, check);
                    judge_pool(admitted, wanted, pool, goes_on)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The port that a check asks, and the name of the address if it asks by way of one.
fn asked(check: &Check) -> (u16, Option<&String>) {
    match check {
        Check::Tcp { port } | Check::Http { port, .. } => (*port, None),
        Check::Vip { address, port } => (*port, Some(address)),
    }
}

/// Whether a listener in front has the port that a check asks.
fn is_served(wanted: &Wanted, pool: &str, check: &Check) -> bool {
    let (port, at) = asked(check);
    let mut listeners =
        wanted.load_balancers.values().flat_map(|lb| lb.listeners.iter().map(move |l| (lb, l)));
    listeners.any(|(lb, listener)| {
        let here = at.map_or(listener.pool == pool, |address| lb.address == *address);
        here && listener.port == port && (at.is_none() || listener.protocol == Protocol::Tcp)
    })
}

fn judge_pool(
    admitted: &[PortRange],
    wanted: &Wanted,
    name: &str,
    goes_on: impl Fn(&Check) -> bool,
) -> Result<(), Refusal> {
    let Some(pool) = wanted.pools.get(name) else { return Ok(()) };
    for check in pool.checks.iter().filter(|check| !goes_on(check)) {
        let (port, at) = asked(check);
        let is_admitted = admitted.iter().any(|range| (range.first..=range.last).contains(&port));
        if !is_admitted && !is_served(wanted, name, check) {
            let listed: Vec<_> = admitted.iter().map(ToString::to_string).collect();
            let place = at.map_or_else(|| "it".to_owned(), |address| format!("address {address}"));
            let expected = format!(
                "pool {name}: expected a port of a listener in front of {place}, in the same batch or before, or one that \
                 the operator admits: {}",
                if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
            );
            return Err(Refusal::invalid("checks.port", port, expected));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ake_api_client::{Affinity, LoadBalancerRequest, PoolRequest};

    use super::*;
    use crate::decide::wanted::{WantedMember, WantedPool};

    fn balancer(port: u16) -> LoadBalancerRequest {
        let listeners = vec![Listener { protocol: Protocol::Tcp, port, pool: "nodes".into() }];
        LoadBalancerRequest {
            address: "a".into(),
            listeners,
            source_ranges: vec![],
            affinity: Affinity::None,
        }
    }

    #[test]
    fn only_admitted_ports_and_those_of_listeners_are_asked() {
        let vip = |address: &str, port| Check::Vip { address: address.into(), port };
        for (check, with_listener, expected) in [
            (Check::Http { port: 10256, path: "/healthz".into() }, false, true),
            (Check::Tcp { port: 32000 }, false, true),
            (Check::Tcp { port: 6443 }, false, true),
            (Check::Tcp { port: 22 }, false, false),
            (Check::Tcp { port: 22 }, true, true),
            (Check::Http { port: 10250, path: "/pods".into() }, true, false),
            (vip("a", 22), true, true),
            (vip("a", 22), false, false),
            (vip("b", 22), true, false),
        ] {
            let pool = WantedPool { checks: vec![check.clone()], members: BTreeMap::new() };
            let mut wanted = Wanted { pools: [("nodes".to_owned(), pool)].into(), ..Wanted::default() };
            let mut writes = vec![Write::PutPool { name: "nodes".into(), request: PoolRequest::default() }];
            if with_listener {
                wanted.load_balancers.insert("ssh".into(), balancer(22));
                writes.push(Write::PutLoadBalancer { name: "ssh".into(), request: balancer(22) });
            }
            for write in &writes {
                let judged = judge(&admitted(), &Wanted::default(), &wanted, std::slice::from_ref(write));
                assert_eq!(judged.is_ok(), expected, "{check:?}");
                if let Err(refusal) = judged {
                    assert!(refusal.message.contains("6443, 10256, 30000-32767"), "{refusal}");
                }
            }
            assert!(judge(&[], &wanted, &wanted, &[]).is_ok(), "what was there before stays");
            let elsewhere = Write::PutPool { name: "other".into(), request: PoolRequest::default() };
            assert!(judge(&[], &wanted, &wanted, &[elsewhere]).is_ok());
        }
    }

    #[test]
    fn a_shorter_list_lets_members_and_listeners_come_and_go() {
        let pool = WantedPool { checks: vec![Check::Tcp { port: 9000 }], members: BTreeMap::new() };
        let mut before = Wanted { pools: [("nodes".to_owned(), pool)].into(), ..Wanted::default() };
        let put_pool = Write::PutPool { name: "nodes".into(), request: PoolRequest::default() };
        let put_balancer = |port| Write::PutLoadBalancer { name: "web".into(), request: balancer(port) };
        let mut after = before.clone();
        let member = WantedMember {
            address: [192, 168, 77, 20].into(),
            mac: "fa:16:3e:00:00:01".into(),
            port: "p".into(),
            weight: 1,
            draining: false,
        };
        after.pools.get_mut("nodes").unwrap().members.insert("w0".into(), member);
        after.load_balancers.insert("web".into(), balancer(80));
        let writes = [put_pool.clone(), put_balancer(80)];
        assert!(judge(&admitted(), &before, &after, &writes).is_ok());
        // but nothing that it did not ask before
        after.pools.get_mut("nodes").unwrap().checks.push(Check::Tcp { port: 9001 });
        for write in writes {
            let refusal = judge(&admitted(), &before, &after, &[write]).unwrap_err();
            assert!(refusal.message.contains("checks.port: 9001"), "{refusal}");
        }
        // and what was asked because of a listener goes with it
        before.load_balancers.insert("web".into(), balancer(9000));
        after.pools.get_mut("nodes").unwrap().checks.pop();
        let refusal = judge(&admitted(), &before, &after, &[put_pool, put_balancer(80)]).unwrap_err();
        assert!(refusal.message.contains("checks.port: 9000"), "{refusal}");
    }

    #[test]
    fn what_is_no_port_is_named() {
        for wrong in ["0", "70000", "9-8", "http", "", "1-2-3"] {
            let refused = PortRange::try_from(wrong.to_owned()).unwrap_err();
            assert!(refused.contains(&format!("{wrong:?}")), "{refused}");
        }
        assert_eq!(PortRange::try_from("1 - 2".to_owned()).unwrap().to_string(), "1-2");
    }
}
