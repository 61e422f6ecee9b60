//! Tables that a process takes over from the one before it.

use std::path::PathBuf;

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues},
};

use super::{MapsError, Pins, of};
use crate::{config::Limits, layout, memory::Memory, table};

/// A table of the data plane that survives.
pub(super) struct Survivor {
    pub(super) name: &'static str,
    /// Where the data plane finds it, or makes it.
    pub(super) path: PathBuf,
    /// One of another size, whose content is carried over.
    former: Option<PathBuf>,
}

/// Size of the table of drops by port.
pub(super) fn port_drops(limits: &Limits) -> u32 {
    limits.listeners.saturating_mul(2)
}

/// The tables that survive, with their sizes.
fn tables(limits: &Limits) -> [(&'static str, u32); 6] {
    let drops = u32::try_from(layout::DROPS.len()).unwrap_or(u32::MAX);
    [
        ("flows", 1 << table::bits(limits)),
        ("flow_keys", 1 << table::bits(limits)),
        ("listener_traffic", limits.listeners),
        ("member_flows", limits.members),
        ("drops", drops),
        ("port_drops", port_drops(limits)),
    ]
}

/// Where the tables are.
pub(super) fn find(pins: Option<&Pins>, limits: &Limits) -> Result<Vec<Survivor>, MapsError> {
    let Some(pins) = pins else { return Ok(Vec::new()) };
    let survivor = |(name, size)| {
        let path = pins.table(name);
        if !path.exists() || held(&path, name)? == size {
            return Ok(Survivor { name, path, former: None });
        }
        Ok(Survivor { name, path: pins.next(name), former: Some(path) })
    };
    tables(limits).into_iter().map(survivor).collect()
}

/// How many entries a pinned table has.
fn held(path: &PathBuf, name: &'static str) -> Result<u32, MapsError> {
    let read = || Ok(MapData::from_pin(path)?.info()?.max_entries());
    read().map_err(of(name))
}

/// The seed of the flow table's hash: the one of the table that is there.
pub(super) fn seed(pins: Option<&Pins>) -> Result<table::Seed, MapsError> {
    if let Some(pins) = pins {
        pins.make_room()?;
    }
    let mut held = array::<table::Seed>(pins, "flow_seed", 1)?;
    let seed = held.get(&0, 0).map_err(of("flow_seed"))?;
    if seed != table::Seed::default() {
        return Ok(seed);
    }
    let seed = table::seed().map_err(MapsError::Seed)?;
    held.set(0, seed, 0).map_err(of("flow_seed"))?;
    Ok(seed)
}

/// Carries content over from tables of another size; `now` is the flow table's time.
pub(super) fn carry(survivors: &[Survivor], now: u32) -> Result<(), MapsError> {
    let resized = |name| {
        let survivor = survivors.iter().find(|survivor| survivor.name == name)?;
        Some((survivor.former.as_ref()?, &survivor.path))
    };
    if let (Some(flows), Some(keys)) = (resized("flows"), resized("flow_keys")) {
        carry_flows(flows, keys, now).map_err(of("flows"))?;
    }
    if let Some((from, to)) = resized("listener_traffic") {
        carry_counters::<layout::Traffic>(from, to).map_err(of("listener_traffic"))?;
    }
    // drops by port are many, and told in `drops` as well
    for name in ["member_flows", "drops"] {
        if let Some((from, to)) = resized(name) {
            carry_counters::<u64>(from, to).map_err(of(name))?;
        }
    }
    Ok(())
}

type Paths<'a> = (&'a PathBuf, &'a PathBuf);

/// Packets go on in the old table meanwhile: a flow that begins behind our back goes by the ring.
fn carry_flows(flows: Paths<'_>, keys: Paths<'_>, now: u32) -> Result<(), MapError> {
    let (former, former_keys) = (open::<table::Bucket>(flows.0)?, open::<table::Keys>(keys.0)?);
    let (mut next, mut next_keys) = (open::<table::Bucket>(flows.1)?, open::<table::Keys>(keys.1)?);
    let mut entries = Vec::new();
    for place in 0..former.len() {
        let bucket = former.get(&place, 0)?;
        if bucket != table::Bucket::default() {
            let keys = former_keys.get(&place, 0)?;
            entries.extend(table::entries(place as usize, former.len().ilog2(), &bucket, &keys));
        }
    }
    for (place, (bucket, keys)) in (0..).zip(table::fill(entries, next.len().ilog2(), now)) {
        if bucket != table::Bucket::default() {
            next_keys.set(place, keys, 0)?;
            next.set(place, bucket, 0)?;
        }
    }
    Ok(())
}

fn open<V: Pod>(path: &PathBuf) -> Result<Array<MapData, V>, MapError> {
    Array::try_from(Map::Array(MapData::from_pin(path)?))
}

fn carry_counters<T: Pod>(from: &PathBuf, to: &PathBuf) -> Result<(), MapError> {
    let from = PerCpuArray::<_, T>::try_from(Map::PerCpuArray(MapData::from_pin(from)?))?;
    let mut to = PerCpuArray::<_, T>::try_from(Map::PerCpuArray(MapData::from_pin(to)?))?;
    for index in 0..from.len().min(to.len()) {
        let values: PerCpuValues<T> = from.get(&index, 0)?;
        to.set(index, values, 0)?;
    }
    Ok(())
}

/// A table that only processes use, with the content of the one before.
pub(super) fn array<V: Pod>(
    pins: Option<&Pins>,
    name: &'static str,
    size: u32,
) -> Result<Array<MapData, V>, MapsError> {
    let Some(pins) = pins else { return Array::create(size, 0).map_err(of(name)) };
    let (path, next) = (pins.table(name), pins.next(name));
    if !path.exists() {
        Array::<_, V>::create(size, 0).map_err(of(name))?.pin(&path)?;
    }
    let former = open::<V>(&path).map_err(of(name))?;
    if former.len() == size {
        return Ok(former);
    }
    Array::<_, V>::create(size, 0).map_err(of(name))?.pin(&next)?;
    let carry = || {
        let mut array = open::<V>(&next)?;
        for index in 0..size.min(former.len()) {
            array.set(index, former.get(&index, 0)?, 0)?;
        }
        Ok(array)
    };
    carry().map_err(of(name))
}

/// What the tables say of places.
pub(super) fn memory(
    places: &Array<MapData, crate::memory::PlaceRecord>,
    ports: &Array<MapData, crate::memory::PortRecord>,
) -> Result<Memory, MapsError> {
    let mut memory = Memory::default();
    for slot in 0..places.len() {
        let record = places.get(&slot, 0).map_err(of("places"))?;
        // limits.members ends before u16 does
        memory.place(u16::try_from(slot).unwrap_or(u16::MAX), record);
    }
    for id in 0..ports.len() {
        memory.port(id, ports.get(&id, 0).map_err(of("ports"))?);
    }
    Ok(memory)
}
