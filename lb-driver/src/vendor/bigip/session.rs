//! Reads, writes and saves a BIG-IP, or a pair of them of which one is active.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Certificate, Client};
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    derive::{self, Style, derive},
    objects::{Kind, MARK, Object, Objects},
    plan::{Command, plan},
    recognise, status, transact,
    unit::{Failure, Request, Unit},
    wire,
};
use crate::{
    diff::Change,
    driver::{Answer, Capabilities, Driver, DriverError, Status},
    model::State,
};

/// How a BIG-IP is reached, and what is the operator's to choose.
#[derive(Clone)]
pub struct Settings {
    /// Management addresses, `https://host[:port]`: one, or both of a pair.
    pub urls: Vec<String>,
    /// User with the role Administrator, or Resource Administrator, on all partitions.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Certificates that the devices' own may be signed by, as PEM.
    pub ca: Vec<u8>,
    /// Before a project's id in the name of its partition; ends with a hyphen.
    pub partition_prefix: String,
    /// Which unit of a pair has the VIPs, by full path.
    pub traffic_group: String,
    /// The device group that a pair syncs; none where it syncs by itself.
    pub sync_group: Option<String>,
    /// Deadline of one request.
    pub timeout: Duration,
    /// How long an answer that says so is asked for again.
    pub patience: Duration,
}

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

/// What was read of a unit.
#[derive(Clone)]
struct Seen {
    unit: usize,
    objects: Arc<Objects>,
    /// By name, whether they are ours.
    partitions: BTreeMap<String, bool>,
}

/// Objects on a page: fewer where what stands below them comes along, which is slow.
const PAGE: usize = 100;
/// Fewest that are asked for at once.
const SMALLEST_PAGE: usize = 10;
/// Commands in one transaction: some seconds' worth, against the 120 that it may stay open.
const CHUNK: usize = 500;
/// How often a list that changed meanwhile is read anew.
const TRIES: usize = 3;
/// Wait between two looks at something that goes on.
const LOOK: Duration = Duration::from_millis(500);

impl BigIpDriver {
    /// Takes the settings in; the device is not asked yet.
    pub fn new(settings: &Settings) -> Result<Self, DriverError> {
        let setting = |field, problem: String| DriverError::Settings { field, problem };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let prefix = &settings.partition_prefix;
        if !prefix.ends_with('-')
            || prefix.len() > 20
            || !prefix.starts_with(|c: char| c.is_ascii_alphabetic())
            || !prefix.chars().all(fits)
        {
            let problem =
                format!("{prefix:?}: expected a letter, then up to 18 of A-Z a-z 0-9 _ -, then a hyphen");
            return Err(setting("partition_prefix", problem));
        }
        if settings.urls.is_empty() {
            return Err(setting("url", "none: expected one, or both of a pair".to_owned()));
        }
        let authorities = Certificate::from_pem_bundle(&settings.ca)
            .map_err(|e| setting("ca", format!("expected PEM: {e}")))?;
        if authorities.is_empty() {
            return Err(setting("ca", "expected at least one certificate as PEM".to_owned()));
        }
        let client = authorities
            .into_iter()
            .fold(Client::builder(), reqwest::ClientBuilder::add_root_certificate)
            .tls_built_in_root_certs(false)
            .use_rustls_tls()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .build()
            .map_err(|e| setting("ca", e.to_string()))?;
        let mut units = Vec::new();
        for url in &settings.urls {
            let parsed = reqwest::Url::parse(url).map_err(|e| setting("url", format!("{url:?}: {e}")))?;
            if parsed.scheme() != "https" {
                return Err(setting("url", format!("{url:?}: expected https://host:port")));
            }
            let Settings { username, password, patience, .. } = settings;
            units.push(Unit::new(url, client.clone(), username, password, *patience));
        }
        Ok(Self {
            units,
            active: AtomicUsize::new(0),
            style: Style { prefix: prefix.clone(), traffic_group: settings.traffic_group.clone() },
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
            match unit.read::<wire::Page>(Request::get("tm/cm/device")).await {
                Ok(page) => {
                    let devices = page.items.into_iter().filter_map(|item| serde_json::from_value(item).ok());
                    let own = devices.into_iter().find(|device: &wire::Unit| device.self_device == "true");
                    let state = own.map_or_else(|| "nothing".to_owned(), |own| own.failover_state);
                    if state == "active" {
                        self.active.store(index, Ordering::Relaxed);
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

    /// A whole collection, page by page; a list that changed meanwhile is read anew.
    async fn list(&self, unit: &Unit, path: &str, expand: bool) -> Result<Vec<serde_json::Value>, Failure> {
        let (mut size, mut tries) = (PAGE, 0);
        'anew: loop {
            let mut items = Vec::new();
            loop {
                let skip = items.len();
                let more = if expand { "&expandSubcollections=true" } else { "" };
                let path = format!("tm/{path}?$top={size}&$skip={skip}{more}");
                let repeatable = !expand || size <= SMALLEST_PAGE;
                let page = match unit.read::<wire::Page>(Request { repeatable, ..Request::get(&path) }).await
                {
                    // what takes too long at once may do in smaller parts
                    Err(Failure::Lost(_) | Failure::Doubtful(_)) if !repeatable => {
                        size = (size / 2).max(SMALLEST_PAGE);
                        continue;
                    }
                    page => page?,
                };
                let (count, total) = (page.items.len(), page.total_items);
                items.extend(page.items);
                if page.next_link.is_some() && count > 0 {
                    continue;
                }
                match total {
                    Some(total) if total != items.len() && tries < TRIES => {
                        tries += 1;
                        continue 'anew;
                    }
                    // an incomplete list would look as if something had gone
                    Some(total) if total != items.len() => {
                        let got = items.len();
                        return Err(Failure::Busy(format!(
                            "{path}: {got} objects of {total}, it keeps changing"
                        )));
                    }
                    _ => return Ok(items),
                }
            }
        }
    }

    async fn look(&self, index: usize) -> Result<Seen, DriverError> {
        let unit = &self.units[index];
        let error = |failure| unit.error(failure);
        let listed = self.list(unit, "auth/partition", false).await.map_err(error)?;
        let partitions: BTreeMap<String, bool> = listed
            .iter()
            .filter_map(|item| {
                let (name, said) = (item["name"].as_str()?, item["description"].as_str().unwrap_or_default());
                Some((name.to_owned(), said == self.partition_mark(name)))
            })
            .collect();
        let mut objects = Objects::new();
        if partitions.values().any(|ours| *ours) {
            for kind in Kind::ALL {
                let items =
                    self.list(unit, kind.collection(), kind.has_subcollections()).await.map_err(error)?;
                let ours = items.into_iter().filter_map(|item| Object::read(kind, item));
                objects.extend(ours.filter(|(key, _)| partitions.get(&key.partition) == Some(&true)));
            }
        }
        Ok(Seen { unit: index, objects: Arc::new(objects), partitions })
    }

    /// What the description of a partition says when it is ours.
    fn partition_mark(&self, name: &str) -> String {
        match name.strip_prefix(&self.style.prefix) {
            Some(project) => format!("{MARK} project {project}"),
            None => format!("{MARK} state"),
        }
    }

    /// Partitions are no part of transactions.
    async fn make_partitions(&self, unit: &Unit, wanted: &Objects, seen: &Seen) -> Result<(), DriverError> {
        let needed: BTreeSet<&str> = wanted.keys().map(|key| key.partition.as_str()).collect();
        for name in needed {
            let mark = self.partition_mark(name);
            match seen.partitions.get(name) {
                Some(true) => continue,
                Some(false) => {
                    return Err(unit.error(Failure::Refused(format!(
                        "partition {name}: it is there and not ours: expected the description {mark:?}"
                    ))));
                }
                None => {}
            }
            let body = json!({"name": name, "description": mark});
            match unit.ask(Request::post("tm/auth/partition", &body)).await {
                Ok(_) => {}
                // made, but not told in time: the next look says whose it is
                Err(failure @ (Failure::Lost(_) | Failure::Doubtful(_))) => return Err(unit.error(failure)),
                Err(failure) => return Err(unit.error(failure)),
            }
        }
        Ok(())
    }

    /// Partitions in which nothing of ours is left. The device keeps those in which others have something.
    async fn remove_partitions(&self, unit: &Unit, wanted: &Objects, seen: &Seen) {
        let needed: BTreeSet<&str> = wanted.keys().map(|key| key.partition.as_str()).collect();
        let ours = seen.partitions.iter().filter(|(_, ours)| **ours).map(|(name, _)| name);
        for name in ours.filter(|name| !needed.contains(name.as_str()) && **name != self.style.home()) {
            let path = format!("tm/auth/partition/{name}");
            let request = Request { method: "DELETE", ..Request::get(&path) };
            if let Err(failure) = unit.ask(request).await {
                tracing::info!(device = %unit.url, partition = %name, ?failure, "a partition stays");
            }
        }
    }

    /// Saves, and brings the other unit of a pair to the same.
    async fn settle(&self, unit: &Unit) -> Result<(), Failure> {
        let body = json!({"command": "save"});
        unit.ask(Request { repeatable: true, ..Request::post("tm/sys/config", &body) }).await?;
        if let Some(group) = &self.sync_group {
            let body = json!({"command": "run", "utilCmdArgs": format!("config-sync to-group {group}")});
            let mut told = false;
            for _ in 0..TRIES * 10 {
                let status = status::sync(unit).await?;
                if matches!(status.as_str(), "In Sync" | "Standalone") {
                    break;
                }
                if !told {
                    unit.ask(Request { repeatable: true, ..Request::post("tm/cm", &body) }).await?;
                    told = true;
                } else {
                    tokio::time::sleep(LOOK).await;
                }
            }
            let status = status::sync(unit).await?;
            if !matches!(status.as_str(), "In Sync" | "Standalone") {
                return Err(Failure::Busy(format!("config-sync to {group}: {status}")));
            }
        }
        self.unsettled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// What is written works already; that it is not saved or synced is told, and tried again with the next look.
    async fn try_to_settle(&self, unit: &Unit) {
        if let Err(failure) = self.settle(unit).await {
            tracing::warn!(device = %unit.url, ?failure, "what was written is not saved or not synced yet");
        }
    }

    async fn write(&self, wanted: &State) -> Result<(), DriverError> {
        let index = self.unit().await?;
        let unit = &self.units[index];
        derive::check(wanted, &self.style)
            .map_err(|unfit| unit.error(Failure::Refused(unfit.to_string())))?;
        let seen = match self.seen.lock().await.take() {
            Some(seen) if seen.unit == index => seen,
            _ => self.look(index).await?,
        };
        let held = recognise::version(&seen.objects, &self.style);
        if held > wanted.version {
            return Err(DriverError::Stale { device: unit.url.clone(), wanted: wanted.version, held });
        }
        let objects = derive(wanted, &self.style).objects;
        let commands = plan(&objects, &seen.objects);
        self.make_partitions(unit, &objects, &seen).await?;
        if !commands.is_empty() {
            self.unsettled.store(true, Ordering::Relaxed);
        }
        let guard =
            derive::version(wanted.version, &self.style).map(|(key, group)| Command::Change(key, group));
        for (number, chunk) in commands.chunks(CHUNK).enumerate() {
            let mut chunk = chunk.to_vec();
            // the first one took the version; the others fail where another writer took it since
            if number > 0
                && let Some(guard) = &guard
            {
                chunk.insert(0, guard.clone());
            }
            transact::transact(unit, &chunk).await?;
        }
        self.remove_partitions(unit, &objects, &seen).await;
        self.try_to_settle(unit).await;
        Ok(())
    }
}

impl Driver for BigIpDriver {
    fn capabilities(&self) -> Capabilities {
        // members are found by ARP and neighbour discovery, and their health is monitors' own
        Capabilities { macs: false, ..Capabilities::ALL }
    }

    fn read(&self) -> Answer<'_, State> {
        Box::pin(async move {
            let index = self.unit().await?;
            if self.unsettled.load(Ordering::Relaxed) {
                self.try_to_settle(&self.units[index]).await;
            }
            let seen = self.look(index).await?;
            let state = recognise::state(&seen.objects, &self.style);
            *self.seen.lock().await = Some(seen);
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
            let pools = self.list(unit, Kind::Pool.collection(), true).await.map_err(|f| unit.error(f))?;
            let seen = self.seen.lock().await.as_ref().map(|seen| Arc::clone(&seen.objects));
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
