//! One of a pair: who is active, and which flows the other one knows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use lb_driver::vendor::xdp::wire;

use super::Engine;
use crate::{
    layout,
    maps::{FlowEntry, MapsError},
    plan::Holders,
    sync::{self, Batch, Told},
};

/// What one instance knows of the other.
#[derive(Debug, Default)]
pub(super) struct Pair {
    /// Whether there is another one.
    pub(super) is: AtomicBool,
    standby: AtomicBool,
    reached: AtomicBool,
    told: AtomicU64,
    heard: AtomicU64,
    unknown: AtomicU64,
}

impl Engine {
    /// Says that there is another instance.
    pub fn pair(&self) {
        self.pair.is.store(true, Relaxed);
    }

    /// Whether packets come to this instance: it answers neighbours that ask for VIPs on the link, and what it knows of
    /// flows is newer than what the other one says.
    pub fn set_active(&self, active: bool) -> Result<(), MapsError> {
        self.lock().plane.set_active(active)?;
        if self.pair.standby.swap(!active, Relaxed) == active {
            tracing::info!(active, "role");
            self.mark();
        }
        Ok(())
    }

    /// What the other instance shall know: flows that began since the last call, and all of them if asked. One on
    /// standby knows none but what it was told.
    pub fn tell(&self, all: bool) -> Vec<Batch> {
        let mut inner = self.lock();
        let began = inner.plane.news(sync::MOST);
        let all = if all && !self.pair.standby.load(Relaxed) { inner.plane.flows() } else { Vec::new() };
        if began.is_empty() && all.is_empty() {
            return Vec::new();
        }
        let holders = match &inner.holders {
            Some(holders) => holders.clone(),
            None => Arc::new(inner.book.holders()),
        };
        inner.holders = Some(holders.clone());
        drop(inner);
        let mut batches: Vec<Batch> =
            all.chunks(sync::MOST).map(|some| batch(true, some, &holders)).collect();
        batches.extend((!began.is_empty()).then(|| batch(false, &began, &holders)));
        batches
    }

    /// Takes in what the other instance says.
    pub fn hear(&self, batch: &Batch) -> Result<(), MapsError> {
        let mut inner = self.lock();
        let over = !batch.all || self.pair.standby.load(Relaxed);
        let places: Vec<_> = batch
            .members
            .iter()
            .map(|holder| inner.book.place(&holder.pool, &holder.name, holder.address))
            .collect();
        let (mut heard, mut unknown) = (0, 0);
        for told in &batch.flows {
            match places.get(told.member as usize).copied().flatten() {
                Some((slot, generation)) => {
                    inner.plane.enter(told.key, layout::flow(slot, generation, told.tag), over)?;
                    heard += 1;
                }
                None => unknown += 1,
            }
        }
        self.pair.heard.fetch_add(heard, Relaxed);
        self.pair.unknown.fetch_add(unknown, Relaxed);
        Ok(())
    }

    /// Counts flows that the other instance was told of.
    pub fn told(&self, flows: usize) {
        self.pair.told.fetch_add(u64::try_from(flows).unwrap_or_default(), Relaxed);
    }

    /// Whether the other instance is told.
    pub fn reaches(&self, reaches: bool) {
        self.pair.reached.store(reaches, Relaxed);
    }

    pub(super) fn pair_status(&self) -> Option<wire::PairStatus> {
        self.pair.is.load(Relaxed).then(|| wire::PairStatus {
            active: !self.pair.standby.load(Relaxed),
            peer_told: self.pair.reached.load(Relaxed),
            flows_told: self.pair.told.load(Relaxed),
            flows_heard: self.pair.heard.load(Relaxed),
            flows_unknown: self.pair.unknown.load(Relaxed),
        })
    }
}

/// Flows with their members' names; those of members that are gone are left out.
fn batch(all: bool, entries: &[FlowEntry], holders: &Holders) -> Batch {
    let mut batch = Batch { all, ..Batch::default() };
    let mut places = BTreeMap::new();
    for (key, value) in entries {
        let (slot, generation, tag) = layout::flow_owner(value);
        let holder = u16::try_from(slot).ok().and_then(|slot| holders.get(&slot));
        let Some((holder, _)) = holder.filter(|(_, current)| *current == generation) else { continue };
        let member = *places.entry(slot).or_insert_with(|| {
            batch.members.push(holder.clone());
            u32::try_from(batch.members.len() - 1).unwrap_or(u32::MAX)
        });
        batch.flows.push(Told { key: *key, member, tag });
    }
    batch
}
