//! The driver of F5's BIG-IP, by iControl REST.
//!
//! Direct server return as F5 describes it under nPath routing: FastL4 virtual servers that translate neither
//! address nor port, and pools whose members have no port. What is wanted becomes a set of objects
//! ([`derive()`](derive::derive)), what is there is read into the same set, and the difference goes to the
//! device as transactions ([`plan`](plan::plan)). Every object stands in a partition of the project that it is
//! for, and its description says whose it is; nothing else is ever written.
//!
//! What others have on the device is read too: a load balancer that it is in the way of is told as an
//! [obstacle](crate::driver::Obstacles), and kept off the device alone.
//!
//! The state's version stands on the device too, as an object's name: every transaction removes the one that
//! was read and makes the next, so a writer that is late fails as a whole.

mod answers;
pub mod derive;
pub mod foreign;
pub mod forms;
mod look;
pub mod objects;
pub mod plan;
pub mod recognise;
pub mod replies;
mod session;
mod settings;
mod status;
mod transact;
pub mod unfit;
mod unit;
pub mod wire;
mod write;

pub use session::BigIpDriver;
pub use settings::Settings;

#[cfg(test)]
mod tests;
