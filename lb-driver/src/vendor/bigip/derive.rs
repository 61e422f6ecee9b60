//! From a state to the objects that it is on the device.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use super::{
    forms,
    objects::{CLIENT_IP, Key, Kind, MARK, Object, Objects},
    wire,
};
use crate::model::{Affinity, Check, Endpoint, LoadBalancer, Member, Owner, Pool, Protocol, State, Version};

/// What is the operator's to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Before a project's id in the name of its partition; ends with a hyphen.
    pub prefix: String,
    /// Which unit of a pair has the VIPs, by full path.
    pub traffic_group: String,
}

impl Style {
    /// The partition of a project.
    pub fn partition(&self, project: &str) -> String {
        format!("{}{project}", self.prefix)
    }

    /// The partition of what belongs to no project; no project's has its name, which lacks the hyphen.
    pub fn home(&self) -> String {
        format!("{}_state", self.prefix.trim_end_matches('-'))
    }
}

/// Largest ratio of a member.
const LARGEST_RATIO: u32 = 100;
/// Seconds between checks, and until a member is down: three of them and one more.
const INTERVAL: u32 = 5;
const TIMEOUT: u32 = 16;
/// Seconds of affinity: what Kubernetes has unless a Service says otherwise.
const AFFINITY: &str = "10800";

/// What an object is there for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A pool.
    Pool(Owner),
    /// A load balancer.
    Balancer(Owner),
}

/// Objects with what they are there for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// The objects.
    pub objects: Objects,
    /// By object.
    pub users: BTreeMap<Key, BTreeSet<User>>,
}

/// The objects of a state, its version included.
pub fn derive(state: &State, style: &Style) -> Derived {
    let mut derived = Derived::default();
    if let Some((key, object)) = version(state.version, style) {
        derived.objects.insert(key, object);
    }
    for (owner, pool) in &state.pools {
        derived.pool(owner, pool, style);
    }
    for (owner, balancer) in &state.load_balancers {
        derived.balancer(owner, balancer, style);
    }
    derived
}

/// The object that says which state the device has; none for the first version, that of a device without one.
pub fn version(version: Version, style: &Style) -> Option<(Key, Object)> {
    if version == Version::default() {
        return None;
    }
    let name = format!("version-{}-{}", version.epoch, version.number);
    let description = format!("{MARK} version {version}");
    let group = wire::DataGroup { kind: "string".to_owned(), records: Vec::new(), description };
    Some((Key::new(Kind::Group, &style.home(), name), Object::Group(group)))
}

/// The object that a load balancer without listeners is.
fn record(owner: &Owner, balancer: &LoadBalancer, style: &Style) -> (Key, Object) {
    let affinity = match balancer.affinity {
        Affinity::None => "None",
        Affinity::ClientIp => "ClientIP",
    };
    let record = |range: &IpNetwork| wire::Record { name: range.to_string(), data: String::new() };
    let mut records: Vec<_> = balancer.source_ranges.iter().map(record).collect();
    records.sort();
    let group = wire::DataGroup {
        kind: "string".to_owned(),
        records,
        description: format!("{MARK} empty {owner} {} {affinity}", balancer.vip),
    };
    let name = format!("lb-{}-{}", short(owner.object()), digest(&[&owner.to_string()]));
    (Key::new(Kind::Group, &style.partition(owner.project()), name), Object::Group(group))
}

impl Derived {
    /// Without what others have there that serves as well.
    #[must_use]
    pub fn without(mut self, lent: &BTreeSet<Key>) -> Self {
        self.objects.retain(|key, _| !lent.contains(key));
        self
    }

    fn add(&mut self, user: User, key: Key, object: Object) -> String {
        let path = key.path();
        self.users.entry(key.clone()).or_default().insert(user);
        if let Entry::Vacant(place) = self.objects.entry(key) {
            place.insert(object);
        }
        path
    }

    fn pool(&mut self, owner: &Owner, pool: &Pool, style: &Style) {
        let partition = style.partition(owner.project());
        let user = User::Pool(owner.clone());
        let mut monitors: Vec<String> = Vec::new();
        for check in &pool.checks {
            let (key, object) = monitor(check, &partition);
            monitors.push(self.add(user.clone(), key, object));
        }
        monitors.sort_unstable();
        let heaviest = pool.members.values().map(|member| member.weight).max().unwrap_or(0);
        let mut members = Vec::new();
        for (name, member) in &pool.members {
            let key = Key::new(Kind::Node, &partition, member.address.to_string());
            let node = wire::Node { address: member.address, description: MARK.to_owned() };
            self.add(user.clone(), key, Object::Node(node));
            members.push(wire_member(name, member, heaviest, &partition));
        }
        members.sort();
        let object = Object::Pool(wire::Pool {
            load_balancing_mode: "ratio-member".to_owned(),
            monitor: monitors.join(" and "),
            service_down_action: "reselect".to_owned(),
            slow_ramp_time: 0,
            description: format!("{MARK} pool {owner}"),
            members,
        });
        self.add(user, pool_key(owner, style), object);
    }

    fn balancer(&mut self, owner: &Owner, balancer: &LoadBalancer, style: &Style) {
        let partition = style.partition(owner.project());
        let user = User::Balancer(owner.clone());
        if balancer.listeners.is_empty() {
            let (key, object) = record(owner, balancer, style);
            self.add(user, key, object);
            return;
        }
        let profile =
            self.add(user.clone(), Key::new(Kind::Profile, &partition, "npath"), Object::Profile(npath()));
        let mut persist = Vec::new();
        if balancer.affinity == Affinity::ClientIp {
            let key = Key::new(Kind::Persistence, &partition, CLIENT_IP);
            persist.push(self.add(user.clone(), key, Object::Persistence(client_ip())));
        }
        let address = Object::Address(wire::VirtualAddress {
            address: balancer.vip,
            arp: "enabled".to_owned(),
            auto_delete: "false".to_owned(),
            traffic_group: style.traffic_group.clone(),
            description: MARK.to_owned(),
        });
        self.add(user.clone(), Key::new(Kind::Address, &partition, balancer.vip.to_string()), address);
        for (endpoint, pool) in &balancer.listeners {
            for (source, ranges) in sources(balancer) {
                let from =
                    if ranges.is_empty() { String::new() } else { format!(" from {}", ranges.join(",")) };
                let object = Object::Virtual(wire::Virtual {
                    destination: format!(
                        "/{partition}/{}",
                        forms::with_port(balancer.vip, endpoint.port.get())
                    ),
                    mask: mask(balancer.vip),
                    ip_protocol: protocol(endpoint.protocol).to_owned(),
                    source: source.to_string(),
                    pool: pool_key(pool, style).path(),
                    profiles: vec![profile.clone()],
                    persist: persist.clone(),
                    translate_address: "disabled".to_owned(),
                    translate_port: "disabled".to_owned(),
                    source_address_translation: wire::Translation { kind: "none".to_owned() },
                    source_port: "preserve".to_owned(),
                    mirror: "disabled".to_owned(),
                    enabled: true,
                    description: format!("{MARK} lb {owner}{from}"),
                });
                let name = virtual_name(owner, balancer.vip, *endpoint, source);
                self.add(user.clone(), Key::new(Kind::Virtual, &partition, name), object);
            }
        }
    }
}

/// Where a pool is.
pub fn pool_key(owner: &Owner, style: &Style) -> Key {
    let name = format!("pool-{}-{}", short(owner.object()), digest(&[&owner.to_string()]));
    Key::new(Kind::Pool, &style.partition(owner.project()), name)
}

fn virtual_name(owner: &Owner, vip: IpAddr, endpoint: Endpoint, source: IpNetwork) -> String {
    let Endpoint { protocol: transport, port } = endpoint;
    // another VIP or another range is another object: what identifies a virtual server is never changed
    let digest = digest(&[&owner.to_string(), &vip.to_string(), &endpoint.to_string(), &source.to_string()]);
    format!("vs-{}-{}-{port}-{digest}", short(owner.object()), protocol(transport))
}

/// A virtual server has one source, so each range is a virtual server of its own; ranges that are the same
/// network are one, and its description says how they were written.
pub fn sources(balancer: &LoadBalancer) -> BTreeMap<IpNetwork, Vec<String>> {
    let any = match balancer.vip {
        IpAddr::V4(_) => IpNetwork::V4(ipnetwork::Ipv4Network::from(std::net::Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => IpNetwork::V6(ipnetwork::Ipv6Network::from(std::net::Ipv6Addr::UNSPECIFIED)),
    };
    if balancer.source_ranges.is_empty() {
        return BTreeMap::from([(network(any, 0), Vec::new())]);
    }
    let mut sources: BTreeMap<IpNetwork, Vec<String>> = BTreeMap::new();
    for range in &balancer.source_ranges {
        sources.entry(network(*range, range.prefix())).or_default().push(range.to_string());
    }
    sources
}

fn network(range: IpNetwork, prefix: u8) -> IpNetwork {
    IpNetwork::new(range.network(), prefix).unwrap_or(range)
}

fn wire_member(name: &str, member: &Member, heaviest: u16, partition: &str) -> wire::Member {
    let takes = member.weight > 0 && !member.draining;
    let mut description = format!("{MARK} member {name} weight={}", member.weight);
    if let Some(mac) = member.mac {
        description += &format!(" mac={mac}");
    }
    if member.draining {
        description += " draining";
    }
    wire::Member {
        name: format!("/{partition}/{}", forms::with_port(member.address, 0)),
        ratio: ratio(member.weight, heaviest),
        session: if takes { "user-enabled" } else { "user-disabled" }.to_owned(),
        state: "user-up".to_owned(),
        description,
    }
}

/// A member's weight in the device's unit: as it is, or in hundredths of the heaviest; never nothing.
pub fn ratio(weight: u16, heaviest: u16) -> u32 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let scaled = if heaviest > LARGEST_RATIO { (weight * LARGEST_RATIO).div_ceil(heaviest) } else { weight };
    scaled.max(1)
}

fn monitor(check: &Check, partition: &str) -> (Key, Object) {
    let object = |destination, transparent: &str, send: &str, recv: &str| {
        Object::Monitor(wire::Monitor {
            destination,
            interval: INTERVAL,
            timeout: TIMEOUT,
            transparent: transparent.to_owned(),
            send: send.to_owned(),
            recv: recv.to_owned(),
            description: MARK.to_owned(),
        })
    };
    match check {
        Check::Tcp { port } => (
            Key::new(Kind::MonitorTcp, partition, format!("tcp-{port}")),
            object(format!("*:{port}"), "disabled", "none", "none"),
        ),
        Check::Vip { vip, port } => {
            let destination = forms::with_port(*vip, port.get());
            let key = Key::new(Kind::MonitorTcp, partition, format!("vip-{destination}").replace(':', "_"));
            (key, object(destination, "enabled", "none", "none"))
        }
        Check::Http { port, path } => {
            let key = Key::new(Kind::MonitorHttp, partition, format!("http-{port}-{}", digest(&[path])));
            (key, object(format!("*:{port}"), "disabled", &request(path), ACCEPTED))
        }
    }
}

/// What an HTTP monitor accepts: any status from 200 to 299.
pub const ACCEPTED: &str = "^HTTP/1.[01] 2[0-9][0-9]";
/// Around the path of what it says. The device takes these backslashes for line ends.
pub const REQUEST: (&str, &str) = ("GET ", " HTTP/1.1\\r\\nHost: node\\r\\nConnection: close\\r\\n\\r\\n");

fn request(path: &str) -> String {
    format!("{}{path}{}", REQUEST.0, REQUEST.1)
}

fn npath() -> wire::FastL4 {
    let word = str::to_owned;
    wire::FastL4 {
        defaults_from: word("/Common/fastL4"),
        loose_close: word("enabled"),
        loose_initialization: word("enabled"),
        idle_timeout: word("300"),
        tcp_close_timeout: word("5"),
        reset_on_timeout: word("disabled"),
        syn_cookie_enable: word("disabled"),
        description: word(MARK),
    }
}

fn client_ip() -> wire::SourceAddr {
    wire::SourceAddr {
        defaults_from: "/Common/source_addr".to_owned(),
        match_across_services: "enabled".to_owned(),
        timeout: AFFINITY.to_owned(),
    }
}

/// A protocol in the device's words.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn mask(vip: IpAddr) -> String {
    match vip {
        IpAddr::V4(_) => "255.255.255.255".to_owned(),
        IpAddr::V6(_) => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".to_owned(),
    }
}

/// As much of a name as helps to recognise it.
fn short(name: &str) -> &str {
    name.get(..40).unwrap_or(name)
}

/// What tells apart names that are cut: 64 bits.
fn digest(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\n").as_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
