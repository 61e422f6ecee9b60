//! What every driver must hold to, tried against its device.
//!
//! A driver's author implements [`Device`] for the device (the real one, or its stand-in) and runs [`run`]: it
//! drives the device through states, faults and other people's objects by nothing but the [`Driver`], and
//! answers with the first thing that does not hold, or with what was tried. What a device cannot be brought to,
//! it says ([`Outcome::NotOfThisDevice`]), and the report names it, so that a test can hold it to a list.

mod cases;
mod states;
#[cfg(test)]
mod tests;
mod trial;

use std::{collections::BTreeMap, net::IpAddr, pin::Pin};

use crate::{
    driver::{Driver, DriverError},
    model::Endpoint,
};

pub use cases::run;
pub use states::series;

/// What a harness does: boxed, as [`Answer`](crate::driver::Answer); an error says why the harness itself failed.
pub type Deed<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// A device under test, with what can be done to it past its driver.
pub trait Device: Send {
    /// A new driver of it, as a program that starts would set one up: without a session, with nothing remembered.
    /// Its deadline should be a second or two: some faults are waited out.
    fn driver(&self) -> Result<Box<dyn Driver>, DriverError>;

    /// Makes it as it was on the day it was installed: no object of ours or of others, no fault.
    fn clean(&mut self) -> Deed<'_, ()>;

    /// Puts an object of somebody else there that listens on a port of a VIP, named `name`, with whatever the
    /// device lets it refer to.
    fn put_foreign<'a>(&'a mut self, name: &'a str, vip: IpAddr, endpoint: Endpoint) -> Deed<'a, Outcome>;

    /// All objects that are not ours, as text that compares: by name, everything that is configured of them.
    fn foreign(&mut self) -> Deed<'_, BTreeMap<String, String>>;

    /// Lets one fault happen to what comes next.
    fn inject(&mut self, fault: Fault) -> Deed<'_, Outcome>;

    /// Ends every fault. The device is up and as it was when this returns.
    fn heal(&mut self) -> Deed<'_, ()>;

    /// Requests so far that could have changed anything; logins are none.
    fn writes(&mut self) -> Deed<'_, u64>;
}

/// Whether a device can be brought to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was.
    Done,
    /// There is no such thing on it; why.
    NotOfThisDevice(&'static str),
}

/// What may happen to a device or on the way to it. Writes are counted from 0, from the injection on; with
/// devices that take transactions or whole states, the request that takes effect is the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The write of this number is refused for good and does nothing; later ones are taken.
    Refused {
        /// Which write.
        write: usize,
    },
    /// The write of this number is put off (busy, 503), once.
    Busy {
        /// Which write.
        write: usize,
    },
    /// The write of this number takes effect, and its answer is lost.
    AnswerLost {
        /// Which write.
        write: usize,
    },
    /// This many writes take effect; then the device answers nobody until it is healed.
    Stops {
        /// How many.
        after: usize,
    },
    /// It starts again: until it is healed nobody answers; it comes back with what it keeps over a start.
    Reboot,
    /// Sessions, tokens and connections that drivers hold are good no more; new ones are given.
    SessionExpired,
    /// What is read comes in another order, and in other ways to write the same (letters, units, defaults).
    OtherForm,
}

/// What was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Cases that hold.
    pub held: Vec<&'static str>,
    /// Cases that the device cannot be brought to, and why.
    pub not_of_this_device: BTreeMap<&'static str, &'static str>,
}

/// What does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonconformance {
    /// The driver, or its device, does other than the contract says.
    #[error("{case}: {problem}")]
    Broken {
        /// Which case.
        case: &'static str,
        /// What was expected, and what came.
        problem: String,
    },
    /// The harness failed, so nothing is known.
    #[error("{case}: the harness: {problem}")]
    Harness {
        /// Which case.
        case: &'static str,
        /// What failed.
        problem: String,
    },
}
