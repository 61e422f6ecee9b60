//! Services of type LoadBalancer: observe, plan, apply, status.

pub mod addresses;
pub mod annotations;
pub mod apply;
mod batch;
pub mod changes;
pub mod claim;
pub mod controller;
pub mod drains;
mod failure;
mod feed;
pub mod health;
pub mod holds;
pub mod names;
pub mod observe;
pub mod plan;
pub mod policy;
mod pools;
pub mod publish;
pub mod reference;
pub mod rules;
mod share;
pub mod step;
pub mod sweep;
pub mod view;
pub mod voice;
pub mod wanted;
mod writes;

#[cfg(test)]
mod tests;
