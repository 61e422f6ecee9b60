//! The flow table, as those see it who read it, and as the other instance of a pair is told of it.

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunOptions},
};

use super::{DataPlane, HEAR, MapsError, of, take, xdp};
use crate::{
    layout,
    table::{self, Entry},
};

/// Bytes of news that wait to be read: 16,000 flows.
pub(super) const NEWS: u32 = 1 << 20;
/// `struct told`.
const TOLD: usize = 56;
/// `MOST_TOLD` of bpf/hear.h.
const MOST_TOLD: usize = 60;

/// A flow, and what is told of it.
pub type FlowEntry = (layout::FlowKey, layout::Flow);

/// The flow table, to be read while packets and states come.
pub struct FlowTable {
    buckets: Array<MapData, table::Bucket>,
    keys: Array<MapData, table::Keys>,
    seed: table::Seed,
}

impl FlowTable {
    pub(super) fn take(object: &mut Ebpf, seed: table::Seed) -> Result<Self, MapsError> {
        Ok(Self { buckets: take(object, "flows")?, keys: take(object, "flow_keys")?, seed })
    }

    /// Its entries, and the places of their buckets. Packets go on meanwhile: of a flow that begins or goes while they
    /// are read there may be none. Two system calls for four of them.
    pub fn entries(&self) -> Result<Vec<(u32, Entry)>, MapsError> {
        let mut entries = Vec::new();
        for place in 0..self.buckets.len() {
            entries.extend(self.at(place)?.into_iter().map(|entry| (place, entry)));
        }
        Ok(entries)
    }

    /// The entries of the bucket at a place.
    pub fn at(&self, place: u32) -> Result<Vec<Entry>, MapsError> {
        let bucket = self.buckets.get(&place, 0).map_err(of("flows"))?;
        if bucket == table::Bucket::default() {
            return Ok(Vec::new());
        }
        let keys = self.keys.get(&place, 0).map_err(of("flow_keys"))?;
        Ok(table::entries(place as usize, self.buckets.len().ilog2(), &bucket, &keys).collect())
    }

    /// Of its hash.
    pub fn seed(&self) -> table::Seed {
        self.seed
    }
}

impl DataPlane {
    /// Flows that began since the last call; at most `most`.
    pub fn news(&mut self, most: usize) -> Vec<FlowEntry> {
        let mut entries = Vec::new();
        while let Some(item) = if entries.len() < most { self.news.next() } else { None } {
            let (mut key, mut flow): FlowEntry = ([0; 40], [0; 16]);
            if item.len() >= TOLD {
                key.copy_from_slice(&item[..40]);
                flow.copy_from_slice(&item[40..TOLD]);
                entries.push((key, flow));
            }
        }
        entries
    }

    /// The flow table: whoever reads it is in nobody's way.
    pub fn table(&self) -> Arc<FlowTable> {
        self.flows.clone()
    }

    /// What time it is, as the flow table counts it.
    pub fn time(&self) -> Result<u32, MapsError> {
        time(&self.object)
    }

    /// Enters flows; where there is one of the same ports, only if `over`.
    pub fn enter(&mut self, flows: &[FlowEntry], over: bool) -> Result<(), MapsError> {
        for some in flows.chunks(MOST_TOLD) {
            let mut told = Vec::with_capacity(some.len() * TOLD);
            for (key, flow) in some {
                told.extend_from_slice(key);
                told.extend_from_slice(&flow[..12]);
                told.extend_from_slice(&u32::from(over).to_ne_bytes());
            }
            hear(&self.object, &told)?;
        }
        Ok(())
    }
}

/// See [`DataPlane::time`].
pub(super) fn time(object: &Ebpf) -> Result<u32, MapsError> {
    // no flow is as short as that
    hear(object, &[0; 14])
}

fn hear(object: &Ebpf, told: &[u8]) -> Result<u32, MapsError> {
    let options = TestRunOptions { data_in: Some(told), repeat: 1, ..Default::default() };
    Ok(xdp(object, HEAR)?.test_run(options)?.return_value)
}
