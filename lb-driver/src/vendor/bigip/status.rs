//! What the device says of members and traffic.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    derive::Style,
    objects::{Key, Kind, Object, Objects},
    recognise,
    unit::{Failure, Request, Unit},
};
use crate::{
    driver::{MemberStatus, PoolStatus, Status, Traffic},
    model::{Endpoint, Owner},
};

/// Counters by load balancer and port.
pub(super) type ByEndpoint = BTreeMap<Owner, BTreeMap<Endpoint, Traffic>>;

/// Counters are read this often: the device gives those of all virtual servers at once, its other users' too.
const COUNTERS: Duration = Duration::from_secs(30);

/// The counters as they were read last.
#[derive(Default)]
pub(super) struct Traffics {
    last: Mutex<Option<(Instant, ByEndpoint)>>,
}

impl Traffics {
    pub(super) async fn read(&self, unit: &Unit, seen: Option<Arc<Objects>>) -> Result<ByEndpoint, Failure> {
        let mut last = self.last.lock().await;
        if let Some((when, counters)) = &*last
            && when.elapsed() < COUNTERS
        {
            return Ok(counters.clone());
        }
        // without the objects nobody knows what the counters belong to
        let Some(seen) = seen else { return Ok(ByEndpoint::new()) };
        let answer: Value = unit.read(Request::get("tm/ltm/virtual/stats")).await?;
        let counters = by_endpoint(&answer, &seen);
        *last = Some((Instant::now(), counters.clone()));
        Ok(counters)
    }
}

fn by_endpoint(answer: &Value, seen: &Objects) -> ByEndpoint {
    let mut counters = ByEndpoint::new();
    for entry in answer["entries"].as_object().into_iter().flat_map(|entries| entries.values()) {
        let entry = &entry["nestedStats"]["entries"];
        let path = entry["tmName"]["description"].as_str().unwrap_or_default();
        let Some((partition, name)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            continue;
        };
        let key = Key::new(Kind::Virtual, partition, name);
        let Some(Object::Virtual(object)) = seen.get(&key) else { continue };
        let Some((owner, endpoint)) = recognise::listener_of(object) else { continue };
        // a listener is a virtual server for each of its source ranges
        let traffic = counters.entry(owner).or_default().entry(endpoint).or_default();
        let count = |name: &str| entry[name]["value"].as_u64().unwrap_or(0);
        traffic.packets += count("clientside.pktsIn");
        traffic.bytes += count("clientside.bitsIn") / 8;
    }
    counters
}

/// config-sync's own word for how a pair is: `In Sync`, `Changes Pending`, `Standalone`, ...
pub(super) async fn sync(unit: &Unit) -> Result<String, Failure> {
    let answer: Value = unit.read(Request::get("tm/cm/sync-status")).await?;
    let entries = answer["entries"].as_object().and_then(|entries| entries.values().next());
    let said = entries.and_then(|entry| entry["nestedStats"]["entries"]["status"]["description"].as_str());
    said.map(str::to_owned)
        .ok_or_else(|| Failure::Odd("sync-status: expected entries with a status".to_owned()))
}

/// Members' health from a list of pools with their members.
pub(super) fn status(pools: Vec<Value>, load_balancers: ByEndpoint, style: &Style) -> Status {
    let mut status = Status { load_balancers, ..Status::default() };
    for item in pools {
        let monitored = item["monitor"].as_str().is_some_and(|monitor| !monitor.trim().is_empty());
        let told: BTreeMap<String, (String, String)> = item["membersReference"]["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| {
                let word = |name: &str| member[name].as_str().map(str::to_owned);
                Some((word("description")?, (word("state")?, word("session")?)))
            })
            .collect();
        let Some((key, Object::Pool(pool))) = Object::read(Kind::Pool, item) else { continue };
        let Some(owner) = recognise::pool_owner(&key, &pool, style) else { continue };
        let mut seen = PoolStatus::default();
        for member in &pool.members {
            let Some(name) = recognise::member_name(member) else { continue };
            let Some((state, session)) = told.get(&member.description) else { continue };
            let one = member_status(state, session, monitored, member.ratio);
            seen.ring_size += one.slots;
            seen.members.insert(name.to_owned(), one);
        }
        status.pools.insert(owner, seen);
    }
    status
}

fn member_status(state: &str, session: &str, monitored: bool, ratio: u32) -> MemberStatus {
    let healthy = match state {
        "up" => Some(true),
        // nobody looks, so nobody says otherwise
        "unchecked" if !monitored => Some(true),
        "down" => Some(false),
        _ => None,
    };
    let reason = match (state, session) {
        ("user-down", _) => Some("the device's operator took it down".to_owned()),
        (_, "user-disabled" | "addr-disabled") => Some("it takes no new flows".to_owned()),
        ("down", _) => Some("a check failed".to_owned()),
        _ => None,
    };
    let slots = if healthy != Some(false) && reason.is_none() { ratio } else { 0 };
    MemberStatus { healthy, reason, slots, new_flows: 0 }
}
