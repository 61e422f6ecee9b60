//! ake-heat: the work behind AKE's Heat resources.
//!
//! Heat's engine runs `ake-heat` once per step of a resource's life: one JSON [`document::Request`] on
//! standard input, one JSON [`document::Answer`] on standard output, and on failure one sentence on standard
//! error, which becomes the stack's fault. The Python beside it (`heat-resources/plugin`) knows no resource by
//! name: it builds Heat's classes from what `ake-heat schema` prints.
//!
//! Every resource is two pure functions from what was observed to a [`plan::Plan`]: what is missing while it
//! is wanted, and what is left over while it is not. [`run`] observes, plans and applies until nothing is left
//! to do; so a step that was cut short is taken up by the next one.

pub mod access_rules;
pub mod authority;
pub mod bundle;
pub mod config;
pub mod document;
pub mod markdown;
pub mod plan;
pub mod resources;
pub mod run;
pub mod schema;
pub mod seal;
pub mod world;
