//! What is decided: pure functions without a clock, a client or a database.

pub mod access;
pub mod addresses;
pub mod blocks;
pub mod checks;
pub mod election;
pub mod facts;
pub mod kubernetes;
pub mod orphans;
pub mod pairs;
pub mod quota;
pub mod ranges;
pub mod remains;
pub mod validate;
pub mod wanted;
pub mod writes;
