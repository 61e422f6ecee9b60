//! ake-api: the only holder of privileged credentials.
//!
//! A request comes in by [`http`], whose [`auth`] asks Keystone who is calling; the [`service`] loads what the
//! cluster wants from the [`store`], asks the [`cloud`] what must be known, lets [`decide`] judge, stores the
//! outcome and signals the [`device`] task, which keeps the balancers at what is stored.

pub mod auth;
pub mod cloud;
pub mod config;
pub mod decide;
pub mod device;
pub mod feed;
pub mod http;
pub mod metrics;
pub mod rebuild;
pub mod refusal;
pub mod reload;
pub mod serve;
pub mod service;
pub mod show;
pub mod store;
