//! The flow table: who gives way to whom, and what several processors do to it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Barrier,
    thread,
};

use ake_xdp::{
    config::Limits,
    layout::{self, FlowKey},
    maps::DataPlane,
    plan::{self, Book, Standing, Tables},
    table::{self, Entry, Seed, WAYS},
};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_driver::model::{Affinity, LoadBalancer, MacAddr, Pool, Protocol, State, Version};

use crate::{
    bench::{TX, VIP, endpoint, member, owner},
    frames::{self, Frame, OWN},
};

/// Entries of the smallest table.
const ENTRIES: u32 = 1 << 18;

struct World {
    plane: DataPlane,
    book: Book,
    tables: Tables,
    state: State,
}

impl World {
    /// The smallest table, no limit of new flows, and three members behind TCP 80.
    fn new() -> Self {
        let limits = Limits { flows: 1024, new_flows: 1 << 31, members: 16, ..Limits::default() };
        let members = (1..=3).map(|index| (format!("m{index}"), member(index))).collect();
        let balancer = LoadBalancer {
            vip: VIP.parse().unwrap(),
            listeners: [(endpoint(Protocol::Tcp, 80), owner("nodes"))].into(),
            source_ranges: BTreeSet::new(),
            affinity: Affinity::None,
        };
        let state = State {
            version: Version::default(),
            pools: BTreeMap::from([(owner("nodes"), Pool { members, checks: BTreeSet::new() })]),
            load_balancers: BTreeMap::from([(owner("four"), balancer)]),
        };
        let plane = DataPlane::load(MacAddr::new(OWN).unwrap(), &limits).unwrap();
        let mut world = Self { plane, book: Book::new(limits, vec![]), tables: Tables::default(), state };
        world.write();
        world
    }

    fn write(&mut self) {
        let tables = self.book.tables(&self.state, |_, _| Standing::Well).unwrap();
        for write in plan::writes(&self.tables, &tables) {
            self.plane.write(&write).unwrap();
        }
        self.tables = tables;
    }

    /// One member drains: its flows are known to the table alone.
    fn drain(&mut self, name: &str) {
        let nodes = self.state.pools.get_mut(&owner("nodes")).unwrap();
        nodes.members.get_mut(name).unwrap().draining = true;
        self.write();
    }

    fn program(&mut self) -> &Xdp {
        self.plane.program().unwrap()
    }

    fn entries(&self) -> Vec<(u32, Entry)> {
        self.plane.table().entries().unwrap()
    }
}

/// Flow number so-and-so: its client and port.
fn client(flow: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from(0x0a00_0000 + (flow >> 14)), 1024 + (flow & 0x3fff) as u16)
}

fn frame(flow: u32, flags: u8) -> Vec<u8> {
    let (address, port) = client(flow);
    Frame::v4(&address.to_string(), VIP).tcp(port, 80, flags, flow)
}

fn key(flow: u32) -> FlowKey {
    let ((address, port), vip) = (client(flow), VIP.parse::<Ipv4Addr>().unwrap());
    let mut key = [0; 40];
    key[..16].copy_from_slice(&address.to_ipv6_mapped().octets());
    key[16..32].copy_from_slice(&vip.to_ipv6_mapped().octets());
    key[32..34].copy_from_slice(&port.to_be_bytes());
    key[34..38].copy_from_slice(&[0, 80, 6, 4]);
    key
}

/// The member that a frame goes to.
fn goes_to(program: &Xdp, frame: &[u8]) -> u8 {
    let mut out = [0; 256];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), repeat: 1, ..Default::default() };
    assert_eq!(program.test_run(options).unwrap().return_value, TX);
    out[5]
}

/// What bpf/flows.h does, entry by entry.
struct Model {
    seed: Seed,
    table: Vec<[Option<Entry>; WAYS]>,
}

impl Model {
    fn of(world: &World) -> Self {
        let mut table = vec![[None; WAYS]; 1 << 16];
        for (place, entry) in world.entries() {
            let bucket = &mut table[place as usize];
            let free = bucket.iter().position(Option::is_none).unwrap();
            bucket[free] = Some(entry);
        }
        Self { seed: world.plane.table().seed(), table }
    }

    /// The entry that gives way to a new flow.
    fn enter(&mut self, key: &FlowKey, now: u32) -> Option<Entry> {
        let hash = table::hash(key, &self.seed);
        let buckets = table::places(hash, 16);
        let free = buckets.map(|place| self.table[place].iter().filter(|entry| entry.is_none()).count());
        let new = Entry { hash, who: 0, state: u64::from(now) << 48, key: *key };
        if free != [0, 0] {
            let bucket = &mut self.table[buckets[usize::from(free[1] > free[0])]];
            *bucket.iter_mut().find(|entry| entry.is_none()).unwrap() = Some(new);
            return None;
        }
        let all = buckets.iter().flat_map(|place| (0..WAYS).map(|way| (*place, way)));
        let rank = |(place, way): &(usize, usize)| {
            let entry = self.table[*place][*way].unwrap();
            (!entry.seen(), entry.age(now))
        };
        let (place, way) = all.max_by_key(rank).unwrap();
        self.table[place][way].replace(new)
    }
}

#[test]
fn who_was_seen_once_gives_way_before_the_others_and_the_oldest_first() {
    let mut world = World::new();
    // ages in steps of half a second and more: time that passes meanwhile changes no order
    let told = |flow: u32| {
        let (seen, age) = (!flow.is_multiple_of(3), (flow.wrapping_mul(2_654_435_761) >> 17) % 30_000);
        (key(flow), layout::flow(1, 1, u32::from(seen) << 8 | age << 16))
    };
    let flows: Vec<_> = (0..ENTRIES + 60_000).map(told).collect();
    world.plane.enter(&flows, true).unwrap();
    let mut model = Model::of(&world);
    let full = model.table.iter().flatten().flatten().count();
    assert!(full as u32 > ENTRIES / 100 * 97, "{full}");

    let now = world.plane.time().unwrap();
    let (mut gone, mut once) = (0, 0);
    for flow in 1 << 20..(1 << 20) + 5000 {
        goes_to(world.program(), &frame(flow, frames::SYN));
        if let Some(entry) = model.enter(&key(flow), now) {
            gone += 1;
            once += u32::from(!entry.seen());
        }
    }
    assert!(gone > 4000 && once > gone / 2 && once < gone, "{once} of {gone}");
    let prints = |entries: &mut dyn Iterator<Item = Entry>| {
        entries.map(|entry| table::print(entry.hash)).collect::<BTreeSet<_>>()
    };
    let there = prints(&mut world.entries().into_iter().map(|(_, entry)| entry));
    let expected = prints(&mut model.table.into_iter().flatten().flatten());
    // entries of one age within a bucket are alike
    let differ = there.symmetric_difference(&expected).count();
    assert!(differ <= 10, "{differ}");
}

#[test]
fn a_table_below_its_capacity_forgets_nothing() {
    let mut world = World::new();
    let flows = ENTRIES / 2;
    let told: Vec<_> = (0..flows - 5000).map(|flow| (key(flow), layout::flow(1, 1, 0))).collect();
    world.plane.enter(&told, true).unwrap();
    for flow in flows - 5000..flows {
        goes_to(world.program(), &frame(flow, frames::SYN));
    }
    let there: BTreeSet<u64> = world.entries().iter().map(|(_, entry)| table::print(entry.hash)).collect();
    let seed = world.plane.table().seed();
    let lost =
        (0..flows).filter(|flow| !there.contains(&table::print(table::hash(&key(*flow), &seed)))).count();
    assert!(lost <= flows as usize / 10_000, "{lost} of {flows}");
}

#[test]
fn a_flood_in_a_full_table_takes_nothing_from_flows_that_go_on() {
    let mut world = World::new();
    let begin = |world: &mut World, flow| {
        let member = goes_to(world.program(), &frame(flow, frames::SYN));
        assert_eq!(goes_to(world.program(), &frame(flow, frames::ACK)), member);
        member
    };
    let began: Vec<(u32, u8)> = (0..5000).map(|flow| (flow, begin(&mut world, flow))).collect();
    // a flood that went before: more than the table holds
    let flood = 1 << 22..(1 << 22) + ENTRIES * 3 / 2;
    let flood: Vec<_> = flood.map(|flow| (key(flow), layout::flow(1, 1, 0))).collect();
    world.plane.enter(&flood, true).unwrap();
    assert!(world.entries().len() as u32 > ENTRIES / 100 * 99, "it is full");
    world.drain("m1");
    let program = world.program();
    let go_on = || {
        for (flow, member) in &began {
            assert_eq!(goes_to(program, &frame(*flow, frames::ACK)), *member, "flow {flow}");
        }
    };
    thread::scope(|scope| {
        for half in 2..4u32 {
            let flood = half << 22..(half << 22) + 20_000;
            scope.spawn(move || {
                for flow in flood {
                    goes_to(program, &frame(flow, frames::SYN));
                }
            });
        }
        go_on();
    });
    go_on();
    assert!(began.iter().filter(|(_, member)| *member == 1).count() > 1000);
    let keys: BTreeSet<FlowKey> = world.entries().into_iter().map(|(_, entry)| entry.key).collect();
    assert!(began.iter().all(|(flow, _)| keys.contains(&key(*flow))), "each is known by its key");
}

/// A table where each new flow pushes another one out.
fn full() -> World {
    let mut world = World::new();
    let filled = 1 << 22..(1 << 22) + ENTRIES * 3 / 2;
    let filled: Vec<_> = filled.map(|flow| (key(flow), layout::flow(1, 1, 1 << 8))).collect();
    world.plane.enter(&filled, true).unwrap();
    world
}

#[test]
fn processors_that_meet_in_a_bucket_never_send_a_flow_elsewhere() {
    const FLOWS: u32 = 10_000;
    let mut world = full();
    let program = world.program();
    // all begin the same flows, side by side
    let went: Vec<Vec<u8>> = thread::scope(|scope| {
        let run = || {
            let both = |flow| [frames::SYN, frames::ACK].map(|flags| goes_to(program, &frame(flow, flags)));
            (0..FLOWS).flat_map(both).collect::<Vec<u8>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(went.iter().all(|members| *members == went[0]));
    let mut slots = BTreeMap::<FlowKey, BTreeSet<u16>>::new();
    for (_, entry) in world.entries() {
        slots.entry(entry.key).or_default().insert(entry.slot());
    }
    for flow in 0..FLOWS {
        let slots = slots.get(&key(flow)).map_or(0, BTreeSet::len);
        assert!(slots <= 1, "flow {flow} has {slots} members");
    }
}

#[test]
fn processors_that_take_an_entry_from_one_another_leave_it_whole() {
    const PLACE: usize = 4711;
    let mut world = full();
    // a frame that is sent on is the same frame again, so a program that is repeated does the same each time
    let members = world.state.pools.values_mut().flat_map(|pool| pool.members.values_mut());
    members.for_each(|member| member.mac = MacAddr::new(OWN).ok());
    world.write();
    let table = world.plane.table();
    let places = |flow: u32| table::places(table::hash(&key(flow), &table.seed()), 16);
    let two: Vec<u32> = (0..).filter(|flow| places(*flow)[1] == PLACE).take(2).collect();
    let keys: Vec<FlowKey> = two.iter().map(|flow| key(*flow)).collect();
    let near = [PLACE, places(two[0])[0], places(two[1])[0]].map(|place| u32::try_from(place).unwrap());
    for round in 0..300 {
        // of entries of one age the last one gives way, which is the same one for both flows
        let others = near.iter().flat_map(|place| table.at(*place).unwrap());
        let others = others.filter(|entry| !keys.contains(&entry.key));
        let young: Vec<_> = others.map(|entry| (entry.key, layout::flow(entry.slot(), 1, 1 << 8))).collect();
        world.plane.enter(&young, true).unwrap();
        let program = world.program();
        let together = Barrier::new(two.len());
        thread::scope(|scope| {
            for flow in &two {
                let together = &together;
                scope.spawn(move || {
                    // the first fragment of a datagram goes by the table, whatever the processor remembers
                    let mut first = frame(*flow, frames::ACK);
                    first[20] = 0x20;
                    let options =
                        TestRunOptions { data_in: Some(&first), repeat: 2000, ..Default::default() };
                    together.wait();
                    assert_eq!(program.test_run(options).unwrap().return_value, TX);
                });
            }
        });
        let entries = table.at(near[0]).unwrap();
        assert_eq!(entries.len(), WAYS, "round {round}: one is half written");
        assert!(entries.iter().any(|entry| keys.contains(&entry.key)), "round {round}");
        for entry in entries {
            assert!(entry.told(&table.seed(), 0, 1).is_some(), "round {round}: another one's key: {entry:?}");
        }
    }
}
