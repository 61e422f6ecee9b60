//! Everything that speaks to the Kubernetes API server; nothing else in this package names `kube`.

mod calls;
mod client;
mod events;
mod index;
mod lease;
mod queue;

pub use client::{Cluster, Error, Object, Selector};
pub use events::{Recorder, Subject};
pub use index::{Change, Index, Key};
pub use lease::{Leadership, LeaseError, LeaseSettings};
pub use queue::{Backoff, Next, Queue};
