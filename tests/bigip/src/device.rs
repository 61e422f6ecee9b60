//! A unit, or two as a pair, and the way of a request through one of them.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::{
    auth::Tokens,
    config::Config,
    disk::{self, DiskError},
    fault::{Fault, Planned, strike},
    kinds::Kind,
    route::perform,
    transaction::{Command, Transactions},
};

/// The user that may log in.
pub const USER: &str = "ake";
/// The user's password unless [`Options`] say otherwise.
pub const PASSWORD: &str = "secret of the stand-in";

/// What a stand-in is set up with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// Seconds that a token lives unless it is told otherwise.
    pub token_seconds: u64,
    /// Folder of the disks: what is saved is kept there, and is there again at the next start.
    pub disks: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { user: USER.to_owned(), password: PASSWORD.to_owned(), token_seconds: 1200, disks: None }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// `/mgmt/...`, not decoded.
    pub path: String,
    /// Behind the question mark.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// What becomes of it.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An answer.
    Answer(StatusCode, String),
    /// An answer after a while.
    Late(std::time::Duration, StatusCode, String),
    /// The connection ends.
    Lost,
}

/// One unit of a pair, or the only one.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) active: bool,
    pub(crate) peer_lost: bool,
    pub(crate) config: Config,
    pub(crate) saved: Config,
    pub(crate) tokens: Tokens,
    pub(crate) transactions: Transactions,
    faults: Vec<Planned>,
    log: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) units: Vec<Unit>,
    pub(crate) down: BTreeSet<String>,
    pub(crate) other_form: bool,
    /// Transactions that are executed before nobody is answered any more.
    halt: Option<usize>,
}

/// A unit's handle: what it answers, and what a test does behind its back.
#[derive(Debug, Clone)]
pub struct Device {
    world: Arc<Mutex<World>>,
    unit: usize,
}

/// Two units in one device group; the first is active.
pub type Pair = (Device, Device);

impl Device {
    /// One unit on its own.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { world: world(options, 1), unit: 0 }
    }

    /// Two units that sync their configuration when told to.
    #[must_use]
    pub fn pair(options: Options) -> Pair {
        let world = world(options, 2);
        (Self { world: Arc::clone(&world), unit: 0 }, Self { world, unit: 1 })
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Unit) -> T) -> T {
        act(&mut self.lock().units[self.unit])
    }

    /// Lets `times` requests that begin with `METHOD /path` meet a fault, after `skip` of them.
    pub fn fault(&self, prefix: &str, skip: usize, times: usize, fault: Fault) {
        let planned = Planned { prefix: prefix.to_owned(), skip, times, fault };
        self.with(|unit| unit.faults.push(planned));
    }

    /// No fault is left.
    pub fn heal(&self) {
        self.with(|unit| unit.faults.clear());
        let world = &mut *self.lock();
        (world.halt, world.other_form) = (None, false);
    }

    /// As it was on the day it was installed.
    pub fn wipe(&self) {
        self.heal();
        self.with(|unit| {
            unit.config = Config::new();
            unit.saved = Config::new();
            unit.tokens.expire();
            unit.transactions.expire();
        });
        self.lock().down.clear();
    }

    /// So many transactions are executed, then nobody is answered.
    pub fn halt_after(&self, transactions: usize) {
        self.lock().halt = Some(transactions);
    }

    /// Lists come in another order, and what may be written in two ways is written in the other.
    pub fn tell_in_other_forms(&self) {
        self.lock().other_form = true;
    }

    /// Every token ends.
    pub fn expire_tokens(&self) {
        self.with(|unit| unit.tokens.expire());
    }

    /// Others take all tokens that are left.
    pub fn fill_tokens(&self) {
        self.with(|unit| unit.tokens.fill());
    }

    /// Live tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.with(|unit| unit.tokens.len())
    }

    /// Open transactions end as if their time were up.
    pub fn expire_transactions(&self) {
        self.with(|unit| unit.transactions.expire());
    }

    /// Transactions that are open.
    #[must_use]
    pub fn open_transactions(&self) -> usize {
        self.with(|unit| unit.transactions.open())
    }

    /// Requests since the last call, as `METHOD /path`.
    pub fn take_log(&self) -> Vec<String> {
        self.with(|unit| std::mem::take(&mut unit.log))
    }

    /// Takes in what its disk holds, if it has one; whether there was something.
    pub fn boot(&self) -> Result<bool, DiskError> {
        let world = &mut *self.lock();
        let Some(disk) = disk::of(&world.options, self.unit) else { return Ok(false) };
        let Some(config) = disk::load(&disk)? else { return Ok(false) };
        let unit = &mut world.units[self.unit];
        (unit.config, unit.saved) = (config.clone(), config);
        Ok(true)
    }

    /// Whether a reboot would lose nothing.
    #[must_use]
    pub fn saved(&self) -> bool {
        self.with(|unit| unit.saved.objects == unit.config.objects)
    }

    /// Comes back from its disk: what was not saved is gone, tokens and transactions too.
    pub fn reboot(&self) {
        self.with(|unit| {
            unit.config = unit.saved.clone();
            unit.tokens.expire();
            unit.transactions.expire();
        });
    }

    /// The other unit becomes active.
    pub fn fail_over(&self) {
        for unit in &mut self.lock().units {
            unit.active = !unit.active;
        }
    }

    /// Whether the units of a pair see each other.
    pub fn connect(&self, connected: bool) {
        self.with(|unit| unit.peer_lost = !connected);
    }

    /// What monitors say of an address from now on.
    pub fn set_healthy(&self, address: &str, healthy: bool) {
        let down = &mut self.lock().down;
        if healthy {
            down.remove(address);
        } else {
            down.insert(address.to_owned());
        }
    }

    /// What somebody else does: `method` on a path below /mgmt/tm/.
    pub fn elsewhere(&self, method: &str, path: &str, body: Value) -> Result<(), String> {
        let command = Command { method: method.to_owned(), path: path.to_owned(), body };
        self.with(|unit| perform(&mut unit.config, &command)).map_err(|refusal| refusal.message)
    }

    /// Paths of a collection's objects, without those that every device has.
    #[must_use]
    pub fn paths(&self, collection: &str) -> Vec<String> {
        let Some(kind) = Kind::find(collection) else { return Vec::new() };
        self.with(|unit| {
            unit.config
                .of(kind.path)
                .map(|(path, _)| path.to_owned())
                .filter(|p| !p.starts_with("/Common/") && p != "Common")
                .collect()
        })
    }

    /// An object as it is kept.
    #[must_use]
    pub fn object(&self, collection: &str, path: &str) -> Option<Value> {
        let kind = Kind::find(collection)?;
        self.with(|unit| unit.config.get(kind, path).map(|object| Value::Object(object.fields.clone())))
    }

    /// Everything that is configured, to compare by.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        self.with(|unit| {
            let objects = unit.config.objects.iter();
            objects.map(|((kind, path), object)| (format!("{kind} {path}"), json!(object.fields))).collect()
        })
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Reply {
        let world = &mut *self.lock();
        let line = format!("{} {}", request.method, request.path);
        let unit = &mut world.units[self.unit];
        unit.log.push(line.clone());
        match &mut world.halt {
            Some(0) => return Reply::Lost,
            Some(left) if line.starts_with("PATCH /mgmt/tm/transaction") => *left -= 1,
            _ => {}
        }
        match strike(&mut unit.faults, &line) {
            Some(Fault::Refuse { status, body }) => {
                Reply::Answer(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), body)
            }
            Some(Fault::Lost) => Reply::Lost,
            Some(Fault::LostAfter) => {
                world.route(self.unit, request);
                Reply::Lost
            }
            Some(Fault::Late(delay)) => {
                let (status, body) = world.route(self.unit, request);
                Reply::Late(delay, status, body.to_string())
            }
            None => {
                let (status, body) = world.route(self.unit, request);
                Reply::Answer(status, if body.is_null() { String::new() } else { body.to_string() })
            }
        }
    }
}

fn world(options: Options, units: usize) -> Arc<Mutex<World>> {
    let unit = |index: usize| Unit {
        name: format!("bigip{}.example.com", index + 1),
        active: index == 0,
        peer_lost: false,
        config: Config::new(),
        saved: Config::new(),
        tokens: Tokens::new(options.token_seconds),
        transactions: Transactions::default(),
        faults: Vec::new(),
        log: Vec::new(),
    };
    let units = (0..units).map(unit).collect();
    Arc::new(Mutex::new(World { options, units, down: BTreeSet::new(), other_form: false, halt: None }))
}
