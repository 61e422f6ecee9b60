//! One of a pair: who is active, and which flows the other one knows.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use lb_driver::vendor::xdp::wire;

use tokio::sync::watch;

use super::{Engine, Inner};
use crate::{
    announce::OnLink,
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
    /// Whether the other one has yet to hear that this one went on standby.
    yields: AtomicBool,
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
        let mut inner = self.lock();
        inner.plane.set_active(active)?;
        inner.on_link.send_if_modified(|known| std::mem::replace(&mut known.active, active) != active);
        drop(inner);
        if self.pair.standby.swap(!active, Relaxed) == active {
            tracing::info!(active, "role");
            self.pair.yields.store(!active, Relaxed);
            self.mark();
        }
        Ok(())
    }

    /// Whether the other instance has to be told that this one is on standby.
    pub fn yields(&self) -> bool {
        self.pair.yields.load(Relaxed)
    }

    /// The other instance was told that this one is on standby.
    pub fn yielded(&self) {
        self.pair.yields.store(false, Relaxed);
    }

    /// VIPs on the link, and whether they are this instance's.
    pub fn on_link(&self) -> watch::Receiver<OnLink> {
        self.lock().on_link.subscribe()
    }

    /// Flows that began since the last call, for the other instance; none if none did.
    pub fn began(&self) -> Option<Batch> {
        let mut inner = self.lock();
        let began = inner.plane.news(sync::MOST);
        (!began.is_empty()).then(|| batch(false, &began, &inner.holders()))
    }

    /// All flows, for the other instance. One on standby knows none but what it was told.
    pub fn all(&self) -> Result<Vec<Batch>, MapsError> {
        if self.pair.standby.load(Relaxed) {
            return Ok(Vec::new());
        }
        let (flows, holders) = self.remembered()?;
        Ok(flows.chunks(sync::MOST).map(|some| batch(true, some, &holders)).collect())
    }

    /// Takes in what the other instance says.
    pub fn hear(&self, batch: &Batch) -> Result<(), MapsError> {
        let mut inner = self.lock();
        if batch.yields {
            // Both may have been active for a while, and the other one the last to tell neighbours.
            inner.on_link.send_modify(|known| known.again = known.again.wrapping_add(1));
        }
        let over = !batch.all || self.pair.standby.load(Relaxed);
        let places: Vec<_> = batch
            .members
            .iter()
            .map(|holder| inner.book.place(&holder.pool, &holder.name, holder.address))
            .collect();
        let flows: Vec<FlowEntry> = batch
            .flows
            .iter()
            .filter_map(|told| {
                let (slot, generation) = places.get(told.member as usize).copied().flatten()?;
                Some((told.key, layout::flow(slot, generation, told.tag)))
            })
            .collect();
        inner.plane.enter(&flows, over)?;
        let count = |flows: usize| u64::try_from(flows).unwrap_or_default();
        self.pair.heard.fetch_add(count(flows.len()), Relaxed);
        self.pair.unknown.fetch_add(count(batch.flows.len() - flows.len()), Relaxed);
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

impl Inner {
    /// Tells of VIPs that came to the link, or went.
    pub(super) fn show(&self) {
        let vips = self.tables.vips.iter().filter(|(_, on_link)| **on_link).map(|(vip, _)| *vip).collect();
        self.on_link.send_if_modified(|known| {
            let other = known.vips != vips;
            known.vips = vips;
            other
        });
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
