//! The path of the demo, on the lab that `AKE_LAB` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use scenarios::{report::Report, walk};

#[test]
fn every_proof_of_the_demo_holds() {
    let lab = scenarios::lab_of_this_run().unwrap();
    let mut report = Report::new("path");
    let walked = walk::path(&lab, &mut report);
    let held = report.close();
    walked.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(held, "a proof does not hold; see above");
}
