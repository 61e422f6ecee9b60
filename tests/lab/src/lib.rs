//! The lab: a cloud on one machine.
//!
//! OpenStack as its projects publish it, machines booted from the image that operators upload, a switch that
//! enforces what Neutron says, and AKE's own services, all inside one cage of namespaces with a name.

pub mod paths;

pub use paths::Dirs;
