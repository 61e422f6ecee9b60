//! The lab: a cloud on one machine.
