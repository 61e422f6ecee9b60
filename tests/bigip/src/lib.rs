//! A stand-in for a BIG-IP, or a pair of them: iControl REST over TLS, as far as AKE's driver and the clients
//! of others use it.
//!
//! It imitates TMOS 17.1: tokens (100 a user), partitions, virtual servers and addresses, pools with members,
//! nodes, TCP and HTTP monitors, FastL4 and persistence profiles, internal data groups, transactions, paged
//! lists, `save sys config`, config-sync and failover of a pair. It keeps real state, resolves references and
//! refuses what the device refuses with the device's codes; it forwards no packet.
//!
//! What checks it: clients that others wrote, unmodified (`make e2e-bigip`): f5-sdk with f5-icontrol-rest,
//! f5-conx-core. Its answers are modelled on the fixtures that F5 publishes with its Ansible collection.

mod answer;
mod auth;
mod cluster;
mod config;
mod device;
mod disk;
mod fault;
mod forms;
mod kinds;
mod members;
mod refer;
mod route;
mod serve;
mod transaction;

pub use device::{Device, Options, PASSWORD, Pair, Reply, Request, USER};
pub use disk::DiskError;
pub use fault::Fault;
pub use serve::{Identity, Served};
