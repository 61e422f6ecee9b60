//! AKE's own balancer: an XDP data plane behind a versioned state.
//!
//! A state comes in over mutual TLS ([`server`]) or from the disk ([`store`]); [`engine`] holds it together
//! with what [`health`] knows of the members; [`plan`] says what the kernel's maps shall hold for it, and
//! [`maps`] writes that. The packets themselves are seen by `bpf/balancer.bpf.c` alone.

pub mod announce;
pub mod config;
pub mod engine;
pub mod hash;
pub mod health;
pub mod layout;
pub mod link;
pub mod maps;
pub mod memory;
pub mod metrics;
pub mod neighbours;
pub mod pins;
pub mod plan;
pub mod probe;
pub mod server;
pub mod store;
pub mod sync;
pub mod table;
