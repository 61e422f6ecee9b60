//! The networks that clusters may be on, and where their VIPs come from.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{ConfigError, canonical, error::value};
use crate::decide::{blocks::VipRange, ranges::Span};

/// A network that clusters may be on.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Id or name of the Neutron network; of one that no Neutron knows, a name of its own.
    pub network: String,
    /// Whether it is a network of Neutron's. Where it is not, `nodes` says whose its nodes are, and the balancer asks for
    /// their MAC addresses on the link.
    #[serde(default = "yes")]
    pub neutron: bool,
    /// Which addresses are nodes of which project; only where there is no Neutron to ask.
    #[serde(default)]
    pub nodes: Vec<Nodes>,
    /// Where the clusters' pod ranges are cut from. Networks that reach each other's nodes on one segment must not share it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub pod_pool: IpNetwork,
    /// Prefix length of a cluster's pod range out of it.
    pub pod_prefix: u8,
    /// Where the pod ranges for IPv6 are cut from; none if clusters are not dual stack.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub pod_pool_v6: Option<IpNetwork>,
    /// Prefix length of a cluster's pod range for IPv6: 48 to 64, of which each node gets a /64.
    pub pod_prefix_v6: Option<u8>,
    /// Where VIPs of its clusters come from: one range of each family.
    #[serde(rename = "vip")]
    pub vips: Vec<Vip>,
}

/// The nodes of a project on a network that no Neutron knows.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// Id of the project.
    pub project: String,
    /// Their addresses: no other project has any of them.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub ranges: Vec<IpNetwork>,
}

fn yes() -> bool {
    true
}

/// A range of VIPs.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize, schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Id or name of the Neutron network on which blocks are reserved. Leave it and `subnet` out where there is none: then
    /// nobody but AKE may use the range.
    pub network: Option<String>,
    /// Id or name of its subnet.
    pub subnet: Option<String>,
    /// First address that AKE may use.
    pub first: IpAddr,
    /// Last address that AKE may use.
    pub last: IpAddr,
    /// Prefix length of the aligned blocks that clusters get of it. Where there is Neutron, a cluster has eight or nine at
    /// most (docs/guides/install.md).
    pub block_prefix: u8,
}

impl Vip {
    /// The range.
    #[must_use]
    pub fn range(&self) -> VipRange {
        VipRange { first: self.first, last: self.last, prefix: self.block_prefix }
    }
}

impl Network {
    pub(super) fn check(&self, key: &str) -> Result<(), ConfigError> {
        canonical(&format!("{key}.pod_pool"), self.pod_pool)?;
        let bits = if self.pod_pool.is_ipv4() { 32 } else { 128 };
        if !(self.pod_pool.prefix()..=bits).contains(&self.pod_prefix) {
            return Err(value(
                &format!("{key}.pod_prefix"),
                self.pod_prefix,
                format!("{} (pod_pool's) to {bits}", self.pod_pool.prefix()),
            ));
        }
        self.check_v6(key)?;
        self.check_nodes(key)?;
        if self.vips.is_empty() {
            return Err(value(&format!("{key}.vip"), "none", "one [[network.vip]] at least"));
        }
        for (i, vip) in self.vips.iter().enumerate() {
            vip.check(&format!("{key}.vip[{i}]"))?;
            if self.vips.iter().take(i).any(|other| other.first.is_ipv4() == vip.first.is_ipv4()) {
                return Err(value(&format!("{key}.vip[{i}].first"), vip.first, "one range of each family"));
            }
        }
        Ok(())
    }

    fn check_nodes(&self, key: &str) -> Result<(), ConfigError> {
        if self.neutron {
            return match self.nodes.first() {
                None => Ok(()),
                Some(nodes) => {
                    let key = format!("{key}.nodes[0].project");
                    Err(value(
                        &key,
                        &nodes.project,
                        "no nodes: Neutron knows whose they are, unless neutron = false",
                    ))
                }
            };
        }
        if self.nodes.is_empty() {
            return Err(value(
                &format!("{key}.nodes"),
                "none",
                "one [[network.nodes]] at least, with neutron = false",
            ));
        }
        let mut taken: Vec<IpNetwork> = Vec::new();
        for (i, nodes) in self.nodes.iter().enumerate() {
            let key = format!("{key}.nodes[{i}].ranges");
            if nodes.ranges.is_empty() {
                return Err(value(&key, "[]", "one range at least"));
            }
            for range in &nodes.ranges {
                canonical(&key, *range)?;
                if taken.iter().any(|other| Span::of(*other).overlaps(Span::of(*range))) {
                    return Err(value(&key, range, "addresses that no other entry has"));
                }
                taken.push(*range);
            }
        }
        Ok(())
    }

    /// The addresses of a project's nodes, where there is no Neutron to ask.
    #[must_use]
    pub fn nodes_of(&self, project: &str) -> Vec<IpNetwork> {
        let own = self.nodes.iter().filter(|nodes| nodes.project == project);
        own.flat_map(|nodes| nodes.ranges.iter().copied()).collect()
    }

    /// Whether anything of its clusters is in Neutron: their nodes, or their VIPs.
    #[must_use]
    pub fn uses_neutron(&self) -> bool {
        self.neutron || self.vips.iter().any(|vip| vip.network.is_some())
    }

    fn check_v6(&self, key: &str) -> Result<(), ConfigError> {
        let (pool_key, prefix_key) = (format!("{key}.pod_pool_v6"), format!("{key}.pod_prefix_v6"));
        let (pool, prefix) = match (self.pod_pool_v6, self.pod_prefix_v6) {
            (None, None) => return Ok(()),
            (Some(pool), Some(prefix)) => (pool, prefix),
            (pool, _) => {
                let has = if pool.is_some() { "the first" } else { "the second" };
                return Err(value(&format!("{pool_key}, {prefix_key}"), has, "both or neither"));
            }
        };
        canonical(&pool_key, pool)?;
        if pool.is_ipv4() || self.pod_pool.is_ipv6() {
            return Err(value(&pool_key, pool, "a range of IPv6, beside a pod_pool of IPv4"));
        }
        let lowest = pool.prefix().max(48);
        if !(lowest..=64).contains(&prefix) {
            return Err(value(&prefix_key, prefix, format!("{lowest} to 64, and not below pod_pool_v6's")));
        }
        Ok(())
    }
}

impl Vip {
    fn check(&self, key: &str) -> Result<(), ConfigError> {
        if self.network.is_some() != self.subnet.is_some() {
            return Err(value(
                &format!("{key}.network, {key}.subnet"),
                "one of the two",
                "both, or neither for a plain range",
            ));
        }
        let Some(span) = Span::between(self.first, self.last) else {
            return Err(value(
                &format!("{key}.last"),
                self.last,
                format!("an address behind first, {}", self.first),
            ));
        };
        let (lowest, highest) = if self.first.is_ipv4() { (24, 32) } else { (120, 128) };
        if !(lowest..=highest).contains(&self.block_prefix) {
            return Err(value(
                &format!("{key}.block_prefix"),
                self.block_prefix,
                format!("{lowest} to {highest}"),
            ));
        }
        if span.blocks(self.block_prefix) == 0 {
            return Err(value(
                &format!("{key}.last"),
                self.last,
                format!("room for one aligned /{} from {} on", self.block_prefix, self.first),
            ));
        }
        Ok(())
    }
}
