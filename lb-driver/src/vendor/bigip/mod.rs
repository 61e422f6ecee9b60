//! The driver of F5's BIG-IP, by iControl REST.
//!
//! Direct server return as F5 describes it under nPath routing: FastL4 virtual servers that translate neither
//! address nor port, and pools whose members have no port. What is wanted becomes a set of objects
//! ([`derive()`](derive::derive)), what is there is read into the same set, and the difference goes to the
//! device as transactions ([`plan`](plan::plan)). Every object stands in a partition of the project that it is
//! for, and its description says whose it is; nothing else is ever written.
//!
//! The state's version stands on the device too, as an object's name: every transaction removes the one that
//! was read and makes the next, so a writer that is late fails as a whole.

mod answers;
pub mod derive;
pub mod objects;
pub mod plan;
pub mod recognise;
mod session;
mod status;
mod transact;
mod unit;
pub mod wire;

pub use session::{BigIpDriver, Settings};

#[cfg(test)]
mod tests;
