//! From the objects that are there to those that are wanted, as commands in an order that the device takes
//! whether it looks at each by itself or at all of them together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde_json::{Value, json};

use super::objects::{Key, Kind, Object, Objects};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An object is made.
    Create(Key, Object),
    /// An object is made to be this.
    Change(Key, Object),
    /// Of a pool's members these are left.
    Shrink(Key, Vec<super::wire::Member>),
    /// An object goes.
    Delete(Key),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(key, _) => write!(f, "create {key}"),
            Self::Change(key, _) => write!(f, "change {key}"),
            Self::Shrink(key, _) => write!(f, "shrink {key}"),
            Self::Delete(key) => write!(f, "delete {key}"),
        }
    }
}

impl Command {
    /// Where it happens.
    pub fn key(&self) -> &Key {
        match self {
            Self::Create(key, _) | Self::Change(key, _) | Self::Shrink(key, _) | Self::Delete(key) => key,
        }
    }

    /// Method, URL below `/mgmt/tm/`, and body.
    pub fn request(&self) -> (&'static str, String, Option<Value>) {
        match self {
            Self::Create(key, object) => {
                let mut body = json!(object);
                body["name"] = key.name.as_str().into();
                body["partition"] = key.partition.as_str().into();
                ("POST", key.kind.collection().to_owned(), Some(tidy(body)))
            }
            Self::Change(key, object) => {
                let mut body = json!(object);
                // these are given once
                if let Some(fields) = body.as_object_mut() {
                    let fixed: &[&str] = match key.kind {
                        Kind::Node | Kind::Address => &["address"],
                        Kind::Group => &["type"],
                        Kind::Profile | Kind::Persistence => &["defaultsFrom"],
                        _ => &[],
                    };
                    fields.retain(|name, _| !fixed.contains(&name.as_str()));
                }
                ("PATCH", key.uri(), Some(tidy(body)))
            }
            Self::Shrink(key, members) => ("PATCH", key.uri(), Some(json!({ "members": members }))),
            Self::Delete(key) => ("DELETE", key.uri(), None),
        }
    }
}

/// The device has no `false` for `enabled`, only another property.
fn tidy(mut body: Value) -> Value {
    if body["enabled"] == false {
        body["enabled"] = Value::Null;
        body["disabled"] = true.into();
    }
    body
}

/// What has to be done. What is `used` by others' objects stays, though nothing of ours names it. The order: records and the version, which any two writers would both change; listeners
/// and addresses go; members leave whose address another partition takes over; what comes or changes, each
/// after what it names; then what is named by nothing any more.
pub fn plan(wanted: &Objects, actual: &Objects, used: &BTreeSet<Key>) -> Vec<Command> {
    let gone = |kinds: &'static [Kind]| {
        let gone = actual.keys().rev().filter(move |key| kinds.contains(&key.kind));
        gone.filter(|key| !wanted.contains_key(*key) && !used.contains(*key)).cloned().map(Command::Delete)
    };
    let come = |(key, object): (&Key, &Object), anew: bool| match actual.get(key) {
        None => Some(Command::Create(key.clone(), object.clone())),
        Some(there) if there != object || anew => Some(Command::Change(key.clone(), object.clone())),
        Some(_) => None,
    };
    let mut commands: Vec<Command> = gone(&[Kind::Group]).collect();
    commands.extend(
        wanted.iter().filter(|(key, _)| key.kind == Kind::Group).filter_map(|group| come(group, false)),
    );
    commands.extend(gone(&[Kind::Virtual, Kind::Address]));
    let mut moved = moved(wanted, actual);
    moved.retain(|_, key| !used.contains(key));
    let mut shrunk: BTreeSet<&Key> = BTreeSet::new();
    for (key, object) in actual {
        if let Object::Pool(pool) = object {
            let stays = |member: &&super::wire::Member| !moved.contains_key(&node_of(&member.name));
            let left: Vec<_> = pool.members.iter().filter(stays).cloned().collect();
            if left.len() < pool.members.len() {
                commands.push(Command::Shrink(key.clone(), left));
                shrunk.insert(key);
            }
        }
    }
    commands.extend(moved.values().cloned().map(Command::Delete));
    let rest = wanted.iter().filter(|(key, _)| key.kind != Kind::Group);
    commands.extend(rest.filter_map(|object| come(object, shrunk.contains(object.0))));
    commands.extend(
        gone(&[
            Kind::Pool,
            Kind::Node,
            Kind::Persistence,
            Kind::Profile,
            Kind::MonitorHttp,
            Kind::MonitorTcp,
        ])
        .filter(|command| !matches!(command, Command::Delete(key) if moved.contains_key(&key.path()))),
    );
    commands
}

/// Nodes that go while another partition's with the same address comes: the device has an address once.
fn moved(wanted: &Objects, actual: &Objects) -> BTreeMap<String, Key> {
    let coming: BTreeSet<IpAddr> =
        nodes(wanted).filter(|(key, _)| !actual.contains_key(*key)).map(|(_, a)| a).collect();
    nodes(actual)
        .filter(|(key, address)| !wanted.contains_key(*key) && coming.contains(address))
        .map(|(key, _)| (key.path(), key.clone()))
        .collect()
}

fn nodes(objects: &Objects) -> impl Iterator<Item = (&Key, IpAddr)> {
    objects.iter().filter_map(|(key, object)| match object {
        Object::Node(node) => Some((key, node.address)),
        _ => None,
    })
}

/// The node's path of a member's: without the port.
pub(super) fn node_of(member: &str) -> String {
    let cut = if member.matches(':').count() > 1 { member.rfind('.') } else { member.rfind(':') };
    cut.map_or(member, |at| &member[..at]).to_owned()
}
