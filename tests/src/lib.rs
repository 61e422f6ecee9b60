//! Scenarios, proofs and benchmarks over the lab.
