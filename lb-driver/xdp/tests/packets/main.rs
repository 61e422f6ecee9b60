//! What the data plane does to packets, frame by frame: `BPF_PROG_TEST_RUN` on the program as it is shipped.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

mod basics;
mod bench;
mod errors;
mod flows;
mod fragments;
mod frames;
mod fuzz;
mod health;
mod neighbours;
mod states;
mod table;
