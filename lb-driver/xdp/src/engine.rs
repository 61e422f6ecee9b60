//! Holds the state, the members' health and the data plane together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use lb_driver::{
    model::{State, Version},
    vendor::xdp::{translate, wire},
};
use tokio::sync::watch;

use crate::{
    announce::OnLink,
    config::Mode,
    health::{Checker, Health, Target},
    link::Interface,
    maps::{DataPlane, MapsError},
    plan::{self, Book, Full, Holders, Tables},
    probe::ProbeError,
    store::{Store, StoreError},
};

mod flows;
mod learn;
mod members;
mod pair;
mod status;

pub use flows::FlowStatus;
pub use learn::Learned;
use members::{Signs, standing, targets, ways};
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
    /// Whether a state is in force. Whoever asks decides on a failover, so nobody waits for the lock to tell.
    alive: Arc<AtomicBool>,
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
    /// What neighbours are told.
    on_link: watch::Sender<OnLink>,
    /// Where the data plane goes once it has a state, in place of one that has.
    waits: Option<(Interface, Mode)>,
    /// As the engine's.
    alive: Arc<AtomicBool>,
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
            on_link: watch::Sender::new(OnLink { active: true, ..OnLink::default() }),
            waits: None,
            alive: Arc::default(),
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
        let alive = inner.alive.clone();
        Ok(Self { inner: Mutex::new(inner), store, marks, alive, pair: Pair::default() })
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
        self.alive.load(Relaxed)
    }

    /// Takes results of checks in.
    pub fn report(&self, reports: impl IntoIterator<Item = (Target, Health)>) -> Result<(), PutError> {
        let mut inner = self.lock();
        let (changed, news) = inner.hear(reports);
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

    /// Says that the status has changed, or may have: whoever waits for news gets it.
    pub fn mark(&self) {
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
        let signs = Signs::of(&health);
        let tables = book.tables(state, |pool, member| standing(&health, &signs, pool, member))?;
        Ok((book, tables, health))
    }

    fn enforce(
        &mut self,
        state: State,
        book: Book,
        tables: &Tables,
        health: BTreeMap<Target, Health>,
    ) -> Result<(), PutError> {
        self.settled = false;
        let enforced = self.settle(state, book, tables, health);
        self.settled = enforced.is_ok();
        self.alive.store(self.settled, Relaxed);
        enforced
    }

    fn settle(
        &mut self,
        state: State,
        book: Book,
        tables: &Tables,
        health: BTreeMap<Target, Health>,
    ) -> Result<(), PutError> {
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
        self.show();
        Ok(())
    }
}
