//! The lab: a cloud on one machine.
//!
//! OpenStack as its projects publish it, machines booted from the image that operators upload, a switch that
//! enforces what Neutron says, and AKE's own services, all inside one cage of namespaces with a name.

pub mod ake;
pub mod balancers;
pub mod cage;
pub mod cgroup;
pub mod detached;
pub mod disk;
pub mod hook;
pub mod internal;
pub mod lab;
pub mod machine;
pub mod metadata;
pub mod network;
pub mod openstack;
pub mod paths;
pub mod procs;
pub mod shell;
pub mod switch;

pub use lab::{Lab, built};
pub use paths::Dirs;

/// The names of the services that run in the background of a lab.
pub fn services(dirs: &Dirs) -> Vec<&'static str> {
    openstack::PROJECTS.into_iter().map(|project| project.name).chain(ake::names(dirs)).collect()
}
