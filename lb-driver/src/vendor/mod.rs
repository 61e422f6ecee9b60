//! Drivers by device.

pub mod bigip;
pub mod xdp;
