//! Holds the state, the members' health and the data plane together.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use lb_driver::{
    model::{Check, MacAddr, Member, Owner, Pool, State, Version},
    vendor::xdp::{translate, wire},
};
use tokio::sync::watch;

use crate::{
    config::Mode,
    health::{Checker, Health, Target},
    layout,
    link::Interface,
    maps::{DataPlane, MapsError},
    memory::Identity,
    plan::{self, Book, Full, Holders, Tables, Verdict},
    probe::ProbeError,
    store::{Store, StoreError},
};

mod learn;
mod pair;

pub use learn::Learned;
use pair::Pair;

/// Why a state was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// A newer one is held.
    #[error(
        "version {sent} is older than {held}, which is held; a writer that begins anew takes a higher epoch"
    )]
    Stale {
        /// What was sent.
        sent: Version,
        /// What is held.
        held: Version,
    },
    /// One of the same version is held, and it is another one.
    #[error("version {0} is held with other content; every change takes a higher version")]
    Differs(Version),
    /// It is no state.
    #[error(transparent)]
    Invalid(#[from] translate::InvalidDocument),
    /// It does not fit.
    #[error(transparent)]
    Full(#[from] Full),
    /// It could not be kept; the one before is still in force.
    #[error("keeping the state: {0}")]
    Store(#[from] StoreError),
    /// The kernel refused a part of it; the same version may be sent again.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Members cannot be checked as it says; the same version may be sent again.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// A balancer at work.
pub struct Engine {
    inner: Mutex<Inner>,
    store: Store,
    marks: watch::Sender<u64>,
    pair: Pair,
}

struct Inner {
    state: Option<State>,
    /// Whether the maps hold what the state asks for.
    settled: bool,
    health: BTreeMap<Target, Health>,
    checker: Checker,
    book: Book,
    /// Who has which slot, once somebody asked.
    holders: Option<Arc<Holders>>,
    tables: Tables,
    plane: DataPlane,
    /// What neighbours say, where they are asked.
    learned: Option<Learned>,
    /// Where the data plane goes once it has a state, in place of one that has.
    waits: Option<(Interface, Mode)>,
    writes: u64,
    states: u64,
}

impl Engine {
    /// One with the state that `store` holds, in force when this returns.
    pub fn start(plane: DataPlane, checker: Checker, store: Store, book: Book) -> Result<Self, PutError> {
        Self::start_learned(plane, checker, store, book, None)
    }

    /// As [`start`](Self::start); members whose MAC address a state does not tell have the one that is learned.
    pub fn start_learned(
        plane: DataPlane,
        checker: Checker,
        store: Store,
        book: Book,
        learned: Option<Learned>,
    ) -> Result<Self, PutError> {
        let mut inner = Inner {
            state: None,
            settled: true,
            health: BTreeMap::new(),
            checker,
            book: book.recall(plane.memory()),
            holders: None,
            tables: Tables::recall(plane.memory()),
            plane,
            learned,
            waits: None,
            writes: 0,
            states: 0,
        };
        if let Some(state) = store.load()? {
            tracing::info!(version = %state.version, load_balancers = state.load_balancers.len(), "kept state");
            let (book, tables, health) = inner.plan(&state, true)?;
            inner.enforce(state, book, &tables, health)?;
        }
        // Marks of a process that is gone must not be taken for ours.
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let marks = watch::Sender::new(u64::try_from(begun.as_micros()).unwrap_or_default());
        Ok(Self { inner: Mutex::new(inner), store, marks, pair: Pair::default() })
    }

    /// Attaches the data plane; answers in which mode. Where one is at work already and there is no state yet, that one
    /// goes on until a state came: nothing is no state.
    pub fn attach(&self, interface: &Interface, mode: Mode) -> Result<Option<Mode>, MapsError> {
        let mut inner = self.lock();
        if inner.state.is_none() && inner.plane.inherits()? {
            inner.waits = Some((interface.clone(), mode));
            return Ok(None);
        }
        inner.plane.attach(interface, mode).map(Some)
    }

    /// Runs the data plane over one frame, without an interface: its verdict and what became of the frame.
    pub fn run(&self, frame: &[u8]) -> Result<(u32, Vec<u8>), MapsError> {
        self.lock().plane.run(frame)
    }

    /// Takes a state; answers whether anything changed.
    pub fn put(&self, document: &wire::Document) -> Result<wire::Applied, PutError> {
        let state = translate::state(document)?;
        let version = state.version;
        let mut inner = self.lock();
        if let Some(held) = &inner.state {
            if version < held.version {
                return Err(PutError::Stale { sent: version, held: held.version });
            }
            if version == held.version && state != *held {
                return Err(PutError::Differs(version));
            }
            if version == held.version && inner.settled {
                return Ok(wire::Applied { version, changed: false });
            }
        }
        let (book, tables, health) = inner.plan(&state, false)?;
        self.store.save(&state)?;
        inner.states += 1;
        let enforced = inner.enforce(state, book, &tables, health);
        self.mark();
        enforced?;
        tracing::info!(%version, "state in force");
        Ok(wire::Applied { version, changed: true })
    }

    /// The state that is held.
    pub fn state(&self) -> Option<wire::Document> {
        self.lock().state.as_ref().map(translate::document)
    }

    /// The version that is held.
    pub fn version(&self) -> Option<Version> {
        self.lock().state.as_ref().map(|state| state.version)
    }

    /// Whether packets may be sent here: a state is in force.
    pub fn alive(&self) -> bool {
        let inner = self.lock();
        inner.settled && inner.state.is_some()
    }

    /// Takes results of checks in.
    pub fn report(&self, reports: impl IntoIterator<Item = (Target, Health)>) -> Result<(), PutError> {
        let mut inner = self.lock();
        let (mut changed, mut news) = (false, false);
        for (target, health) in reports {
            if let Some(known) = inner.health.get_mut(&target).filter(|known| **known != health) {
                changed |= known.verdict().is_ok() != health.verdict().is_ok();
                news = true;
                *known = health;
            }
        }
        let mut enforced = Ok(());
        if let Some(state) = inner.state.clone().filter(|_| changed) {
            let (book, tables, health) = inner.plan(&state, false)?;
            enforced = inner.enforce(state, book, &tables, health);
        }
        if news {
            self.mark();
        }
        enforced
    }

    /// Waits until the status has another mark than `seen`, or for `longest`.
    pub async fn news(&self, seen: u64, longest: Duration) {
        let mut marks = self.marks.subscribe();
        // The sender lives as long as we do, so the only other outcome is the deadline.
        let _ = tokio::time::timeout(longest, marks.wait_for(|mark| *mark != seen)).await;
    }

    /// Says that the status has changed.
    fn mark(&self) {
        self.marks.send_modify(|mark| *mark += 1);
    }

    /// Writes to the maps, and states taken, since the start.
    pub fn activity(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.writes, inner.states)
    }

    /// Health and counters.
    pub fn status(&self) -> Result<wire::StatusDocument, MapsError> {
        // read before the status is, so that a change in between is told again
        let mark = *self.marks.borrow();
        let status = self.lock().status()?;
        Ok(wire::StatusDocument { mark: Some(mark), pair: self.pair_status(), ..status })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every step of a change leaves a state that can be continued from.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Plan = (Book, Tables, BTreeMap<Target, Health>);

impl Inner {
    fn plan(&self, state: &State, presumed: bool) -> Result<Plan, Full> {
        let state = &*self.completed(state);
        let took = if presumed { self.took(state) } else { BTreeSet::new() };
        let known = |target: Target| {
            let unknown = || Health { presumed: took.contains(&target), ..Health::default() };
            let health = self.health.get(&target).cloned().unwrap_or_else(unknown);
            (target, health)
        };
        let health = targets(state).into_iter().map(known).collect();
        let mut book = self.book.clone();
        let tables = book.tables(state, |pool, member| verdict(&health, pool, member))?;
        Ok((book, tables, health))
    }

    /// Targets of the members that took packets when the process before us stopped; all of them where no process was.
    fn took(&self, state: &State) -> BTreeSet<Target> {
        let memory = self.plane.memory();
        let alive = memory.alive();
        let took = |pool: &Owner, name: &str, member: &Member| {
            memory.places.is_empty() || alive.contains(&Identity::member(pool, name, member.address))
        };
        let members = state.pools.iter().flat_map(|(owner, pool)| {
            pool.members
                .iter()
                .filter(move |(name, member)| took(owner, name, member))
                .map(move |m| (pool, m.1))
        });
        members.flat_map(|(pool, member)| targets_of(pool, member)).collect()
    }

    fn enforce(
        &mut self,
        state: State,
        book: Book,
        tables: &Tables,
        health: BTreeMap<Target, Health>,
    ) -> Result<(), PutError> {
        self.settled = false;
        let ways = ways(&self.completed(&state));
        self.writes += self.checker.know(&ways)?;
        self.ask(&state);
        self.state = Some(state);
        self.book = book;
        self.holders = None;
        self.health = health;
        self.checker.watch(&self.health);
        for write in plan::writes(&self.tables, tables) {
            self.plane.write(&write)?;
            self.tables.perform(&write);
            self.writes += 1;
        }
        if let Some((interface, mode)) = &self.waits {
            let mode = self.plane.attach(interface, *mode)?;
            self.waits = None;
            tracing::info!(?mode, "attached in place of the data plane that was left");
        }
        self.settled = true;
        Ok(())
    }

    fn status(&self) -> Result<wire::StatusDocument, MapsError> {
        let (drops, unrecorded_flows) = (self.drops()?, self.plane.unrecorded()?);
        let Some(state) = &self.state else {
            return Ok(wire::StatusDocument { drops, unrecorded_flows, ..Default::default() });
        };
        let state = &*self.completed(state);
        let port_drops = self.plane.port_drops()?;
        let drops_of = |vip, endpoint| {
            let named = |(reason, count): &(usize, u64)| {
                Some(((*layout::DROPS.get(*reason)?).to_owned(), *count)).filter(|_| *count > 0)
            };
            let counts = port_drops.get(&(vip, endpoint));
            counts.map(|counts| counts.iter().filter_map(named).collect()).unwrap_or_default()
        };
        let mut pools = Vec::new();
        for (owner, pool) in &state.pools {
            let ring = self.book.ring(owner);
            let mut slots: BTreeMap<u16, u32> = BTreeMap::new();
            ring.iter().for_each(|slot| *slots.entry(*slot).or_default() += 1);
            let mut members = Vec::new();
            for (name, member) in &pool.members {
                let slot = self.book.slot(owner, name);
                members.push(wire::MemberStatus {
                    name: name.clone(),
                    address: member.address,
                    healthy: healthy(&self.health, pool, member),
                    reason: verdict(&self.health, pool, member).err().or_else(|| idle(member)),
                    slots: slot.and_then(|slot| slots.get(&slot)).copied().unwrap_or(0),
                    new_flows: slot.map_or(Ok(0), |slot| self.plane.new_flows(slot))?,
                });
            }
            let ring_size = u32::try_from(ring.len()).unwrap_or(u32::MAX);
            pools.push(wire::PoolStatus { owner: owner.clone(), ring_size, members });
        }
        let mut load_balancers = Vec::new();
        for (owner, balancer) in &state.load_balancers {
            let mut listeners = Vec::new();
            for endpoint in balancer.listeners.keys() {
                let counters = self.book.counters(owner, balancer.vip, *endpoint);
                let traffic = counters.map_or(Ok(Default::default()), |id| self.plane.traffic(id))?;
                listeners.push(wire::ListenerStatus {
                    protocol: endpoint.protocol,
                    port: endpoint.port,
                    packets: traffic.packets,
                    bytes: traffic.bytes,
                    drops: drops_of(balancer.vip, Some(*endpoint)),
                });
            }
            load_balancers.push(wire::LoadBalancerStatus {
                owner: owner.clone(),
                vip: balancer.vip,
                listeners,
                drops: drops_of(balancer.vip, None),
            });
        }
        let version = Some(state.version);
        Ok(wire::StatusDocument {
            mark: None,
            version,
            pair: None,
            pools,
            load_balancers,
            drops,
            unrecorded_flows,
        })
    }

    fn drops(&self) -> Result<BTreeMap<String, u64>, MapsError> {
        let counts = self.plane.drops()?;
        Ok(layout::DROPS.iter().map(ToString::to_string).zip(counts).collect())
    }
}

/// What is asked of a member.
fn targets_of(pool: &Pool, member: &Member) -> impl Iterator<Item = Target> {
    pool.checks.iter().map(|check| Target { address: member.address, check: check.clone() })
}

/// The members by way of which a VIP is checked.
fn ways(state: &State) -> BTreeMap<IpAddr, Option<MacAddr>> {
    let asked = |pool: &&Pool| pool.checks.iter().any(|check| matches!(check, Check::Vip { .. }));
    let pools = state.pools.values().filter(asked);
    pools.flat_map(|pool| pool.members.values().map(|member| (member.address, member.mac))).collect()
}

fn targets(state: &State) -> BTreeSet<Target> {
    state.pools.values().flat_map(|pool| pool.members.values().flat_map(|m| targets_of(pool, m))).collect()
}

/// What checks say together: not well if one says so, well if all do.
fn healthy(health: &BTreeMap<Target, Health>, pool: &Pool, member: &Member) -> Option<bool> {
    let said: Vec<_> = targets_of(pool, member).map(|target| health.get(&target)?.healthy).collect();
    match said.contains(&Some(false)) {
        true => Some(false),
        false => (!said.contains(&None)).then_some(true),
    }
}

/// Whether a member takes packets.
fn verdict(health: &BTreeMap<Target, Health>, pool: &Pool, member: &Member) -> Verdict {
    if member.mac.is_none() {
        return Err("its MAC address is not known".to_owned());
    }
    targets_of(pool, member)
        .try_for_each(|target| health.get(&target).map_or(Err("not checked yet".to_owned()), Health::verdict))
}

/// Why a member that takes packets takes no new flows.
fn idle(member: &Member) -> Option<String> {
    match member {
        Member { draining: true, .. } => Some("draining".to_owned()),
        Member { weight: 0, .. } => Some("weight 0".to_owned()),
        _ => None,
    }
}
