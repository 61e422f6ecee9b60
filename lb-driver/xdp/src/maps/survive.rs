//! Tables that a process takes over from the one before it.

use std::path::PathBuf;

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
};

use super::{MapsError, Pins, of};
use crate::{config::Limits, layout, memory::Memory};

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
fn tables(limits: &Limits) -> [(&'static str, u32); 5] {
    let drops = u32::try_from(layout::DROPS.len()).unwrap_or(u32::MAX);
    [
        ("flows", limits.flows),
        ("listener_traffic", limits.listeners),
        ("member_flows", limits.members),
        ("drops", drops),
        ("port_drops", port_drops(limits)),
    ]
}

/// Where the tables are.
pub(super) fn find(pins: Option<&Pins>, limits: &Limits) -> Result<Vec<Survivor>, MapsError> {
    let Some(pins) = pins else { return Ok(Vec::new()) };
    pins.make_room()?;
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

impl Survivor {
    /// Carries the content over from a table of another size.
    pub(super) fn carry(self) -> Result<(), MapsError> {
        let Some(former) = self.former else { return Ok(()) };
        let carry = || match self.name {
            // many, and told in `drops` as well
            "port_drops" => Ok(()),
            "flows" => carry_flows(&former, &self.path),
            "listener_traffic" => carry_counters::<layout::Traffic>(&former, &self.path),
            _ => carry_counters::<u64>(&former, &self.path),
        };
        carry().map_err(of(self.name))
    }
}

fn carry_flows(from: &PathBuf, to: &PathBuf) -> Result<(), MapError> {
    type Flows = HashMap<MapData, layout::FlowKey, layout::Flow>;
    let from = Flows::try_from(Map::LruHashMap(MapData::from_pin(from)?))?;
    let mut to = Flows::try_from(Map::LruHashMap(MapData::from_pin(to)?))?;
    // Packets go on meanwhile: what goes while it is read is gone.
    for (flow, value) in from.iter().flatten() {
        to.insert(flow, value, 0)?;
    }
    Ok(())
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
    let open = |path: &PathBuf| Array::<_, V>::try_from(Map::Array(MapData::from_pin(path)?));
    let (path, next) = (pins.table(name), pins.next(name));
    if !path.exists() {
        Array::<_, V>::create(size, 0).map_err(of(name))?.pin(&path)?;
    }
    let former = open(&path).map_err(of(name))?;
    if former.len() == size {
        return Ok(former);
    }
    Array::<_, V>::create(size, 0).map_err(of(name))?.pin(&next)?;
    let carry = || {
        let mut array = open(&next)?;
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
