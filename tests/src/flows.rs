//! `make e2e-flows`: a thousand open connections through every change of nodes, balancers and Services.

mod changes;
mod watch;

pub use changes::walk;
pub use watch::{Count, Watch};
