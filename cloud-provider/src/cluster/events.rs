//! Kubernetes Events: written in the background, counted up where the same was said before, and not
//! repeated after a restart.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    client::{Cluster, Error, Object, Selector},
    index::Key,
};

/// Events that wait to be written; more are dropped, since a cluster's trouble must not become ours.
const WAITING: usize = 1024;

/// The same thing about the same object is said once in that time.
const QUIET: Duration = Duration::from_secs(300);

/// Longest message that the API server takes.
const LONGEST_MESSAGE: usize = 1024;

/// The object that an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    api_version: String,
    kind: String,
    key: Key,
    uid: String,
}

impl Subject {
    /// Of an object at hand.
    #[must_use]
    pub fn of<K: Object>(object: &K) -> Self {
        let meta = object.meta();
        Self::new::<K>(
            Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()),
            meta.uid.clone().unwrap_or_default(),
        )
    }

    /// Of an object whose name and UID are known.
    #[must_use]
    pub fn new<K: Object>(key: Key, uid: impl Into<String>) -> Self {
        let (api_version, kind) = (K::api_version(&()).into_owned(), K::kind(&()).into_owned());
        // kubectl looks for a Node's Events under its name, as kubelet writes them.
        let uid = if kind == "Node" { key.name.clone() } else { uid.into() };
        Self { api_version, kind, key, uid }
    }

    fn namespace(&self) -> &str {
        self.key.namespace().unwrap_or("default")
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version.clone()),
            kind: Some(self.kind.clone()),
            namespace: self.key.namespace().map(ToOwned::to_owned),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Note {
    component: &'static str,
    subject: Subject,
    warning: bool,
    reason: String,
    message: String,
}

impl Note {
    fn log(&self) {
        let Self { component, subject, reason, message, .. } = self;
        let (kind, object) = (&subject.kind, &subject.key);
        if self.warning {
            tracing::warn!(component, kind, %object, reason, "{message}");
        } else {
            tracing::info!(component, kind, %object, reason, "{message}");
        }
    }
}

/// Takes Events to be written; clones write to the same place.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
}

impl Recorder {
    /// Begins to write, until the last clone is gone.
    #[must_use]
    pub fn start(cluster: Cluster) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Note>(WAITING);
        tokio::spawn(async move {
            let mut writer = Writer { cluster, said: HashMap::new() };
            while let Some(note) = receiver.recv().await {
                writer.write(note).await;
            }
        });
        Self { sender }
    }

    /// Something happened as it should.
    pub fn normal(
        &self,
        component: &'static str,
        subject: Subject,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(Note {
            component,
            subject,
            warning: false,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    /// Somebody should have a look.
    pub fn warn(&self, component: &'static str, subject: Subject, reason: &str, message: impl Into<String>) {
        self.send(Note {
            component,
            subject,
            warning: true,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    fn send(&self, mut note: Note) {
        if let Some((end, _)) = note.message.char_indices().nth(LONGEST_MESSAGE - 4) {
            note.message.truncate(end);
            note.message.push('…');
        }
        if self.sender.try_send(note).is_err() {
            tracing::debug!("an Event was dropped: too many are waiting");
        }
    }
}

struct Said {
    /// Name of the Event object.
    name: String,
    count: i32,
    at: Instant,
}

struct Writer {
    cluster: Cluster,
    said: HashMap<Note, Said>,
}

impl Writer {
    async fn write(&mut self, note: Note) {
        let now = Instant::now();
        self.said.retain(|_, said| now.duration_since(said.at) < Duration::from_secs(3600));
        // A warning that stands is said again now and then; news is told whenever it happens.
        if note.warning && self.said.get(&note).is_some_and(|said| now.duration_since(said.at) < QUIET) {
            return;
        }
        note.log();
        let written = match self.said.get(&note) {
            Some(said) => self.count_up(&note, &said.name, said.count + 1).await,
            None => self.first(&note).await,
        };
        match written {
            Ok((name, count)) => {
                self.said.insert(note, Said { name, count, at: now });
            }
            Err(error) => tracing::debug!(%error, "an Event could not be written"),
        }
    }

    /// Writes a new Event, unless an earlier run of this program has said the same of late.
    async fn first(&self, note: &Note) -> Result<(String, i32), Error> {
        if note.warning
            && let Some(known) = self.known(note).await
        {
            return Ok(known);
        }
        let now = Timestamp::now();
        // Unlike a time stamp, this does not collide when several are written at once.
        let object: String = note.subject.key.name.chars().take(200).collect();
        let name = format!("{object}.{}", uuid::Uuid::new_v4().simple());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(note.subject.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: note.subject.reference(),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.clone()),
            message: Some(note.message.clone()),
            source: Some(EventSource { component: Some(note.component.to_owned()), host: None }),
            reporting_component: Some(note.component.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        self.cluster.create(&event).await.map(|_| (name, 1))
    }

    async fn known(&self, note: &Note) -> Option<(String, i32)> {
        let selector = Selector {
            namespace: Some(note.subject.namespace().to_owned()),
            fields: Some(format!("involvedObject.uid={},reason={}", note.subject.uid, note.reason)),
            ..Selector::default()
        };
        let events = self.cluster.list::<Event>(&selector).await.ok()?;
        let event = events.into_iter().find(|event| {
            event.message.as_deref() == Some(&note.message)
                && event.reporting_component.as_deref() == Some(note.component)
        })?;
        Some((event.metadata.name?, event.count.unwrap_or(1)))
    }

    async fn count_up(&self, note: &Note, name: &str, count: i32) -> Result<(String, i32), Error> {
        let patch = serde_json::json!({ "count": count, "lastTimestamp": Time(Timestamp::now()) });
        match self.cluster.merge::<Event>(Some(note.subject.namespace()), name, &patch).await {
            Ok(_) => Ok((name.to_owned(), count)),
            Err(error) if error.is_not_found() => self.first(note).await,
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Recorder {
        /// One whose Events are not written. The second tells those since it was last asked, each as object and reason.
        pub(crate) fn kept() -> (Self, impl FnMut() -> Vec<(Key, String)>) {
            let (sender, mut receiver) = mpsc::channel::<Note>(WAITING);
            let told = move || {
                std::iter::from_fn(|| receiver.try_recv().ok())
                    .map(|note| (note.subject.key, note.reason))
                    .collect()
            };
            (Self { sender }, told)
        }
    }
}
