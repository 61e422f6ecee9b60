//! Nodes: addresses, provider id, labels, address pairs, and life cycle.

pub mod apply;
pub mod controller;
pub mod life_cycle;
pub mod observe;
pub mod pairs;
pub mod plan;
pub mod view;
