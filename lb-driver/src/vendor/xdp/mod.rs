//! The driver of `ake-xdp`, AKE's own balancer.
//!
//! The device takes a whole, versioned state over mutual TLS and keeps the last good one on its disk.

mod session;
pub mod translate;
pub mod wire;

pub use session::{Settings, XdpDriver};
