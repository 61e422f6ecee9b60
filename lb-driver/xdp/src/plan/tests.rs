use std::num::NonZeroU16;

use lb_driver::model::{Check, LoadBalancer, MacAddr, Protocol, Version};
use proptest::{prelude::*, sample};

use super::*;
use crate::memory;

fn owner(object: &str) -> Owner {
    Owner::new("project", "cluster", object).unwrap()
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { protocol: Protocol::Tcp, port: NonZeroU16::new(port).unwrap() }
}

prop_compose! {
    fn member()(weight in 0u16..3, draining: bool, address in 1u8..9, mac: bool) -> Member {
        let mac = mac.then(|| MacAddr::new([2, 0, 0, 0, 0, address]).unwrap());
        Member { address: [192, 168, 77, address].into(), mac, weight, draining }
    }
}

prop_compose! {
    fn pool()(
        members in prop::collection::btree_map(sample::select(vec!["a", "b", "c"]), member(), 0..4),
        checked: bool,
    ) -> Pool {
        let checks = checked.then_some(Check::Tcp { port: NonZeroU16::MIN }).into_iter().collect();
        Pool { members: members.into_iter().map(|(name, member)| (name.to_owned(), member)).collect(), checks }
    }
}

fn state() -> impl Strategy<Value = State> {
    let pools = prop::collection::btree_map(sample::select(vec!["p1", "p2", "p3"]), pool(), 1..4);
    let balancer =
        (1u16..4, any::<prop::sample::Index>(), prop::collection::btree_set(0u8..3, 0..3), any::<bool>());
    let balancers = prop::collection::btree_map(0u8..3, balancer, 0..4);
    (pools, balancers).prop_map(|(pools, balancers)| {
        let pools: BTreeMap<_, _> = pools.into_iter().map(|(name, pool)| (owner(name), pool)).collect();
        let names: Vec<_> = pools.keys().cloned().collect();
        let load_balancers = balancers.into_iter().map(|(index, (port, pool, ranges, affine))| {
            let balancer = LoadBalancer {
                vip: [203, 0, 113, index].into(),
                listeners: BTreeMap::from([(endpoint(port), pool.get(&names).clone())]),
                source_ranges: ranges
                    .into_iter()
                    .map(|range| IpNetwork::new([198, 51, range, 0].into(), 24).unwrap())
                    .collect(),
                affinity: if affine { Affinity::ClientIp } else { Affinity::None },
            };
            (owner(&format!("lb{index}")), balancer)
        });
        State { version: Version::default(), pools, load_balancers: load_balancers.collect() }
    })
}

/// Addresses with an odd end are ill.
fn odd_are_ill(_: &Pool, member: &Member) -> Standing {
    match member.address {
        IpAddr::V4(v4) if v4.octets()[3] % 4 == 1 => Standing::Down,
        IpAddr::V4(v4) if v4.octets()[3] % 4 == 3 => Standing::Unwell,
        _ => Standing::Well,
    }
}

/// What a packet meets must be whole at any moment: nothing points at what is not there.
fn whole(tables: &Tables) -> Result<(), TestCaseError> {
    for ((vip, _), listener) in &tables.listeners {
        prop_assert!(tables.vips.contains_key(vip));
        prop_assert!(tables.rings.contains_key(&listener.ring));
    }
    for slots in tables.rings.values() {
        for slot in slots.iter() {
            let member = tables.members.get(slot);
            // one that is unwell is in a ring until that is swapped
            prop_assert!(member.is_some_and(|member| member.mac.is_some()), "slot {}: {:?}", slot, member);
        }
    }
    Ok(())
}

/// The tables that survive the process.
#[derive(Default)]
struct Kernel {
    places: BTreeMap<u16, memory::PlaceRecord>,
    ports: BTreeMap<u32, Identity>,
}

impl Kernel {
    fn take(&mut self, write: &Write) {
        match write {
            Write::Place(slot, place) => {
                self.places.insert(*slot, place.record());
            }
            Write::CloseMember(slot) => {
                self.places.entry(*slot).and_modify(|record| *record = Place::closed(*record));
            }
            Write::Port(id, identity) => {
                self.ports.insert(*id, *identity);
            }
            Write::ClosePort(id) => {
                self.ports.remove(id);
            }
            _ => {}
        }
    }

    /// What another process reads.
    fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        self.places.iter().for_each(|(slot, record)| memory.place(*slot, *record));
        self.ports.iter().for_each(|(id, identity)| memory.port(*id, memory::port_record(*identity)));
        memory
    }
}

proptest! {
    #[test]
    fn writes_lead_from_state_to_state_without_a_gap(
        states in prop::collection::vec((state(), any::<bool>()), 1..6),
    ) {
        let limits = Limits { members: 16, pools: 16, listeners: 16, ..Limits::default() };
        let mut book = Book::new(limits, vec![]);
        let mut tables = Tables::default();
        let mut kernel = Kernel::default();
        let mut taken = BTreeMap::new();
        for (state, rebirth) in &states {
            let rebirth = *rebirth;
            let wanted = book.tables(state, odd_are_ill).unwrap();
            for write in writes(&tables, &wanted) {
                tables.perform(&write);
                kernel.take(&write);
                whole(&tables)?;
            }
            prop_assert_eq!(&tables, &wanted);
            prop_assert_eq!(writes(&tables, &wanted), vec![]);
            prop_assert_eq!(&book.tables(state, odd_are_ill).unwrap(), &wanted, "a second look changes nothing");
            // another process that takes the tables over gives the same places, and counts on
            let memory = kernel.memory();
            let mut heir = Book::new(limits, Vec::new()).recall(&memory);
            let inherited = heir.tables(state, odd_are_ill).unwrap();
            prop_assert_eq!((&inherited.places, &inherited.ports), (&wanted.places, &wanted.ports));
            for write in writes(&Tables::recall(&memory), &inherited) {
                let resets = matches!(write, Write::ZeroMember(_) | Write::ZeroListener(_) | Write::Place(..));
                prop_assert!(!resets, "{:?}", write);
            }
            if rebirth {
                book = heir;
                tables = Tables::recall(&memory);
                for write in writes(&tables, &inherited) {
                    tables.perform(&write);
                    whole(&tables)?;
                }
            }
            // a slot with its generation is one machine's for ever
            for (owner, pool) in &state.pools {
                for (name, member) in &pool.members {
                    let slot = book.slot(owner, name).unwrap();
                    let machine = (owner.clone(), name.clone(), member.address);
                    let known = taken.entry((slot, wanted.members[&slot].generation)).or_insert(machine.clone());
                    prop_assert_eq!(&*known, &machine);
                    let in_ring = book.ring(owner).contains(&slot);
                    let takes = member.mac.is_some() && odd_are_ill(pool, member) != Standing::Down;
                    prop_assert_eq!(wanted.members[&slot].mac.is_some(), takes);
                    let well = member.mac.is_some() && odd_are_ill(pool, member) == Standing::Well;
                    prop_assert_eq!(wanted.members[&slot].well, well);
                    prop_assert_eq!(wanted.places[&slot].alive, well, "whom the next process takes for well");
                    prop_assert_eq!(in_ring, well && !member.draining && member.weight > 0);
                }
            }
        }
    }
}

#[test]
fn a_full_table_is_named() {
    let limits = Limits { source_ranges: 1, ..Limits::default() };
    let balancer = LoadBalancer {
        vip: [203, 0, 113, 17].into(),
        listeners: BTreeMap::new(),
        source_ranges: ["10.0.0.0/8", "192.0.2.0/24"].map(|range| range.parse().unwrap()).into(),
        affinity: Affinity::None,
    };
    let state = State { load_balancers: BTreeMap::from([(owner("a"), balancer)]), ..State::default() };
    let error = Book::new(limits, vec![]).tables(&state, |_, _| Standing::Well).unwrap_err();
    assert_eq!(
        error.to_string(),
        "limits.source_ranges is 1: the state has more source ranges; raise it in the configuration and restart"
    );
}

#[test]
fn the_limits_that_are_told_can_be_reached() {
    let limits = Limits { listeners: 16, pools: 2, members: 4, source_ranges: 16, ..Limits::default() };
    let told = Book::new(limits, vec![]).limits();
    let member = |n| Member { address: [192, 168, 77, n].into(), mac: None, weight: 1, draining: false };
    let pool = |first| Pool {
        members: [first, first + 1].map(|n| (format!("w{n}"), member(n))).into(),
        checks: BTreeSet::new(),
    };
    let balancer = |n: u8| LoadBalancer {
        vip: [203, 0, 113, n].into(),
        listeners: BTreeMap::from([(endpoint(80), owner("p1"))]),
        source_ranges: BTreeSet::from([IpNetwork::new([10, n, 0, 0].into(), 16).unwrap()]),
        affinity: Affinity::None,
    };
    let state = State {
        pools: BTreeMap::from([(owner("p1"), pool(1)), (owner("p2"), pool(3))]),
        load_balancers: (0..16).map(|n| (owner(&format!("lb{n}")), balancer(n))).collect(),
        ..State::default()
    };
    let room = |most: Option<u32>| usize::try_from(most.unwrap()).unwrap();
    assert_eq!((room(told.load_balancers), room(told.listeners), room(told.source_ranges)), (16, 16, 16));
    assert_eq!((room(told.pools), room(told.members)), (2, 4));
    Book::new(limits, vec![]).tables(&state, |_, _| Standing::Well).unwrap();
}
