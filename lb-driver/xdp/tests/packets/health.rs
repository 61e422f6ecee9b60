//! What members take that are not well.

use std::{collections::BTreeMap, num::NonZeroU16};

use ake_xdp::health::{Health, Silence, Target};
use lb_driver::model::Check;

use crate::{
    bench::{Bench, VIP, member as member_of, owner, tcp},
    frames::{CLIENT, Frame},
};

/// One that this bench has no means for, so nothing is sent.
fn check() -> Check {
    Check::Vip { vip: VIP.parse().unwrap(), port: NonZeroU16::MIN }
}

fn says(bench: &Bench, members: &[u8], health: &Health) {
    let target = |member: &u8| Target { address: member_of(*member).address, check: check() };
    bench.engine.report(members.iter().map(|member| (target(member), health.clone()))).unwrap();
}

/// Client ports of each member's connections.
fn opened(bench: &Bench, ports: std::ops::Range<u16>) -> BTreeMap<u8, Vec<u16>> {
    let mut opened = BTreeMap::<u8, Vec<u16>>::new();
    ports.for_each(|port| opened.entry(bench.goes_to(&tcp(port).0).unwrap()).or_default().push(port));
    opened
}

#[tokio::test]
async fn connections_stay_where_somebody_is_and_all_else_goes_where_it_is_well() {
    let mut bench = Bench::new(3);
    bench.change(|state| {
        state.pools.get_mut(&owner("nodes")).unwrap().checks.insert(check());
    });
    let well = Health { healthy: Some(true), ..Health::default() };
    let unwell = Health { healthy: Some(false), reason: Some("503".to_owned()), ..Health::default() };
    let silent = Health { silence: Some(Silence::OfTheWell), ..unwell.clone() };
    says(&bench, &[1, 2, 3], &well);
    let opened_before = opened(&bench, 10_000..10_300);
    let udp = |port: u16| bench.goes_to(&Frame::v4(CLIENT, VIP).udp(port, 53, b""));
    let asked: Vec<u16> = (10_000..10_300).filter(|port| udp(*port) == Ok(1)).collect();
    assert!(opened_before[&1].len() > 50 && asked.len() > 50);
    let goes_on = |member: u8, to: &dyn Fn(Result<u8, u32>) -> bool| {
        opened_before[&member].iter().all(|port| to(bench.goes_to(&tcp(*port).1)))
    };
    let stays = |member: u8| goes_on(member, &|to| to == Ok(member));

    // it answers, though badly
    says(&bench, &[1], &unwell);
    assert!((1..4).all(stays));
    assert_eq!(opened(&bench, 20_000..20_300).keys().collect::<Vec<_>>(), [&2, &3], "new ones go elsewhere");
    let twice = opened_before[&1][0];
    assert!(matches!(bench.goes_to(&tcp(twice).0), Ok(2 | 3)), "what did not begin yet, too");
    assert!(asked.iter().all(|port| matches!(udp(*port), Ok(2 | 3))), "and so do datagrams");
    says(&bench, &[1], &well);
    assert!(opened_before[&1][1..].iter().all(|port| bench.goes_to(&tcp(*port).1) == Ok(1)));

    // nothing comes back from it, from others something does
    says(&bench, &[1], &silent);
    assert!(goes_on(1, &|to| matches!(to, Ok(2 | 3))) && stays(2) && stays(3));
    // nothing comes back from anybody: it is rather we who are cut off
    says(&bench, &[2, 3], &silent);
    assert!(opened_before[&1][1..].iter().all(|port| bench.goes_to(&tcp(*port).1) == Ok(1)));
    assert!(stays(2) && stays(3));
    // once somebody is heard again, though he still has to rise, all are as they were before until checks say otherwise
    says(&bench, &[2], &unwell);
    assert_eq!(opened(&bench, 30_000..30_300).keys().collect::<Vec<_>>(), [&1, &2, &3]);
    assert!(stays(2) && stays(3));
}
