//! Drivers by device.

pub mod xdp;
