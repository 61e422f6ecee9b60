//! From the objects on the device to the state that they are.
//!
//! What the objects say is read first; then the objects of that very state are derived anew. Where one of
//! them is not there, or is not as it should be, whatever it is for is told as something that nobody can
//! want, so that the next comparison puts it right, or removes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{
    derive::{self, ACCEPTED, REQUEST, Style, User, derive},
    forms,
    objects::{Key, Kind, MARK, Object, Objects},
    wire,
};
use crate::model::{Affinity, Check, Endpoint, LoadBalancer, Member, Owner, Pool, Protocol, State, Version};

/// Name of a member that no state has.
const DAMAGED: &str = "?";

/// The state that the objects are. Objects that are not what they should be show in it; those that others lend
/// need not be there.
pub fn state(actual: &Objects, lent: &BTreeSet<Key>, style: &Style) -> State {
    let mut state = State { version: version(actual, style), ..State::default() };
    let mut paths: BTreeMap<String, Owner> = BTreeMap::new();
    for (key, object) in actual {
        if let Object::Pool(pool) = object
            && let Some(owner) = pool_owner(key, pool, style)
        {
            state.pools.insert(owner.clone(), model_pool(pool, key, actual));
            paths.insert(key.path(), owner);
        }
    }
    for object in actual.values() {
        match object {
            Object::Virtual(object) => listener(&mut state, object, &paths),
            Object::Group(object) => without_listeners(&mut state, object),
            _ => {}
        }
    }
    for user in damaged(&state, actual, lent, style) {
        match user {
            User::Pool(owner) => mark_pool(state.pools.entry(owner).or_default()),
            User::Balancer(owner) => {
                if let Some(balancer) = state.load_balancers.get_mut(&owner) {
                    mark_balancer(balancer);
                }
            }
        }
    }
    state
}

/// The highest version that stands on the device.
pub fn version(actual: &Objects, style: &Style) -> Version {
    let home = style.home();
    let said = |(key, object): (&Key, &Object)| {
        let text = object.description().strip_prefix(MARK)?.strip_prefix(" version ")?;
        let (epoch, number) = text.split_once('.')?;
        let version = Version { epoch: epoch.parse().ok()?, number: number.parse().ok()? };
        (key.kind == Kind::Group && key.partition == home).then_some(version)
    };
    actual.iter().filter_map(said).max().unwrap_or_default()
}

/// What is there for whom is not as it should be.
fn damaged(state: &State, actual: &Objects, lent: &BTreeSet<Key>, style: &Style) -> BTreeSet<User> {
    let expected = derive(state, style).without(lent);
    let mut damaged = BTreeSet::new();
    for (key, object) in &expected.objects {
        if actual.get(key) != Some(object) {
            damaged.extend(expected.users.get(key).cloned().unwrap_or_default());
        }
    }
    for (key, object) in actual {
        if !expected.objects.contains_key(key) {
            let user = match object {
                Object::Virtual(object) => owner(&object.description, "lb").map(User::Balancer),
                Object::Group(object) => owner(&object.description, "empty").map(User::Balancer),
                Object::Pool(object) => owner(&object.description, "pool").map(User::Pool),
                _ => None,
            };
            damaged.extend(user);
        }
    }
    damaged
}

fn mark_pool(pool: &mut Pool) {
    let nobody = Member { address: IpAddr::from([0; 4]), mac: None, weight: 0, draining: true };
    pool.members.insert(DAMAGED.to_owned(), nobody);
}

fn mark_balancer(balancer: &mut LoadBalancer) {
    let Ok(nowhere) = Owner::new("-", "-", "damaged") else { return };
    if balancer.listeners.is_empty() {
        let endpoint = Endpoint { protocol: Protocol::Tcp, port: std::num::NonZeroU16::MIN };
        balancer.listeners.insert(endpoint, nowhere);
    } else {
        for pool in balancer.listeners.values_mut() {
            *pool = nowhere.clone();
        }
    }
}

/// Whose a pool is, if it is where that one's pool should be.
pub fn pool_owner(key: &Key, pool: &wire::Pool, style: &Style) -> Option<Owner> {
    owner(&pool.description, "pool").filter(|owner| derive::pool_key(owner, style) == *key)
}

/// The name of a member.
pub fn member_name(member: &wire::Member) -> Option<&str> {
    member.description.strip_prefix(MARK)?.strip_prefix(" member ")?.split(' ').next()
}

/// Whose listener a virtual server is, and which.
pub fn listener_of(object: &wire::Virtual) -> Option<(Owner, Endpoint)> {
    let owner = owner(&object.description, "lb")?;
    let (_, port) = forms::address_port(object.destination.rsplit('/').next()?)?;
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = known.into_iter().find(|known| derive::protocol(*known) == object.ip_protocol)?;
    Some((owner, Endpoint { protocol, port: port.try_into().ok()? }))
}

/// The owner in `ake WORD OWNER ...`.
fn owner(description: &str, word: &str) -> Option<Owner> {
    let mut words = description.split(' ');
    if words.next() != Some(MARK) || words.next() != Some(word) {
        return None;
    }
    words.next()?.parse().ok()
}

fn model_pool(pool: &wire::Pool, key: &Key, actual: &Objects) -> Pool {
    let monitors = pool.monitor.split(" and ").filter_map(|path| {
        let name = path.strip_prefix(&format!("/{}/", key.partition))?;
        [Kind::MonitorTcp, Kind::MonitorHttp]
            .into_iter()
            .find_map(|kind| check(kind, actual.get(&Key::new(kind, &key.partition, name))?))
    });
    Pool { members: pool.members.iter().filter_map(model_member).collect(), checks: monitors.collect() }
}

fn check(kind: Kind, object: &Object) -> Option<Check> {
    let Object::Monitor(monitor) = object else { return None };
    if let Some(port) =
        monitor.destination.strip_prefix("*:").or_else(|| monitor.destination.strip_prefix("*."))
    {
        let port = port.parse().ok()?;
        if kind == Kind::MonitorTcp {
            return Some(Check::Tcp { port });
        }
        let path = monitor.send.strip_prefix(REQUEST.0)?.strip_suffix(REQUEST.1)?;
        return (monitor.recv == ACCEPTED).then(|| Check::Http { port, path: path.to_owned() });
    }
    let (vip, port) = forms::address_port(&monitor.destination)?;
    Some(Check::Vip { vip, port: port.try_into().ok()? })
}

fn model_member(member: &wire::Member) -> Option<(String, Member)> {
    let (_, host) = member.name.strip_prefix('/')?.split_once('/')?;
    let (address, _) = forms::address_port(host)?;
    let name = member_name(member)?.to_owned();
    let words = member.description.split(' ').skip(3);
    let mut read = Member { address, mac: None, weight: 0, draining: false };
    for word in words {
        match word.split_once('=') {
            Some(("weight", weight)) => read.weight = weight.parse().ok()?,
            Some(("mac", mac)) => read.mac = Some(mac.parse().ok()?),
            None if word == "draining" => read.draining = true,
            _ => return None,
        }
    }
    Some((name, read))
}

fn listener(state: &mut State, object: &wire::Virtual, pools: &BTreeMap<String, Owner>) {
    let Some((owner, endpoint)) = listener_of(object) else { return };
    let destination = object.destination.rsplit('/').next().unwrap_or_default();
    let Some((vip, _)) = forms::address_port(destination) else { return };
    let nobody = LoadBalancer {
        vip,
        listeners: BTreeMap::new(),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    };
    let balancer = state.load_balancers.entry(owner).or_insert(nobody);
    let pool = pools.get(&object.pool).cloned().or_else(|| Owner::new("-", "-", "damaged").ok());
    if let Some(pool) = pool {
        balancer.listeners.insert(endpoint, pool);
    }
    if let Some((_, ranges)) = object.description.split_once(" from ") {
        balancer.source_ranges.extend(ranges.split(',').filter_map(|range| range.parse::<IpNetwork>().ok()));
    }
    if !object.persist.is_empty() {
        balancer.affinity = Affinity::ClientIp;
    }
}

fn without_listeners(state: &mut State, object: &wire::DataGroup) {
    let Some(owner) = owner(&object.description, "empty") else { return };
    let words: Vec<&str> = object.description.split(' ').collect();
    let [_, _, _, vip, affinity] = words[..] else { return };
    let Ok(vip) = vip.parse() else { return };
    let affinity = if affinity == "ClientIP" { Affinity::ClientIp } else { Affinity::None };
    let source_ranges = object.records.iter().filter_map(|record| record.name.parse().ok()).collect();
    let read = LoadBalancer { vip, listeners: BTreeMap::new(), source_ranges, affinity };
    // one with listeners and a record besides is damaged; it keeps its listeners
    state.load_balancers.entry(owner).or_insert(read);
}
