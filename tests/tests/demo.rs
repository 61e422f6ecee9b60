//! `make demo` when something goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn a_stage_that_fails_names_itself_its_cause_and_where_to_look_and_the_demo_exits_non_zero() {
    let out = Command::new(env!("CARGO_BIN_EXE_ake-demo")).args(["--name", "No/Name"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(!out.status.success(), "{text}");
    for word in ["stage \"a cloud on this machine", "No/Name", "expected", "ake-lab", "logs", "0 passed"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}
