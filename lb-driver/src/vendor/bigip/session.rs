//! Reads, writes and saves a BIG-IP, or a pair of them of which one is active.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::{
    Settings,
    derive::Style,
    look::{self, Seen},
    objects::Kind,
    recognise, replies, status,
    unit::{Failure, Request, Unit},
    write,
};
use crate::{
    diff::Change,
    driver::{Answer, Capabilities, Driver, DriverError, Obstacles, Status},
    model::State,
};

/// The driver of one BIG-IP or of a pair.
pub struct BigIpDriver {
    units: Vec<Unit>,
    /// The unit that was active last.
    active: AtomicUsize,
    style: Style,
    sync_group: Option<String>,
    /// What was read last, until it is written to.
    seen: Mutex<Option<Seen>>,
    /// Something was written that is not saved, or not synced.
    unsettled: AtomicBool,
    traffic: status::Traffics,
}

/// How often a pair is asked whether it is in sync.
const LOOKS: usize = 30;
/// Wait between two looks at something that goes on.
const LOOK: Duration = Duration::from_millis(500);

impl BigIpDriver {
    /// Takes the settings in; the device is not asked yet.
    pub fn new(settings: &Settings) -> Result<Self, DriverError> {
        Ok(Self {
            style: settings.style()?,
            units: settings.units()?,
            active: AtomicUsize::new(0),
            sync_group: settings.sync_group.clone(),
            seen: Mutex::default(),
            unsettled: AtomicBool::new(false),
            traffic: status::Traffics::default(),
        })
    }

    /// The unit that has the traffic: what is written to another is lost with the next sync.
    async fn unit(&self) -> Result<usize, DriverError> {
        let first = self.active.load(Ordering::Relaxed);
        let mut why = Vec::new();
        let mut last = None;
        for index in (0..self.units.len()).map(|step| (first + step) % self.units.len()) {
            let unit = &self.units[index];
            match unit.read::<replies::Page>(Request::get("tm/cm/device")).await {
                Ok(page) => {
                    let devices = page.items.into_iter().filter_map(|item| serde_json::from_value(item).ok());
                    let own = devices.into_iter().find(|device: &replies::Unit| device.self_device == "true");
                    let state = own.map_or_else(|| "nothing".to_owned(), |own| own.failover_state);
                    if state == "active" {
                        if self.active.swap(index, Ordering::Relaxed) != index {
                            tracing::info!(device = %unit.url, "the other unit of the pair is active now");
                        }
                        return Ok(index);
                    }
                    why.push(format!("{} is {state}", unit.url));
                }
                Err(failure) => {
                    let error = unit.error(failure);
                    why.push(error.to_string());
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if self.units.len() == 1 => Err(error),
            _ => Err(DriverError::Failed {
                device: self.units[first].url.clone(),
                reason: format!("no unit is active: {}", why.join("; ")),
                retry_after: None,
            }),
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, index: usize) -> Result<Seen, DriverError> {
        let unit = &self.units[index];
        look::look(index, unit, &self.style).await.map_err(|failure| unit.error(failure))
    }

    /// Saves, brings the other unit of a pair to the same, and saves there: it is the one that is active next.
    async fn settle(&self, index: usize) -> Result<(), Failure> {
        let unit = &self.units[index];
        save(unit).await?;
        if self.units.len() > 1 || self.sync_group.is_some() {
            self.sync(unit).await?;
        }
        for (_, other) in self.units.iter().enumerate().filter(|(other, _)| *other != index) {
            save(other).await?;
        }
        self.unsettled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the units are in sync; where they do not sync by themselves, they are told to.
    async fn sync(&self, unit: &Unit) -> Result<(), Failure> {
        let mut group = self.sync_group.as_deref();
        let mut status = String::new();
        for _ in 0..LOOKS {
            status = status::sync(unit).await?;
            match (status.as_str(), group.take()) {
                ("In Sync" | "Standalone", _) => return Ok(()),
                // nothing can be brought to a unit that is away; it is tried again with the next look
                ("Disconnected", _) => break,
                (_, Some(group)) => {
                    let body =
                        json!({"command": "run", "utilCmdArgs": format!("config-sync to-group {group}")});
                    unit.ask(Request { repeatable: true, ..Request::post("tm/cm", &body) }).await?;
                }
                (_, None) => tokio::time::sleep(LOOK).await,
            }
        }
        Err(Failure::Busy(format!("the pair is not in sync: {status}")))
    }

    /// What is written works already; that it is not saved or synced is told, and tried again with the next look.
    async fn try_to_settle(&self, index: usize) {
        if let Err(failure) = self.settle(index).await {
            tracing::warn!(device = %self.units[index].url, ?failure, "what was written is not saved or not synced yet");
        }
    }

    async fn write(&self, wanted: &State) -> Result<(), DriverError> {
        let index = self.unit().await?;
        let unit = &self.units[index];
        let remembered = self.seen().take().filter(|seen| seen.unit == index);
        let seen = match remembered {
            Some(seen) => seen,
            None => self.look(index).await?,
        };
        let held = recognise::version(&seen.objects, &self.style);
        if held > wanted.version {
            return Err(DriverError::Stale { device: unit.url.clone(), wanted: wanted.version, held });
        }
        if let Some(reason) = seen.foreign.obstacles(wanted, &self.style, &seen.objects).first() {
            return Err(unit.error(Failure::Refused(reason.to_owned())));
        }
        self.unsettled.store(true, Ordering::Relaxed);
        let written = write::write(unit, wanted, &seen, &self.style).await;
        if matches!(written, Ok(()) | Err(DriverError::RefusedInPart { .. })) {
            self.try_to_settle(index).await;
        }
        written
    }
}

async fn save(unit: &Unit) -> Result<(), Failure> {
    let body = json!({"command": "save"});
    unit.ask(Request { repeatable: true, ..Request::post("tm/sys/config", &body) }).await.map(|_| ())
}

impl Driver for BigIpDriver {
    fn capabilities(&self) -> Capabilities {
        // members are found by ARP and neighbour discovery, and their health is monitors' own
        Capabilities { macs: false, ..Capabilities::ALL }
    }

    fn obstacles(&self, wanted: &State) -> Obstacles {
        match &*self.seen() {
            Some(seen) => seen.foreign.obstacles(wanted, &self.style, &seen.objects),
            None => Obstacles::default(),
        }
    }

    fn read(&self) -> Answer<'_, State> {
        Box::pin(async move {
            let index = self.unit().await?;
            if self.unsettled.load(Ordering::Relaxed) {
                self.try_to_settle(index).await;
            }
            let seen = self.look(index).await?;
            let state = recognise::state(&seen.objects, &seen.foreign.lent, &self.style);
            *self.seen() = Some(seen);
            Ok(state)
        })
    }

    fn apply<'a>(&'a self, wanted: &'a State, _changes: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(self.write(wanted))
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async move {
            let index = self.unit().await?;
            let unit = &self.units[index];
            let pools = look::list(unit, Kind::Pool.collection(), true).await.map_err(|f| unit.error(f))?;
            let seen = self.seen().as_ref().map(|seen| Arc::clone(&seen.objects));
            let load_balancers = self.traffic.read(unit, seen).await.map_err(|f| unit.error(f))?;
            Ok(status::status(pools, load_balancers, &self.style))
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            for unit in &self.units {
                unit.log_out().await;
            }
            Ok(())
        })
    }
}
