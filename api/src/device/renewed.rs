//! A driver that can be set up anew while it is used.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lb_driver::{
    diff::Change,
    driver::{Answer, Capabilities, Driver, Obstacles, Status},
    model::State,
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// A driver that can be set up anew: what was begun with the old one ends with it.
pub struct Renewed {
    now: Mutex<InUse>,
}

/// A driver, and all that is under way with it.
struct InUse {
    driver: Arc<dyn Driver>,
    calls: TaskTracker,
}

impl InUse {
    fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, calls: TaskTracker::new() }
    }
}

impl Renewed {
    /// One that begins with this.
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { now: Mutex::new(InUse::new(driver)) }
    }

    /// From now on this one. The answer gives back what the one before holds on the device, such as a session, once all
    /// that was begun with it has ended.
    pub fn renew(&self, driver: Arc<dyn Driver>) -> impl Future<Output = ()> + Send + use<> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let InUse { driver, calls } = mem::replace(&mut *now, InUse::new(driver));
        calls.close();
        async move {
            calls.wait().await;
            if let Err(error) = driver.close().await {
                tracing::debug!(%error, "the session that was there before ends by itself");
            }
        }
    }

    fn now(&self) -> Arc<dyn Driver> {
        self.begin().0
    }

    /// The driver, which is not closed before the token goes.
    fn begin(&self) -> (Arc<dyn Driver>, TaskTrackerToken) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&now.driver), now.calls.token())
    }
}

impl Driver for Renewed {
    fn capabilities(&self) -> Capabilities {
        self.now().capabilities()
    }

    fn obstacles(&self, wanted: &State) -> Obstacles {
        self.now().obstacles(wanted)
    }

    fn read(&self) -> Answer<'_, State> {
        let (driver, begun) = self.begin();
        Box::pin(async move {
            let _begun = begun;
            driver.read().await
        })
    }

    fn apply<'a>(&'a self, wanted: &'a State, changes: &'a [Change]) -> Answer<'a, ()> {
        let (driver, begun) = self.begin();
        Box::pin(async move {
            let _begun = begun;
            driver.apply(wanted, changes).await
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        let (driver, begun) = self.begin();
        Box::pin(async move {
            let _begun = begun;
            driver.status().await
        })
    }

    fn news(&self, seen: Option<u64>, longest: Duration) -> Answer<'_, Status> {
        let (driver, begun) = self.begin();
        Box::pin(async move {
            let _begun = begun;
            driver.news(seen, longest).await
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        let driver = self.now();
        Box::pin(async move { driver.close().await })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// Reads for as long as it may not end, and remembers what happened.
    struct Slow {
        may_end: Semaphore,
        said: Mutex<Vec<&'static str>>,
    }

    impl Slow {
        fn new(may_end: usize) -> Arc<Self> {
            Arc::new(Self { may_end: Semaphore::new(may_end), said: Mutex::default() })
        }

        fn said(&self) -> Vec<&'static str> {
            self.said.lock().unwrap().clone()
        }
    }

    impl Driver for Slow {
        fn capabilities(&self) -> Capabilities {
            Capabilities::ALL
        }

        fn read(&self) -> Answer<'_, State> {
            Box::pin(async {
                self.said.lock().unwrap().push("begun");
                self.may_end.acquire().await.unwrap().forget();
                self.said.lock().unwrap().push("ended");
                Ok(State::default())
            })
        }

        fn apply<'a>(&'a self, _: &'a State, _: &'a [Change]) -> Answer<'a, ()> {
            Box::pin(async { Ok(()) })
        }

        fn status(&self) -> Answer<'_, Status> {
            Box::pin(async { Ok(Status::default()) })
        }

        fn close(&self) -> Answer<'_, ()> {
            Box::pin(async {
                self.said.lock().unwrap().push("closed");
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn what_is_under_way_ends_before_its_session_does() {
        let (old, new) = (Slow::new(0), Slow::new(1));
        let renewed = Renewed::new(Arc::clone(&old) as Arc<dyn Driver>);
        let (read, rest) = tokio::join!(renewed.read(), async {
            let retired = tokio::spawn(renewed.renew(Arc::clone(&new) as Arc<dyn Driver>));
            // others ask the new one meanwhile
            renewed.read().await.unwrap();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!((old.said(), new.said()), (vec!["begun"], vec!["begun", "ended"]));
            old.may_end.add_permits(1);
            retired.await
        });
        assert!(read.is_ok() && rest.is_ok());
        assert_eq!(old.said(), ["begun", "ended", "closed"]);
        renewed.close().await.unwrap();
        assert_eq!(new.said(), ["begun", "ended", "closed"]);
    }
}
