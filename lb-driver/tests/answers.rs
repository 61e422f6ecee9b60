//! Whatever a device answers, it is read to a possible state or told to be none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

use lb_driver::vendor::xdp::{translate, wire};

const STATE: &[u8] = br#"{"version":{"epoch":1,"number":7},"pools":[{"owner":"p/c/nodes","members":[
    {"name":"w0","address":"192.168.77.20","mac":"fa:16:3e:00:00:20","weight":1},
    {"name":"w1","address":"fd00:77::21","weight":0,"draining":true}],
    "checks":[{"type":"http","port":10256,"path":"/healthz"},{"type":"vip","vip":"203.0.113.17","port":80},
    {"type":"tcp","port":1}]}],
    "load_balancers":[{"owner":"p/c/svc-1","vip":"203.0.113.17",
    "listeners":[{"protocol":"SCTP","port":36412,"pool":"p/c/nodes"}],
    "source_ranges":["198.51.100.0/24"],"affinity":"ClientIP"}]}"#;

const STATUS: &[u8] =
    br#"{"version":{"epoch":1,"number":7},"mark":3,"pools":[{"owner":"p/c/nodes","ring_size":251,
    "members":[{"name":"w0","address":"192.168.77.20","healthy":true,"slots":251,"new_flows":9},
    {"name":"w1","address":"fd00:77::21","healthy":null,"reason":"draining","slots":0,"new_flows":0}]}],
    "load_balancers":[{"owner":"p/c/svc-1","vip":"203.0.113.17",
    "listeners":[{"protocol":"TCP","port":80,"packets":1,"bytes":54}]}],"drops":{"malformed":1}}"#;

const WORDS: [&[u8]; 14] = [
    b"\"p/c/nodes\"",
    b"\"p/c/svc-1\"",
    b"\"//\"",
    b"0",
    b"-1",
    b"65536",
    b"18446744073709551615",
    b"null",
    b"{}",
    b"[]",
    b"\"0.0.0.0\"",
    b"\"::ffff:203.0.113.17\"",
    b"\"ff:ff:ff:ff:ff:ff\"",
    b"\"10.0.0.0/33\"",
];

#[test]
fn fuzz_answers_of_xdp() {
    let read = |bytes: &[u8]| {
        let state: wire::Document = serde_json::from_slice(bytes).ok()?;
        translate::state(&state).ok()
    };
    assert!(read(STATE).is_some());
    assert!(serde_json::from_slice::<wire::StatusDocument>(STATUS).is_ok());
    ake_fuzz::fuzz(&[STATE.to_vec(), STATUS.to_vec()], &WORDS, |bytes| {
        if let Ok(status) = serde_json::from_slice::<wire::StatusDocument>(bytes) {
            translate::status(status);
        }
        let Some(state) = read(bytes) else { return Ok(()) };
        state.check().map_err(|e| e.to_string())?;
        let again = translate::state(&translate::document(&state)).map_err(|e| e.to_string())?;
        if again == state { Ok(()) } else { Err(format!("{state:?} was sent, and {again:?} read")) }
    });
}
