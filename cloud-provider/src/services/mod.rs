//! Services of type LoadBalancer: observe, plan, apply, status.

pub mod annotations;
pub mod apply;
pub mod controller;
pub mod holds;
pub mod observe;
pub mod plan;
pub mod reference;
pub mod rules;
pub mod step;
pub mod sweep;
pub mod view;
pub mod voice;
pub mod wanted;

#[cfg(test)]
mod tests;
