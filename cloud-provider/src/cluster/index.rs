//! A watch that keeps a projection of every object: only what is read is stored, and only a change of
//! what is read wakes anybody.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use kube::runtime::{
    WatchStreamExt,
    watcher::{self, Event},
};
use tokio::sync::watch;

use super::client::{Cluster, Object, Selector, innermost};

/// Below what load balancers in between close idle connections after.
const WATCH_SECONDS: u32 = 200;

/// An object's name, with its namespace if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    /// Within the namespace.
    pub name: String,
}

impl Key {
    /// The key of an object of the whole cluster.
    #[must_use]
    pub fn whole(name: impl Into<String>) -> Self {
        Self { namespace: String::new(), name: name.into() }
    }

    /// The key of an object in a namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The namespace, if there is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    fn of<K: Object>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What happened to one object's projection; the two differ.
#[derive(Debug)]
pub struct Change<'a, V> {
    /// Of the object.
    pub key: &'a Key,
    /// What was kept before.
    pub old: Option<&'a Arc<V>>,
    /// What is kept now.
    pub new: Option<&'a Arc<V>>,
    /// Whether this follows from a list, in which absence may have many reasons, and not from an event.
    pub listed: bool,
}

struct Entry<V> {
    /// Grows with every write to the object.
    version: u64,
    view: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { version: self.version, view: self.view.clone() }
    }
}

/// What an object's projection was, and is.
struct Difference<V> {
    old: Option<Entry<V>>,
    new: Option<Entry<V>>,
}

type Entries<V> = BTreeMap<Key, Entry<V>>;
type Project<K, V> = Box<dyn Fn(K) -> Option<V> + Send + Sync>;
type OnChange<V> = Box<dyn Fn(Change<'_, V>) + Send + Sync>;

struct Shared<K, V> {
    entries: RwLock<Entries<V>>,
    /// The newest version that the watch has told of.
    seen: AtomicU64,
    project: Project<K, V>,
    on_change: OnChange<V>,
    ready: watch::Receiver<bool>,
}

/// Projections of all objects of a kind, kept up to date by a watch of its own.
pub struct Index<K, V> {
    shared: Arc<Shared<K, V>>,
}

impl<K, V> Clone for Index<K, V> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl Cluster {
    /// Watches objects. `project` says what is kept of one (nothing: it is not kept at all); `on_change` is
    /// called, quickly please, when what is kept has changed. Ends with the runtime.
    pub fn watch<K: Object, V: PartialEq + Send + Sync + 'static>(
        &self,
        selector: Selector,
        project: impl Fn(K) -> Option<V> + Send + Sync + 'static,
        on_change: impl Fn(Change<'_, V>) + Send + Sync + 'static,
    ) -> Index<K, V> {
        let (ready_sender, ready) = watch::channel(false);
        let shared = Arc::new(Shared {
            entries: RwLock::default(),
            seen: AtomicU64::new(0),
            project: Box::new(project),
            on_change: Box::new(on_change),
            ready,
        });
        let index = Index { shared };
        let api = K::api(self.client(), selector.namespace.as_deref());
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).streaming_lists();
        config.label_selector = selector.labels;
        config.field_selector = selector.fields;
        let reader = index.clone();
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(watcher::watcher(api, config).default_backoff());
            let mut listing = None;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        if reader.take(&mut listing, event) {
                            ready_sender.send_replace(true);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), error = %innermost(&error), "watch interrupted, trying again");
                    }
                }
            }
        });
        index
    }
}

impl<K: Object, V: PartialEq + Send + Sync + 'static> Index<K, V> {
    /// Waits for the first complete list; false if the watch has ended without one.
    pub async fn ready(&self) -> bool {
        self.shared.ready.clone().wait_for(|ready| *ready).await.is_ok()
    }

    /// Waits as [`Index::ready`], but not for ever.
    pub async fn ready_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.ready()).await.unwrap_or(false)
    }

    /// What is kept of one object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.read().get(key).map(|entry| entry.view.clone())
    }

    /// What is kept of all objects, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(Key, Arc<V>)> {
        self.read().iter().map(|(key, entry)| (key.clone(), entry.view.clone())).collect()
    }

    /// Takes in what a write has returned, so that the next look does not see the state before it. Whoever
    /// wrote knows: nobody is told.
    pub fn absorb(&self, object: K) {
        self.learn(object);
    }

    /// As [`Index::absorb`], for a write that others wait for: they are told.
    pub fn absorb_and_tell(&self, object: K) {
        let key = Key::of(&object);
        if let Some(Difference { old, new }) = self.learn(object) {
            self.tell(&key, old.as_ref(), new.as_ref(), false);
        }
    }

    /// Before and after, unless something newer is known already.
    fn learn(&self, object: K) -> Option<Difference<V>> {
        let (key, version) = (Key::of(&object), version(&object));
        let new = (self.shared.project)(object).map(|view| Entry { version, view: Arc::new(view) });
        let mut entries = self.shared.entries.write().unwrap_or_else(PoisonError::into_inner);
        // What the watch has gone past, and does not know, is gone by now.
        let newest = match entries.get(&key) {
            Some(entry) => entry.version,
            None => self.shared.seen.load(Ordering::Acquire),
        };
        if newest >= version {
            return None;
        }
        let old = match &new {
            Some(entry) => entries.insert(key, entry.clone()),
            None => entries.remove(&key),
        };
        Some(Difference { old, new })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries<V>> {
        self.shared.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one event of the watch; true at the end of a complete list.
    fn take(&self, listing: &mut Option<Entries<V>>, event: Event<K>) -> bool {
        if let Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) = &event {
            self.shared.seen.fetch_max(version(object), Ordering::AcqRel);
        }
        match event {
            Event::Init => *listing = Some(Entries::new()),
            Event::InitApply(object) => {
                let (key, version) = (Key::of(&object), version(&object));
                if let (Some(view), Some(listing)) = ((self.shared.project)(object), listing) {
                    listing.insert(key, Entry { version, view: Arc::new(view) });
                }
            }
            Event::InitDone => {
                self.swap(listing.take().unwrap_or_default());
                return true;
            }
            Event::Apply(object) => {
                let (key, version) = (Key::of(&object), version(&object));
                let view = (self.shared.project)(object).map(|view| Entry { version, view: Arc::new(view) });
                self.put(&key, view);
            }
            Event::Delete(object) => self.put(&Key::of(&object), None),
        }
        false
    }

    fn put(&self, key: &Key, entry: Option<Entry<V>>) {
        let new = entry.clone();
        let old = {
            let mut entries = self.shared.entries.write().unwrap_or_else(PoisonError::into_inner);
            match entry {
                // An answer to a write of ours may have been newer.
                Some(entry) if entries.get(key).is_some_and(|known| known.version > entry.version) => return,
                Some(entry) => entries.insert(key.clone(), entry),
                None => entries.remove(key),
            }
        };
        self.tell(key, old.as_ref(), new.as_ref(), false);
    }

    fn swap(&self, listed: Entries<V>) {
        let old = std::mem::replace(
            &mut *self.shared.entries.write().unwrap_or_else(PoisonError::into_inner),
            listed.clone(),
        );
        for (key, entry) in &old {
            if !listed.contains_key(key) {
                self.tell(key, Some(entry), None, true);
            }
        }
        for (key, entry) in &listed {
            self.tell(key, old.get(key), Some(entry), true);
        }
    }

    fn tell(&self, key: &Key, old: Option<&Entry<V>>, new: Option<&Entry<V>>, listed: bool) {
        let (old, new) = (old.map(|entry| &entry.view), new.map(|entry| &entry.view));
        if old != new {
            (self.shared.on_change)(Change { key, old, new, listed });
        }
    }
}

fn version<K: Object>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn node(name: &str, version: u64, unschedulable: bool) -> Node {
        let mut node = Node {
            metadata: ObjectMeta {
                name: Some(name.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..Node::default()
        };
        node.spec = Some(k8s_openapi::api::core::v1::NodeSpec {
            unschedulable: Some(unschedulable),
            ..Default::default()
        });
        node
    }

    fn index() -> (Index<Node, bool>, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let shared = Shared {
            entries: RwLock::default(),
            seen: AtomicU64::new(0),
            project: Box::new(|node: Node| node.spec.and_then(|spec| spec.unschedulable)),
            on_change: Box::new(move |change: Change<'_, bool>| {
                let line = format!("{} {:?} {:?}", change.key, change.old, change.new);
                log.lock().unwrap().push(line);
            }),
            ready: watch::channel(true).1,
        };
        (Index { shared: Arc::new(shared) }, told)
    }

    #[test]
    fn only_a_change_of_what_is_kept_is_told() {
        let (index, told) = index();
        let mut listing = None;
        assert!(!index.take(&mut listing, Event::Init));
        assert!(!index.take(&mut listing, Event::InitApply(node("a", 1, false))));
        assert!(index.take(&mut listing, Event::InitDone));
        index.take(&mut listing, Event::Apply(node("a", 2, false)));
        index.take(&mut listing, Event::Apply(node("a", 3, true)));
        index.take(&mut listing, Event::Delete(node("a", 4, true)));
        assert_eq!(
            *told.lock().unwrap(),
            ["a None Some(false)", "a Some(false) Some(true)", "a Some(true) None"]
        );
    }

    #[test]
    fn a_list_after_an_interruption_tells_what_went_meanwhile() {
        let (index, told) = index();
        let mut listing = None;
        index.take(&mut listing, Event::Apply(node("a", 1, false)));
        index.take(&mut listing, Event::Apply(node("b", 2, false)));
        told.lock().unwrap().clear();
        index.take(&mut listing, Event::Init);
        index.take(&mut listing, Event::InitApply(node("b", 2, false)));
        // Until the list is complete, what was known stays.
        assert!(index.get(&Key::whole("a")).is_some());
        index.take(&mut listing, Event::InitDone);
        assert_eq!(*told.lock().unwrap(), ["a Some(false) None"]);
    }

    #[test]
    fn an_older_event_does_not_undo_what_a_write_returned() {
        let (index, _) = index();
        index.take(&mut None, Event::Apply(node("a", 1, false)));
        index.absorb(node("a", 3, true));
        index.take(&mut None, Event::Apply(node("a", 2, false)));
        assert_eq!(index.get(&Key::whole("a")).as_deref(), Some(&true));
    }

    #[test]
    fn a_write_that_returns_after_the_object_went_does_not_bring_it_back() {
        let (index, _) = index();
        index.take(&mut None, Event::Apply(node("a", 1, false)));
        index.take(&mut None, Event::Delete(node("a", 3, false)));
        index.absorb(node("a", 2, false));
        assert!(index.all().is_empty());
        index.absorb(node("b", 4, false));
        assert_eq!(index.all().len(), 1);
    }

    #[test]
    fn others_are_told_of_a_write_once() {
        let (index, told) = index();
        index.take(&mut None, Event::Apply(node("a", 1, false)));
        told.lock().unwrap().clear();
        index.absorb_and_tell(node("a", 2, true));
        index.take(&mut None, Event::Apply(node("a", 2, true)));
        assert_eq!(*told.lock().unwrap(), ["a Some(false) Some(true)"]);
    }
}
