//! The set of objects that a state is on the device.

use std::{collections::BTreeMap, fmt};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::wire;

/// Kinds of objects, in the order in which they can be made; they go in the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `ltm monitor tcp`.
    MonitorTcp,
    /// `ltm monitor http`.
    MonitorHttp,
    /// `ltm profile fastl4`.
    Profile,
    /// `ltm persistence source-addr`.
    Persistence,
    /// `ltm data-group internal`.
    Group,
    /// `ltm node`.
    Node,
    /// `ltm pool`.
    Pool,
    /// `ltm virtual-address`.
    Address,
    /// `ltm virtual`.
    Virtual,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MonitorTcp,
        Self::MonitorHttp,
        Self::Profile,
        Self::Persistence,
        Self::Group,
        Self::Node,
        Self::Pool,
        Self::Address,
        Self::Virtual,
    ];

    /// The collection below `/mgmt/tm/`.
    pub fn collection(self) -> &'static str {
        match self {
            Self::MonitorTcp => "ltm/monitor/tcp",
            Self::MonitorHttp => "ltm/monitor/http",
            Self::Profile => "ltm/profile/fastl4",
            Self::Persistence => "ltm/persistence/source-addr",
            Self::Group => "ltm/data-group/internal",
            Self::Node => "ltm/node",
            Self::Pool => "ltm/pool",
            Self::Address => "ltm/virtual-address",
            Self::Virtual => "ltm/virtual",
        }
    }

    /// Whether what we write stands in a collection below the object.
    pub fn has_subcollections(self) -> bool {
        matches!(self, Self::Pool | Self::Virtual)
    }
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Its partition.
    pub partition: String,
    /// Its name there.
    pub name: String,
}

impl Key {
    /// A key of its parts.
    pub fn new(kind: Kind, partition: &str, name: impl Into<String>) -> Self {
        Self { kind, partition: partition.to_owned(), name: name.into() }
    }

    /// `/partition/name`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.partition, self.name)
    }

    /// Its URL below `/mgmt/tm/`.
    pub fn uri(&self) -> String {
        format!("{}/~{}~{}", self.kind.collection(), self.partition, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.collection(), self.path())
    }
}

/// What an object is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A health check.
    Monitor(wire::Monitor),
    /// A server.
    Node(wire::Node),
    /// How packets are handled.
    Profile(wire::FastL4),
    /// Affinity.
    Persistence(wire::SourceAddr),
    /// Records.
    Group(wire::DataGroup),
    /// Members.
    Pool(wire::Pool),
    /// A VIP.
    Address(wire::VirtualAddress),
    /// A listener.
    Virtual(wire::Virtual),
}

/// Objects by where they are.
pub type Objects = BTreeMap<Key, Object>;

/// First word of every description of ours.
pub const MARK: &str = "ake";
/// Name of our persistence profile in every partition.
pub const CLIENT_IP: &str = "client-ip";

impl Object {
    /// Reads an item of a collection; none when it is not ours to know: another's form, another's mark.
    pub fn read(kind: Kind, mut item: Value) -> Option<(Key, Self)> {
        let key = Key::new(kind, item["partition"].as_str()?, item["name"].as_str()?);
        let marked = item["description"].as_str().is_some_and(|text| text.split(' ').next() == Some(MARK));
        // persistence profiles have no description: ours has its name, in a partition of ours
        if !marked && (kind != Kind::Persistence || key.name != CLIENT_IP) {
            return None;
        }
        let object = match kind {
            Kind::MonitorTcp | Kind::MonitorHttp => Self::Monitor(form(item)?),
            Kind::Profile => Self::Profile(form(item)?),
            Kind::Persistence => Self::Persistence(form(item)?),
            Kind::Group => {
                let mut group: wire::DataGroup = form(item)?;
                group.records.sort();
                Self::Group(group)
            }
            Kind::Node => Self::Node(form(item)?),
            Kind::Pool => {
                let mut members = item["membersReference"]["items"].take();
                if let Value::Array(list) = &mut members {
                    list.sort_by_key(|member| member["fullPath"].as_str().map(str::to_owned));
                } else {
                    members = Value::Array(Vec::new());
                }
                item["members"] = members;
                let mut pool: wire::Pool = form(item)?;
                pool.members.sort();
                Self::Pool(pool)
            }
            Kind::Address => Self::Address(form(item)?),
            Kind::Virtual => Self::Virtual(form(item)?),
        };
        Some((key, object))
    }

    /// Its description.
    pub fn description(&self) -> &str {
        match self {
            Self::Monitor(object) => &object.description,
            Self::Node(object) => &object.description,
            Self::Profile(object) => &object.description,
            Self::Persistence(_) => "",
            Self::Group(object) => &object.description,
            Self::Pool(object) => &object.description,
            Self::Address(object) => &object.description,
            Self::Virtual(object) => &object.description,
        }
    }
}

fn form<T: DeserializeOwned>(item: Value) -> Option<T> {
    serde_json::from_value(item).ok()
}
