//! The only code that speaks to OpenStack.
//!
//! A [`CloudConfig`] says where the cloud is and who we are, a [`Session`] is logged in there, and one module
//! per kind of object holds plain functions that take the session: [`servers`], [`ports`], [`networks`],
//! [`subnets`], [`security_groups`], [`volumes`] and [`tokens`]. Structs carry only the fields that are read,
//! and an unknown word from the cloud is kept as it is, never refused.

pub mod call;
pub mod config;
pub mod error;
mod fault;
mod login;
pub mod networks;
pub mod page;
pub mod ports;
pub mod security_groups;
pub mod servers;
pub mod service;
pub mod session;
pub mod subnets;
pub mod tokens;
pub mod volumes;

#[cfg(test)]
mod tests;

pub use config::CloudConfig;
pub use error::{Class, Error, LoginError, Refusal};
pub use http::Method;
pub use secrecy::{ExposeSecret, SecretString};
pub use service::Service;
pub use session::Session;
