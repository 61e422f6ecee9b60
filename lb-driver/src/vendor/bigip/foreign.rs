//! What others have on the device, as far as it can be in our way or serve us.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::Value;

use super::{
    derive::{Style, User, derive},
    forms,
    objects::{Key, Kind, Object, Objects},
    plan::node_of,
    unfit::{Holders, unfit},
    wire,
};
use crate::{driver::Obstacles, model::State};

/// What two virtual servers cannot both have: address, port, protocol and source.
type Claim = (IpAddr, u16, String, String);

/// What others have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Virtual addresses and nodes of others, in our partitions, that serve us as ours would: under the names that
    /// ours would have.
    pub lent: BTreeSet<Key>,
    /// Objects of ours that others' refer to, pools excepted: they stay.
    pub used: BTreeSet<Key>,
    /// Partitions that have our names.
    partitions: BTreeSet<String>,
    /// Objects in our partitions.
    names: BTreeSet<Key>,
    /// Virtual addresses elsewhere.
    addresses: BTreeMap<IpAddr, Key>,
    /// Nodes elsewhere, and in our partitions under names that ours would not have.
    nodes: BTreeMap<IpAddr, Key>,
    /// Virtual servers.
    listeners: BTreeMap<Claim, Key>,
}

impl Foreign {
    /// Takes in what is not ours: partitions by name, and items of collections. `ours` are our own objects.
    pub fn new(
        partitions: BTreeSet<String>,
        items: &[(Kind, Value)],
        ours: &Partitions,
        own: &Objects,
    ) -> Self {
        let mut foreign = Self { partitions, ..Self::default() };
        let mut named = BTreeSet::new();
        for (kind, item) in items {
            let (Some(partition), Some(name)) = (item["partition"].as_str(), item["name"].as_str()) else {
                continue;
            };
            let key = Key::new(*kind, partition, name);
            foreign.take(&key, item, ours.contains(partition), &mut named);
        }
        let kept = |key: &&Key| key.kind != Kind::Pool && named.contains(&key.path());
        foreign.used = own.keys().filter(kept).cloned().collect();
        foreign
    }

    fn take(&mut self, key: &Key, item: &Value, with_us: bool, named: &mut BTreeSet<String>) {
        if with_us {
            self.names.insert(key.clone());
        }
        let address = item["address"].as_str().and_then(|text| bare(text).parse::<IpAddr>().ok());
        match (key.kind, address) {
            (Kind::Address, Some(address)) if with_us => {
                self.lent.insert(Key::new(Kind::Address, &key.partition, address.to_string()));
            }
            (Kind::Address, Some(address)) => drop(self.addresses.insert(address, key.clone())),
            (Kind::Node, Some(address)) if with_us && key.name == address.to_string() => {
                self.lent.insert(key.clone());
            }
            (Kind::Node, Some(address)) => drop(self.nodes.insert(address, key.clone())),
            (Kind::Virtual, _) => self.listener(key, item, named),
            (Kind::Pool, _) => {
                let monitors = item["monitor"].as_str().unwrap_or_default().split_whitespace();
                named.extend(monitors.filter(|word| word.starts_with('/')).map(str::to_owned));
                named.extend(paths(&item["membersReference"]["items"]).map(|member| node_of(&member)));
            }
            _ => {}
        }
    }

    fn listener(&mut self, key: &Key, item: &Value, named: &mut BTreeSet<String>) {
        named.extend(paths(&item["profilesReference"]["items"]));
        named.extend(paths(&item["persist"]));
        let destination = item["destination"].as_str().unwrap_or_default();
        let (folder, host) = destination.rsplit_once('/').unwrap_or(("", destination));
        let Some((address, port)) = forms::address_port(host) else { return };
        named.insert(format!("{folder}/{address}"));
        // one that listens on some VLANs alone leaves the others to us
        if item["vlansEnabled"] == true {
            return;
        }
        let word = |name: &str| bare_range(item[name].as_str().unwrap_or_default());
        self.listeners.insert((address, port, word("ipProtocol"), word("source")), key.clone());
    }

    /// What is in the way of what is wanted.
    pub fn obstacles(&self, wanted: &State, style: &Style, own: &Objects) -> Obstacles {
        let mut obstacles = Obstacles::default();
        let mut add = |user: &User, reason: String| {
            let (place, owner) = match user {
                User::Pool(owner) => (&mut obstacles.pools, owner),
                User::Balancer(owner) => (&mut obstacles.load_balancers, owner),
            };
            place.entry(owner.clone()).or_default().insert(reason);
        };
        let (nodes, vips) = holders(own, style);
        for (user, unfit) in unfit(wanted, style, &nodes, &vips) {
            add(&user, unfit.to_string());
        }
        let derived = derive(wanted, style).without(&self.lent);
        for (key, object) in &derived.objects {
            if let Some(reason) = self.in_the_way(key, object) {
                derived.users.get(key).into_iter().flatten().for_each(|user| add(user, reason.clone()));
            }
        }
        obstacles
    }

    fn in_the_way(&self, key: &Key, object: &Object) -> Option<String> {
        if self.partitions.contains(&key.partition) {
            return Some(format!("partition {}: it is there and not ours", key.partition));
        }
        if self.names.contains(key) {
            return Some(format!("{key}: it is there and not ours"));
        }
        let has =
            |address: IpAddr, by: Option<&Key>| by.map(|by| format!("{address}: {by} has this address"));
        match object {
            Object::Address(object) => has(object.address, self.addresses.get(&object.address)),
            Object::Node(object) => has(object.address, self.nodes.get(&object.address)),
            Object::Virtual(object) => {
                let by = self.listeners.get(&claim(object)?)?;
                Some(format!("{} {}: {by} listens there", object.ip_protocol, object.destination))
            }
            _ => None,
        }
    }
}

/// Names of partitions that are ours.
pub type Partitions = BTreeSet<String>;

fn claim(object: &wire::Virtual) -> Option<Claim> {
    let (address, port) = forms::address_port(object.destination.rsplit('/').next()?)?;
    Some((address, port, object.ip_protocol.clone(), object.source.clone()))
}

/// The projects that have addresses on the device: of members, and of VIPs.
fn holders(own: &Objects, style: &Style) -> (Holders, Holders) {
    let (mut nodes, mut vips) = (Holders::new(), Holders::new());
    for (key, object) in own {
        let Some(project) = key.partition.strip_prefix(&style.prefix) else { continue };
        match object {
            Object::Node(node) => drop(nodes.insert(node.address, project.to_owned())),
            Object::Address(address) => drop(vips.insert(address.address, project.to_owned())),
            _ => {}
        }
    }
    (nodes, vips)
}

/// Full paths of what a list names.
fn paths(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|item| {
        let given = |name: &str| item[name].as_str();
        match (given("fullPath"), given("partition"), given("name")) {
            (Some(path), ..) => Some(path.to_owned()),
            (None, Some(partition), Some(name)) => Some(format!("/{partition}/{name}")),
            _ => None,
        }
    })
}

/// Without the suffix of the default route domain.
fn bare(address: &str) -> &str {
    address.strip_suffix("%0").unwrap_or(address)
}

fn bare_range(range: &str) -> String {
    range.replacen("%0/", "/", 1)
}
