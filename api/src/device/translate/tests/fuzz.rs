//! Whatever bytes a caller sends, what is taken of them is what a balancer takes, and what is refused is told in
//! words that fit one line.

use ake_api_client::{Batch, BundleRequest, ClusterRequest, NodePortRequest};

use super::*;
use crate::decide::{validate, writes::Stop};

const BATCH: &str = r#"{"lease_transitions":3,"if_match":"\"7\"","writes":[
    {"write":"put-address","name":"a","request":{"address":"203.0.113.17"}},
    {"write":"put-address","name":"b","request":{"family":"IPv6"}},
    {"write":"put-pool","name":"a","request":{"checks":[{"type":"http","port":10256,"path":"/healthz"},
        {"type":"vip","address":"a","port":80},{"type":"tcp","port":80}],
        "members":{"a":{"address":"192.168.77.20","weight":2,"draining":true}}}},
    {"write":"put-member","pool":"a","name":"b","request":{"address":"192.168.77.21"}},
    {"write":"put-load-balancer","name":"a","request":{"address":"a","listeners":[
        {"protocol":"TCP","port":80,"pool":"a"},{"protocol":"UDP","port":53,"pool":"a"}],
        "source_ranges":["198.51.100.0/24"],"affinity":"ClientIP"}},
    {"write":"delete-member","pool":"a","name":"b"},
    {"write":"delete-load-balancer","name":"a"},{"write":"delete-pool","name":"a"},
    {"write":"delete-address","name":"b"}]}"#;

const OTHERS: [&str; 3] = [
    r#"{"name":"demo","network":"n"}"#,
    r#"{"asker":"controller","pod_ranges":["10.240.1.0/24"],"addresses":["a"],"vip_blocks":true}"#,
    r#"{"claim":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","ciphertext":"aGVsbG8="}"#,
];

const WORDS: [&[u8]; 24] = [
    b"\"a\"",
    b"\"b\"",
    b"0",
    b"1",
    b"65535",
    b"65536",
    b"-1",
    b"1e3",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\\u0000\"",
    b"\"\\n\"",
    b"\"203.0.113.17\"",
    b"\"2001:db8:113::11\"",
    b"\"0.0.0.0/0\"",
    b"\"10.0.0.1/8\"",
    b"\"IPv6\"",
    b"\"SCTP\"",
    b"\"vip\"",
    b"\"put-pool\"",
    b"\"/\"",
    b"\"../a\"",
];

fn line(refusal: &crate::refusal::Refusal) -> Result<(), String> {
    let fits = !refusal.message.is_empty() && !refusal.message.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(format!("a refusal of one line was expected, it was {:?}", refusal.message))
    }
}

fn judged(batch: Batch) -> Result<(), String> {
    let text = serde_json::to_string(&batch).map_err(|e| e.to_string())?;
    if serde_json::from_str::<Batch>(&text).map_err(|e| e.to_string())? != batch {
        return Err(format!("it does not read back as it was written: {text}"));
    }
    let record = cluster();
    let wanted = match apply(&record, &Wanted::default(), &facts(), &batch.writes) {
        Ok(wanted) => wanted,
        Err(Stop::Refused(refusal)) => return line(&refusal),
        Err(Stop::NeedsBlock(_) | Stop::NeedsAdoption(_)) => return Ok(()),
    };
    let kept = wanted.to_objects().map_err(|e| e.to_string())?;
    if Wanted::from_objects(kept).map_err(|e| e.to_string())? != wanted {
        return Err("it is not kept as it is wanted".to_owned());
    }
    let loaded = Loaded { record, wanted, pairs: BTreeMap::new() };
    let state = state(Version { epoch: 1, number: 1 }, &[loaded]).map_err(|e| e.to_string())?;
    state.check().map_err(|e| e.to_string())
}

#[test]
fn fuzz_bodies() {
    let good: Vec<Vec<u8>> = [BATCH].iter().chain(&OTHERS).map(|text| text.as_bytes().to_vec()).collect();
    ake_fuzz::fuzz(&good, &WORDS, |body| {
        if let Ok(batch) = serde_json::from_slice(body) {
            judged(batch)?;
        }
        if let Ok(request) = serde_json::from_slice::<ClusterRequest>(body) {
            validate::cluster(&request).as_ref().err().map_or(Ok(()), line)?;
        }
        if let Ok(request) = serde_json::from_slice::<NodePortRequest>(body) {
            validate::node_port(&request, &[cluster().pod_range]).as_ref().err().map_or(Ok(()), line)?;
        }
        if let Ok(request) = serde_json::from_slice::<BundleRequest>(body) {
            validate::bundle("worker", &request).as_ref().err().map_or(Ok(()), line)?;
        }
        Ok(())
    });
}
