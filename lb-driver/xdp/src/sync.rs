//! What the two instances of a pair tell one another of flows.
//!
//! `POST /v1/flows`: one line of JSON, then 48 bytes for each flow: its key as the kernel has it, then as little-endian
//! 32-bit words the place of its member in that line, and the tag of the packet that opened it. Members are named, so
//! it does not matter which slots they have at either end.

use std::{net::IpAddr, sync::Arc, time::Duration};

use lb_driver::model::Owner;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{config::Pair, engine::Engine, layout::FlowKey};

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
    /// Of the packet that opened it.
    pub tag: u32,
}

/// Flows of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whether they are some of all flows, which may be older than what the other one knows; else they began just now.
    pub all: bool,
    /// Their members.
    pub members: Vec<Holder>,
    /// The flows.
    pub flows: Vec<Told>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    all: bool,
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
        let head = Head { all: self.all, members: self.members.clone() };
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
        Ok(Self { all: head.all, members: head.members, flows })
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
    /// begin at once.
    pub async fn keep_told(self, engine: Arc<Engine>, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut all_at = Instant::now();
        let mut reached = None;
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let due = Instant::now() >= all_at;
            let asked = engine.clone();
            let Ok(mut batches) = tokio::task::spawn_blocking(move || asked.tell(due)).await else { return };
            if due && batches.is_empty() {
                // Nothing to tell; but whether anybody hears is known only by asking.
                batches.push(Batch { all: true, ..Batch::default() });
            } else if !due && reached == Some(false) {
                // They are told with all others.
                continue;
            }
            let told = self.tell_each(&engine, &batches).await;
            match &told {
                Ok(()) if due => all_at = Instant::now() + ALL,
                Ok(()) => {}
                Err(_) => all_at = Instant::now() + RETRY,
            }
            if reached.replace(told.is_ok()) != Some(told.is_ok()) {
                match &told {
                    Ok(()) => tracing::info!(peer = self.url, "the other instance knows our flows"),
                    Err(error) => {
                        tracing::warn!(peer = self.url, error, "the other instance is not told of flows")
                    }
                }
                engine.reaches(told.is_ok());
            }
        }
    }

    async fn tell_each(&self, engine: &Engine, batches: &[Batch]) -> Result<(), String> {
        for batch in batches {
            self.tell(batch).await?;
            engine.told(batch.flows.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_heard() {
        let pool = Owner::new("project", "cluster", "nodes").unwrap();
        let holder = Holder { pool, name: "w0".to_owned(), address: [192, 168, 77, 20].into() };
        let flow = Told { key: [7; 40], member: 0, tag: 0x0a0a_0a0a };
        let batch =
            Batch { all: true, members: vec![holder], flows: vec![flow, Told { key: [9; 40], ..flow }] };
        let bytes = batch.encode().unwrap();
        assert_eq!(Batch::decode(&bytes).unwrap(), batch);
        assert_eq!(Batch::decode(&bytes[..bytes.len() - 1]), Err(InvalidBatch::Length(95)));
        let stranger = Batch { flows: vec![Told { member: 1, ..flow }], ..batch };
        assert_eq!(Batch::decode(&stranger.encode().unwrap()), Err(InvalidBatch::Member(1, 1)));
        assert!(matches!(Batch::decode(b"{}\n"), Err(InvalidBatch::Head(_))));
        assert!(matches!(Batch::decode(b""), Err(InvalidBatch::Head(_))));
    }
}
