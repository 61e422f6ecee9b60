//! What the two instances of a pair tell one another of flows.
//!
//! `POST /v1/flows`: one line of JSON, then 48 bytes for each flow: its key as the kernel has it, then as little-endian
//! 32-bit words the place of its member in that line, and its mark: the tag of the packet that opened it, whether it was
//! seen again, and its age. Members are named, so it does not matter which slots they have at either end.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use lb_driver::model::Owner;
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{config::Pair, engine::Engine, layout::FlowKey, maps::MapsError};

/// Path of the request.
pub const FLOWS: &str = "/v1/flows";
/// Flows in one request.
pub const MOST: usize = 16_384;
const RECORD: usize = 48;
/// From one look at what began to the next.
const LOOK: Duration = Duration::from_millis(50);
/// From one telling of all flows to the next.
const ALL: Duration = Duration::from_secs(60);
/// From one try to reach the other instance to the next.
const RETRY: Duration = Duration::from_secs(1);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A member, as both instances know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Its pool.
    pub pool: Owner,
    /// Its name in the pool.
    pub name: String,
    /// Its address: another one is another machine.
    pub address: IpAddr,
}

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Addresses, ports and protocol.
    pub key: FlowKey,
    /// Place of its member in [`Batch::members`].
    pub member: u32,
    /// The tag of the packet that opened it; at bit 8, whether another one came since; at bit 16, how long none came.
    pub tag: u32,
}

/// Flows of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whether they are some of all flows, which may be older than what the other one knows; else they began just now.
    pub all: bool,
    /// Whether whoever tells them has just gone on standby: neighbours may still send to it what is for VIPs on the link.
    pub yields: bool,
    /// Their members.
    pub members: Vec<Holder>,
    /// The flows.
    pub flows: Vec<Told>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    all: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    yields: bool,
    members: Vec<Holder>,
}

/// What is no batch of flows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// The first line.
    #[error("flows: the first line: {0}")]
    Head(String),
    /// The rest.
    #[error("flows: {0} bytes after the first line, expected a multiple of 48")]
    Length(usize),
    /// A flow of a member that is not in the first line.
    #[error("flows: member {0}: expected a place in the list of {1} members")]
    Member(u32, usize),
}

impl Batch {
    /// As it is sent.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidBatch> {
        let head = Head { all: self.all, yields: self.yields, members: self.members.clone() };
        let mut bytes = serde_json::to_vec(&head).map_err(|error| InvalidBatch::Head(error.to_string()))?;
        bytes.push(b'\n');
        for flow in &self.flows {
            bytes.extend_from_slice(&flow.key);
            bytes.extend_from_slice(&flow.member.to_le_bytes());
            bytes.extend_from_slice(&flow.tag.to_le_bytes());
        }
        Ok(bytes)
    }

    /// What was sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidBatch> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| InvalidBatch::Head("expected an end of line".to_owned()))?;
        let head: Head =
            serde_json::from_slice(&bytes[..end]).map_err(|error| InvalidBatch::Head(error.to_string()))?;
        let records = &bytes[end + 1..];
        if !records.len().is_multiple_of(RECORD) {
            return Err(InvalidBatch::Length(records.len()));
        }
        let told = |record: &[u8]| {
            let mut told = Told { key: [0; 40], member: 0, tag: 0 };
            let word = |at: usize| {
                let mut word = [0; 4];
                word.copy_from_slice(&record[at..at + 4]);
                u32::from_le_bytes(word)
            };
            told.key.copy_from_slice(&record[..40]);
            (told.member, told.tag) = (word(40), word(44));
            match head.members.get(told.member as usize) {
                Some(_) => Ok(told),
                None => Err(InvalidBatch::Member(told.member, head.members.len())),
            }
        };
        let flows = records.chunks_exact(RECORD).map(told).collect::<Result<_, _>>()?;
        Ok(Self { all: head.all, yields: head.yields, members: head.members, flows })
    }
}

/// The way to the other instance.
pub struct Peer {
    url: String,
    client: reqwest::Client,
}

/// Why there is no way to the other instance.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A file cannot be read.
    #[error("pair.{key} = {file:?}: {cause}")]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        file: String,
        /// Why.
        cause: std::io::Error,
    },
    /// What is in them does not serve.
    #[error("pair.ca, pair.certificate, pair.key: expected PEM: {0}")]
    Client(#[from] reqwest::Error),
}

impl Peer {
    /// Reads certificates; nobody is asked yet.
    pub fn new(pair: &Pair) -> Result<Self, PeerError> {
        let read = |key, file: &std::path::Path| {
            let error = |cause| PeerError::File { key, file: file.display().to_string(), cause };
            std::fs::read(file).map_err(error)
        };
        let pem = [read("certificate", &pair.certificate)?, read("key", &pair.key)?].join(&b'\n');
        let builder = reqwest::Client::builder().identity(reqwest::Identity::from_pem(&pem)?);
        let authorities = reqwest::Certificate::from_pem_bundle(&read("ca", &pair.ca)?)?;
        let client = authorities
            .into_iter()
            .fold(builder, reqwest::ClientBuilder::add_root_certificate)
            .tls_built_in_root_certs(false)
            .use_rustls_tls()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        Ok(Self { url: format!("{}{FLOWS}", pair.peer.trim_end_matches('/')), client })
    }

    async fn tell(&self, batch: &Batch) -> Result<(), String> {
        let body = batch.encode().map_err(|error| error.to_string())?;
        let answer = self.client.post(&self.url).body(body).send().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("{status}: {}", answer.text().await.unwrap_or_default()))
    }

    /// Tells the other instance of flows until `stop`: of all of them when it came back, and now and then; of those that
    /// begin at once, also in the middle of the former.
    pub async fn keep_told(self, engine: Arc<Engine>, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut all_at = Instant::now();
        let mut reached = None;
        let mut all = All::Idle;
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            if matches!(all, All::Idle) && Instant::now() >= all_at {
                let engine = engine.clone();
                all = All::Read(tokio::task::spawn_blocking(move || engine.all()), HashSet::new());
            }
            all = all.looked().await;
            let asked = engine.clone();
            let Ok(began) = tokio::task::spawn_blocking(move || asked.began()).await else { return };
            if matches!(all, All::Idle) && reached == Some(false) {
                // They are told with all others.
                continue;
            }
            let yields = engine.yields();
            let batches = turn(began, &mut all, yields);
            let mut told = Ok(());
            for batch in &batches {
                told = self.tell(batch).await;
                if told.is_err() {
                    break;
                }
                engine.told(batch.flows.len());
            }
            if yields && told.is_ok() {
                engine.yielded();
            }
            let reaches = match (&told, &all) {
                (Ok(()), All::Tell(rest, _)) if rest.is_empty() => {
                    all = All::Idle;
                    all_at = Instant::now() + ALL;
                    true
                }
                // It is known again once it has heard of all.
                (Ok(()), _) => continue,
                (Err(_), _) => {
                    std::mem::replace(&mut all, All::Idle).given_up().await;
                    all_at = Instant::now() + RETRY;
                    false
                }
            };
            if reached.replace(reaches) != Some(reaches) {
                match &told {
                    Ok(()) => tracing::info!(peer = self.url, "the other instance knows our flows"),
                    Err(error) => {
                        tracing::warn!(peer = self.url, error, "the other instance is not told of flows")
                    }
                }
                engine.reaches(reaches);
            }
        }
    }
}

/// How far the telling of all flows is, and which flows began since they are read: what is read of those may be older.
enum All {
    /// Nobody is at it.
    Idle,
    /// They are being read.
    Read(JoinHandle<Result<Vec<Batch>, MapsError>>, HashSet<FlowKey>),
    /// These have yet to be told.
    Tell(VecDeque<Batch>, HashSet<FlowKey>),
}

impl All {
    /// Once they are read, they are told: one batch at least, since whether anybody hears is known only by asking.
    async fn looked(self) -> Self {
        let Self::Read(task, newer) = self else { return self };
        if !task.is_finished() {
            return Self::Read(task, newer);
        }
        let read = task.await.map_err(|error| error.to_string());
        let read = read.and_then(|read| read.map_err(|error| error.to_string()));
        let mut batches = read.unwrap_or_else(|error| {
            tracing::error!(error, "the flow table cannot be read");
            Vec::new()
        });
        if batches.is_empty() {
            batches.push(Batch { all: true, ..Batch::default() });
        }
        Self::Tell(batches.into(), newer)
    }

    /// Waits for a reading whose outcome does not serve any more: another one would be beside it.
    async fn given_up(self) {
        if let Self::Read(task, _) = self {
            let _ = task.await;
        }
    }
}

/// What is told in one turn: what began, then one batch of all flows, if some are left.
fn turn(began: Option<Batch>, all: &mut All, yields: bool) -> Vec<Batch> {
    if let All::Read(_, newer) | All::Tell(_, newer) = all {
        newer.extend(began.iter().flat_map(|batch| batch.flows.iter().map(|flow| flow.key)));
    }
    let mut batches: Vec<Batch> = began.into_iter().collect();
    if let All::Tell(rest, newer) = all
        && let Some(mut some) = rest.pop_front()
    {
        some.flows.retain(|flow| !newer.contains(&flow.key));
        batches.push(some);
    }
    if yields && batches.is_empty() {
        batches.push(Batch::default());
    }
    if let Some(first) = batches.first_mut() {
        first.yields = yields;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_do_not_wait_for_the_telling_of_all_flows_and_are_not_told_over() {
        let batch = |all, keys: &[u8]| {
            let flows = keys.iter().map(|key| Told { key: [*key; 40], member: 0, tag: 0 }).collect();
            Batch { all, flows, ..Batch::default() }
        };
        let rest = [batch(true, &[1, 2]), batch(true, &[3]), batch(true, &[2, 4, 5])];
        let mut all = All::Tell(rest.into(), [[1; 40]].into());
        assert_eq!(turn(Some(batch(false, &[6])), &mut all, false), [batch(false, &[6]), batch(true, &[2])]);
        assert_eq!(turn(Some(batch(false, &[4])), &mut all, false), [batch(false, &[4]), batch(true, &[3])]);
        assert_eq!(turn(None, &mut all, false), [batch(true, &[2, 5])]);
        assert_eq!(turn(Some(batch(false, &[7])), &mut all, false), [batch(false, &[7])]);
        assert_eq!(turn(None, &mut all, false), []);
        assert_eq!(turn(None, &mut All::Idle, true), [Batch { yields: true, ..batch(false, &[]) }]);
    }

    #[test]
    fn what_was_told_is_heard() {
        let pool = Owner::new("project", "cluster", "nodes").unwrap();
        let holder = Holder { pool, name: "w0".to_owned(), address: [192, 168, 77, 20].into() };
        let flow = Told { key: [7; 40], member: 0, tag: 0x0a0a_0a0a };
        let batch = Batch {
            all: true,
            yields: true,
            members: vec![holder],
            flows: vec![flow, Told { key: [9; 40], ..flow }],
        };
        let bytes = batch.encode().unwrap();
        assert_eq!(Batch::decode(&bytes).unwrap(), batch);
        assert_eq!(Batch::decode(&bytes[..bytes.len() - 1]), Err(InvalidBatch::Length(95)));
        let stranger = Batch { flows: vec![Told { member: 1, ..flow }], ..batch };
        assert_eq!(Batch::decode(&stranger.encode().unwrap()), Err(InvalidBatch::Member(1, 1)));
        assert!(matches!(Batch::decode(b"{}\n"), Err(InvalidBatch::Head(_))));
        assert!(matches!(Batch::decode(b""), Err(InvalidBatch::Head(_))));
    }
}
