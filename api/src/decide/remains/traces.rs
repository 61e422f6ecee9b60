//! What is written to Neutron ports, for people and for the day when the database is lost.

use std::{collections::BTreeSet, net::IpAddr};

use ake_api_client::ClusterId;
use ipnetwork::IpNetwork;

use crate::decide::{pairs::Pair, wanted::ClusterRecord};

/// A port that reserves a block, and what its description says of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockPort {
    /// Its id.
    pub port: String,
    /// Whose block it is.
    pub cluster: ClusterId,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Id of the network that it is on.
    pub network: String,
    /// Id of its subnet.
    pub subnet: String,
    /// What is written to it.
    pub description: Description,
}

/// What stands in the description of a port that reserves a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The cluster's project.
    pub project: Option<String>,
    /// The network of its nodes.
    pub nodes: Option<String>,
    /// Its pod ranges: one of a family at most.
    pub pods: Vec<IpNetwork>,
    /// Its name, or the beginning of it.
    pub name: Option<String>,
}

/// Neutron's limit of a description.
const DESCRIPTION: usize = 255;

impl Description {
    /// The text for the port of a block: for people, and for the day when the database is lost.
    #[must_use]
    pub fn text(cluster: &ClusterRecord, block: IpNetwork) -> String {
        let ClusterRecord { id, name, project, network, .. } = cluster;
        let pods: Vec<String> = cluster.pod_ranges().map(|range| range.to_string()).collect();
        let pods = pods.join(",");
        format!("AKE: VIP block {block}; cluster {id}; project {project}; nodes {network}; pods {pods}; name {name}")
            .chars()
            .take(DESCRIPTION)
            .collect()
    }

    /// Reads it back, as far as it is one.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let part = |word: &str| text.split("; ").find_map(|part| part.strip_prefix(word)?.strip_prefix(' '));
        Self {
            project: part("project").map(ToOwned::to_owned),
            nodes: part("nodes").map(ToOwned::to_owned),
            pods: part("pods")
                .into_iter()
                .flat_map(|all| all.split(','))
                .filter_map(|range| range.parse().ok())
                .collect(),
            // a name may hold anything, so it is last
            name: text.split_once("; name ").map(|(_, name)| name.to_owned()),
        }
    }
}

/// A node's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePortRemains {
    /// Its id.
    pub port: String,
    /// The network that it is on.
    pub network: String,
    /// Its MAC address.
    pub mac: String,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// All its address pairs.
    pub pairs: Vec<Pair>,
}
