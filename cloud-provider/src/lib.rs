//! The cloud controller manager and the node agent.

pub mod agent;
pub mod cluster;
pub mod nodes;
pub mod services;
pub mod volumes;
