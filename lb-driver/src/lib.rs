//! One model of a load balancer, a pure diff, and drivers of devices.
//!
//! [`model`] says what is wanted, [`diff`] what has to be done for it, [`driver`] what a device must be able
//! to do, and [`vendor`] holds the devices that do it. [`ring`] spreads flows over members, the same way on
//! every instance.

pub mod diff;
pub mod driver;
pub mod model;
pub mod ring;
pub mod vendor;
