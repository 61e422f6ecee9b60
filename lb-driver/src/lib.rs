//! One model of a load balancer, a pure diff, and drivers of devices.
//!
//! [`model`] says what is wanted, [`fit`] what of it a device can hold, [`diff`] what has to be done for it,
//! [`driver`] what a device must be able to do, and [`vendor`] holds the devices that do it. [`conformance`]
//! holds every driver to the same. [`ring`] spreads flows over members, the same way on every instance.

pub mod conformance;
pub mod diff;
pub mod driver;
pub mod fit;
pub mod model;
pub mod ring;
#[cfg(test)]
mod table;
pub mod vendor;
