//! A work queue: a key is worked on by one worker at a time, and one that fails is tried again later
//! and later.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt::Display,
    future::Future,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long a key that fails is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; doubled after each further one.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after the given number of failures in a row, with up to a fifth more by chance.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let plain = self.first.saturating_mul(1 << doublings).min(self.longest);
        plain + plain.mul_f64(chance() * 0.2)
    }
}

/// From 0 to 1. The hasher's seed is random enough to keep clients from acting in step.
fn chance() -> f64 {
    f64::from((RandomState::new().hash_one(0) >> 40) as u32) / f64::from(1 << 24)
}

/// What a worker wants for a key that it is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until somebody adds it again.
    Done,
    /// Another look after that time, which is no failure.
    After(Duration),
}

struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    working: HashSet<K>,
    /// Added while being worked on.
    again: HashSet<K>,
    waiting: BTreeMap<(Instant, u64), K>,
    failures: HashMap<K, u32>,
    serial: u64,
}

struct Inner<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    backoff: Backoff,
}

/// A queue of keys; clones are the same queue.
pub struct Queue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Clone + Eq + Hash + Display + Send + Sync + 'static> Queue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            waiting: BTreeMap::new(),
            failures: HashMap::new(),
            serial: 0,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), changed: Notify::new(), backoff }) }
    }

    /// Asks for work on a key, now.
    pub fn add(&self, key: K) {
        self.state().add(key);
        self.inner.changed.notify_one();
    }

    /// Asks for work on a key after some time.
    pub fn add_after(&self, key: K, pause: Duration) {
        self.state().add_at(key, Instant::now() + pause);
        self.inner.changed.notify_one();
    }

    /// Waits for a key to work on; it must be handed back by [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let wake_at = {
                let mut state = self.state();
                state.wake(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.inner.changed.notify_one();
                    }
                    return key;
                }
                state.waiting.first_key_value().map(|((at, _), _)| *at)
            };
            match wake_at {
                Some(at) => {
                    tokio::select! {
                        () = self.inner.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.inner.changed.notified().await,
            }
        }
    }

    /// Ends the work on a key. `Err` counts as a failure and brings it back after a pause.
    pub fn done(&self, key: K, outcome: Result<Next, ()>) {
        let now = Instant::now();
        let mut state = self.state();
        state.working.remove(&key);
        let again = state.again.remove(&key);
        match outcome {
            Ok(next) => {
                state.failures.remove(&key);
                match next {
                    Next::After(pause) if !again => state.add_at(key, now + pause),
                    _ if again => state.add(key),
                    _ => {}
                }
            }
            Err(()) => {
                let failures = state.failures.entry(key.clone()).or_insert(0);
                *failures += 1;
                let pause = self.inner.backoff.pause(*failures);
                state.add_at(key, now + pause);
            }
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Works keys off, `concurrency` at a time, until `stop`. What is under way then is finished.
    pub async fn run<E, F, W>(&self, concurrency: usize, stop: CancellationToken, work: W)
    where
        E: Display + Send,
        F: Future<Output = Result<Next, E>> + Send + 'static,
        W: Fn(K) -> F + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        let mut workers = JoinSet::new();
        for _ in 0..concurrency.max(1) {
            let (queue, stop, work) = (self.clone(), stop.clone(), work.clone());
            workers.spawn(async move {
                loop {
                    let key = tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        key = queue.next() => key,
                    };
                    let outcome = work(key.clone()).await.map_err(|error| {
                        tracing::warn!(%key, %error, "will be tried again");
                    });
                    queue.done(key, outcome);
                }
            });
        }
        while workers.join_next().await.is_some() {}
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        self.serial += 1;
        self.waiting.insert((at, self.serial), key);
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (failures, least) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (60, 10)] {
            let pause = BACKOFF.pause(failures).as_secs_f64();
            assert!((f64::from(least)..=f64::from(least) * 1.2).contains(&pause), "{failures}: {pause}");
        }
    }

    /// Short enough to wait for.
    const SHORT: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(100) };

    #[tokio::test]
    async fn a_key_added_while_worked_on_comes_once_more() {
        let queue = Queue::new(BACKOFF);
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        queue.done("a", Ok(Next::Done));
        assert_eq!(queue.next().await, "a");
        queue.done("a", Ok(Next::Done));
        assert!(tokio::time::timeout(Duration::from_millis(50), queue.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_failure_brings_a_key_back_later() {
        let queue = Queue::new(SHORT);
        queue.add("a");
        let begun = Instant::now();
        for pauses in [20, 60, 140] {
            let key = queue.next().await;
            queue.done(key, Err(()));
            let key = queue.next().await;
            assert!(begun.elapsed() >= Duration::from_millis(pauses));
            // Handed back and asked for at once; what it has failed so far still counts.
            queue.state().working.remove(key);
            queue.add(key);
        }
    }
}
