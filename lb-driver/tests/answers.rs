//! Whatever a device answers, it is read to a possible state or told to be none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail anywhere")]

use std::collections::{BTreeMap, BTreeSet};

use lb_driver::{
    conformance,
    model::State,
    vendor::{
        bigip::{
            derive::{Style, derive},
            foreign::Foreign,
            objects::{Kind, Object, Objects},
            plan::plan,
            recognise,
            replies::Page,
        },
        xdp::{translate, wire},
    },
};
use serde_json::{Value, json};

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

fn style() -> Style {
    Style { prefix: "ake-".to_owned(), traffic_group: "/Common/traffic-group-1".to_owned() }
}

/// The pages on which a device shows a state's objects, by collection.
fn pages(state: &State) -> Vec<u8> {
    let mut pages: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (key, object) in derive(state, &style()).objects {
        let mut item = serde_json::to_value(object).unwrap();
        item["name"] = json!(key.name);
        item["partition"] = json!(key.partition);
        let list = |value: Value| value.as_array().cloned().unwrap_or_default();
        let named = |value: Value| list(value).into_iter().map(|path| json!({"name": path})).collect();
        if key.kind == Kind::Pool {
            let mut members = list(item["members"].take());
            members.iter_mut().for_each(|member| member["fullPath"] = member["name"].take());
            item["membersReference"] = json!({"items": members});
        }
        if key.kind == Kind::Virtual {
            let (profiles, persist): (Vec<Value>, Vec<Value>) =
                (named(item["profiles"].take()), named(item["persist"].take()));
            item["profilesReference"] = json!({"items": profiles});
            item["persist"] = persist.into();
        }
        pages.entry(key.kind.collection()).or_default().push(item);
    }
    let pages = pages.into_iter().map(|(collection, items)| (collection, json!({"items": items})));
    serde_json::to_vec(&pages.collect::<BTreeMap<_, _>>()).unwrap()
}

/// What is read of such pages: objects of ours, and all items as they would be if they were others'.
fn read_pages(bytes: &[u8]) -> Option<(Objects, Vec<(Kind, Value)>)> {
    let mut pages: BTreeMap<String, Value> = serde_json::from_slice(bytes).ok()?;
    let (mut objects, mut items) = (Objects::new(), Vec::new());
    for kind in Kind::ALL {
        let Some(page) = pages.remove(kind.collection()) else { continue };
        let page: Page = serde_json::from_value(page).ok()?;
        objects.extend(page.items.iter().cloned().filter_map(|item| Object::read(kind, item)));
        items.extend(page.items.into_iter().map(|item| (kind, item)));
    }
    Some((objects, items))
}

fn objects(bytes: &[u8]) -> Option<Objects> {
    read_pages(bytes).map(|(objects, _)| objects)
}

#[test]
fn fuzz_answers_of_bigip() {
    let series = conformance::series().unwrap();
    let states: Vec<State> = series.into_iter().map(|(_, state)| state).step_by(3).collect();
    let good: Vec<Vec<u8>> = states.iter().map(pages).collect();
    let said = |objects: &Objects| {
        let state = recognise::state(objects, &BTreeSet::new(), &style());
        (state.pools, state.load_balancers)
    };
    let known: Vec<_> = states.iter().map(|state| derive(state, &style()).objects).collect();
    let told: Vec<_> = known.iter().map(said).collect();
    for (bytes, told) in good.iter().zip(&told) {
        assert_eq!(said(&objects(bytes).unwrap()), *told);
    }
    ake_fuzz::fuzz(&good, &WORDS, |bytes| {
        let Some((objects, items)) = read_pages(bytes) else { return Ok(()) };
        let foreign = Foreign::new(BTreeSet::new(), &items, &BTreeSet::new(), &objects);
        foreign.obstacles(&states[0], &style(), &objects);
        let said = said(&objects);
        for (known, told) in known.iter().zip(&told) {
            plan(known, &objects, &BTreeSet::new());
            // what is taken for the wanted state is made of the very objects of that state; its version is told apart
            let ours = known.iter().filter(|(key, _)| key.partition != style().home());
            let missing = ours.into_iter().find(|(key, object)| objects.get(*key) != Some(*object));
            if let Some((key, object)) = missing.filter(|_| said == *told) {
                let there = objects.get(key);
                return Err(format!("{key} is {there:?} in place of {object:?}, and nobody noticed"));
            }
        }
        Ok(())
    });
}
