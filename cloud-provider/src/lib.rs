//! The cloud controller manager and the node agent.

pub mod agent;
pub mod cloud;
pub mod cluster;
pub mod flags;
pub mod manager;
pub mod metrics;
pub mod nodes;
pub mod serve;
pub mod services;
pub mod steps;
pub mod volumes;
