//! Which states are taken.

use ake_xdp::engine::PutError;
use lb_driver::{
    model::{Pool, Version},
    vendor::xdp::translate,
};

use crate::bench::{Bench, member, owner, tcp};

#[test]
fn versions_go_up() {
    let mut bench = Bench::new(1);
    let (writes, states) = bench.engine.activity();
    let same = bench.engine.put(&translate::document(&bench.state)).unwrap();
    assert!(!same.changed);
    assert_eq!(bench.engine.activity(), (writes, states), "a repetition writes nothing");

    let mut other = bench.state.clone();
    other.pools.values_mut().for_each(|pool| pool.members.clear());
    let error = bench.engine.put(&translate::document(&other)).unwrap_err();
    assert!(matches!(error, PutError::Differs(_)), "{error}");
    other.version.number -= 1;
    let error = bench.engine.put(&translate::document(&other)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "version 0.0 is older than 0.1, which is held; a writer that begins anew takes a higher epoch"
    );
    assert_eq!(bench.goes_to(&tcp(1).0), Ok(1));
    bench.change(|state| state.version = Version { epoch: 1, number: 0 });
}

#[test]
fn what_does_not_fit_is_refused_and_the_state_stays() {
    let bench = Bench::new(1);
    let mut big = bench.state.clone();
    big.version.number += 1;
    let members = (0..65).map(|index| (format!("m{index}"), member(1))).collect();
    big.pools.insert(owner("big"), Pool { members, checks: Default::default() });
    let error = bench.engine.put(&translate::document(&big)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "limits.members is 64: the state has more members; raise it in the configuration and restart"
    );
    assert_eq!(bench.engine.version(), Some(bench.state.version));
    assert_eq!(bench.goes_to(&tcp(1).0), Ok(1));
}
