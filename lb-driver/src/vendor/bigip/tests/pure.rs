use super::{
    derive::{derive, ratio},
    foreign::Foreign,
    objects::{Key, Kind, Object, Objects},
    plan::{Command, plan},
    *,
};

/// Why a state cannot be on a device that has nothing else.
fn unfit(state: &State) -> Vec<String> {
    let obstacles = Foreign::default().obstacles(state, &style(), &Objects::new());
    obstacles.pools.into_values().chain(obstacles.load_balancers.into_values()).flatten().collect()
}

fn reads_back(state: &State) -> State {
    recognise::state(&derive(state, &style()).objects, &BTreeSet::new(), &style())
}

#[test]
fn one_of_everything_comes_back() {
    let state = everything(7);
    assert_eq!(unfit(&state), Vec::<String>::new());
    assert_eq!(reads_back(&state), state);
}

#[test]
fn what_is_written_is_direct_server_return() {
    let objects = derive(&everything(7), &style()).objects;
    let virtuals: Vec<_> = objects
        .values()
        .filter_map(|object| if let Object::Virtual(object) = object { Some(object) } else { None })
        .collect();
    // three ports for two networks, one port for everybody, one of IPv6
    assert_eq!(virtuals.len(), 8);
    for object in virtuals {
        assert_eq!((&*object.translate_address, &*object.translate_port), ("disabled", "disabled"));
        assert_eq!((&*object.source_address_translation.kind, &*object.source_port), ("none", "preserve"));
        assert_eq!(object.profiles, ["/ake-p1/npath"]);
    }
    let Some(Object::Profile(npath)) = objects.get(&Key::new(Kind::Profile, "ake-p1", "npath")) else {
        panic!()
    };
    assert_eq!((&*npath.loose_close, &*npath.syn_cookie_enable), ("enabled", "disabled"));
    let Some(Object::Pool(pool)) = objects.get(&derive::pool_key(&owner("nodes"), &style())) else {
        panic!()
    };
    assert!(pool.members.iter().all(|member| member.name.ends_with(":0")), "{pool:?}");
    let sessions: Vec<_> = pool.members.iter().map(|m| (m.ratio, &*m.session)).collect();
    assert_eq!(
        sessions,
        [(1, "user-enabled"), (100, "user-enabled"), (1, "user-disabled"), (1, "user-disabled")]
    );

    assert_eq!(pool.monitor.split(" and ").count(), 3);
}

#[test]
fn weights_fit_the_device() {
    for (weight, heaviest, expected) in [
        (0, 0, 1),
        (1, 1, 1),
        (100, 100, 100),
        (50, 100, 50),
        (1, 300, 1),
        (300, 300, 100),
        (65535, 65535, 100),
        (0, 300, 1),
    ] {
        assert_eq!(ratio(weight, heaviest), expected, "{weight} of {heaviest}");
    }
}

#[test]
fn what_the_device_cannot_do_is_named() {
    let mut state = everything(1);
    state.pools.get_mut(&owner("nodes")).unwrap().members.insert("w9".into(), member("192.168.77.20", 1));
    let same = "pool p1/c/nodes: members w0 and w9: both have the address 192.168.77.20; a BIG-IP takes one";
    assert_eq!(unfit(&state), [same]);
    let mut state = everything(1);
    let other = Owner::new("p2", "c", "nodes").unwrap();
    state.pools.insert(other.clone(), Pool::default());
    state.load_balancers.get_mut(&owner("web")).unwrap().listeners.insert(endpoint(Protocol::Tcp, 81), other);
    assert!(unfit(&state)[0].contains("expected a pool of its own project"));
    let mut state = everything(1);
    let quoted = Check::Http { port: port(1), path: "/\"".into() };
    state.pools.get_mut(&owner("six")).unwrap().checks.insert(quoted);
    assert!(unfit(&state)[0].contains("without blanks, quotes and backslashes"));
}

#[test]
fn an_address_stays_with_the_project_that_has_it() {
    let mut state = everything(1);
    let other = Owner::new("p0", "c", "nodes").unwrap();
    let theirs = Pool { members: [("w".to_owned(), member("192.168.77.20", 1))].into(), ..Pool::default() };
    state.pools.insert(other.clone(), theirs);
    let pools = |own: &Objects| {
        let obstacles = Foreign::default().obstacles(&state, &style(), own);
        obstacles.pools.into_keys().map(|owner| owner.to_string()).collect::<Vec<_>>()
    };
    // of two that want it, the one that has it; the first where nobody has
    assert_eq!(pools(&Objects::new()), ["p1/c/nodes"]);
    assert_eq!(pools(&derive(&everything(1), &style()).objects), ["p0/c/nodes"]);
}

#[test]
fn damage_shows_in_what_it_is_for() {
    let state = everything(7);
    let objects = derive(&state, &style()).objects;
    for key in objects.keys().filter(|key| key.partition != style().home()) {
        let mut without = objects.clone();
        without.remove(key);
        let changes = diff(&state, &recognise::state(&without, &BTreeSet::new(), &style()));
        assert!(!changes.is_empty(), "nobody misses {key}");
        let whole = plan(&objects, &without, &BTreeSet::new());
        assert!(matches!(&whole[..], [Command::Create(made, _)] if made == key), "{whole:?}");
    }
    let mut bent = objects.clone();
    for object in bent.values_mut() {
        if let Object::Virtual(object) = object {
            object.translate_port = "enabled".into();
        }
    }
    let read = recognise::state(&bent, &BTreeSet::new(), &style());
    assert_eq!(read.pools, state.pools);
    assert!(!diff(&state, &read).is_empty());
    // what is damaged and no longer wanted still goes
    let nothing = State { version: Version { epoch: 1, number: 8 }, ..State::default() };
    assert_eq!(diff(&nothing, &read).len(), diff(&nothing, &state).len());
}

prop_compose! {
    fn some_member(n: u8)(weight in prop_oneof![0u16..4, Just(1000)], draining: bool, known: bool) -> (String, Member) {
        let mac = known.then(|| MacAddr::new([2, 0, 0, 0, 0, n]).unwrap());
        (format!("w{n}"), Member { address: IpAddr::from([192, 168, 77, n]), mac, weight, draining })
    }
}

fn some_pool() -> impl Strategy<Value = Pool> {
    let checks = prop_oneof![
        (1u16..3).prop_map(|n| Check::Tcp { port: port(n) }),
        (1u16..3, "/[a-z?=.]{0,6}").prop_map(|(n, path)| Check::Http { port: port(n), path }),
        (1u16..3, any::<bool>()).prop_map(|(n, six)| {
            let vip = if six { "2001:db8::1" } else { "203.0.113.1" };
            Check::Vip { vip: vip.parse().unwrap(), port: port(n) }
        }),
    ];
    let members = (1u8..5).prop_flat_map(|n| (0..n).map(some_member).collect::<Vec<_>>());
    (prop::option::of(members), prop::collection::btree_set(checks, 0..3))
        .prop_map(|(members, checks)| Pool { members: members.into_iter().flatten().collect(), checks })
}

/// A possible state: few names, few VIPs and few ports, so that everything meets everything.
pub(super) fn some_state() -> impl Strategy<Value = State> {
    let pools = prop::collection::btree_map(0u8..3, some_pool(), 1..4);
    let ranges = prop::collection::btree_set(
        prop::sample::select(vec!["10.0.0.0/8", "10.0.0.1/8", "0.0.0.0/0", "198.51.100.7/32"]),
        0..3,
    );
    let balancers = prop::collection::btree_map(
        0u8..4,
        (
            0u8..2,
            ranges,
            any::<bool>(),
            prop::collection::vec((0usize..3, 1u16..4, any::<prop::sample::Index>()), 0..4),
        ),
        0..4,
    );
    (pools, balancers, 0u64..9).prop_map(|(pools, balancers, number)| {
        let pools: BTreeMap<_, _> =
            pools.into_iter().map(|(n, pool)| (owner(&format!("pool-{n}")), pool)).collect();
        let names: Vec<_> = pools.keys().cloned().collect();
        let mut claims = BTreeSet::new();
        let mut load_balancers = BTreeMap::new();
        for (n, (vip, ranges, affine, wishes)) in balancers {
            let mut listeners = BTreeMap::new();
            for (protocol, number, pool) in wishes {
                let endpoint = endpoint([Protocol::Tcp, Protocol::Udp, Protocol::Sctp][protocol], number);
                if claims.insert((vip, endpoint)) {
                    listeners.insert(endpoint, pool.get(&names).clone());
                }
            }
            let balancer = LoadBalancer {
                vip: IpAddr::from([203, 0, 113, vip + 1]),
                listeners,
                source_ranges: ranges.into_iter().map(|range| range.parse().unwrap()).collect(),
                affinity: if affine { Affinity::ClientIp } else { Affinity::None },
            };
            load_balancers.insert(owner(&format!("lb-{n}")), balancer);
        }
        State { version: Version { epoch: 0, number }, pools, load_balancers }
    })
}

/// What the device would have after commands.
fn perform(objects: &mut Objects, commands: &[Command]) {
    for command in commands {
        match command {
            Command::Create(key, object) => {
                assert_eq!(objects.insert(key.clone(), object.clone()), None, "{command}")
            }
            Command::Change(key, object) => {
                assert!(objects.insert(key.clone(), object.clone()).is_some(), "{command}")
            }
            Command::Shrink(key, members) => {
                let Some(Object::Pool(pool)) = objects.get_mut(key) else { panic!("{command}") };
                pool.members = members.clone();
            }
            Command::Delete(key) => assert!(objects.remove(key).is_some(), "{command}"),
        }
    }
}

proptest! {
    #[test]
    fn a_state_comes_back_as_it_was(state in some_state()) {
        prop_assert_eq!(state.check(), Ok(()));
        prop_assert_eq!(unfit(&state), Vec::<String>::new());
        prop_assert_eq!(reads_back(&state), state);
    }

    #[test]
    fn a_plan_reaches_what_is_wanted(from in some_state(), to in some_state()) {
        let mut objects = derive(&from, &style()).objects;
        let wanted = derive(&to, &style()).objects;
        let commands = plan(&wanted, &objects, &BTreeSet::new());
        perform(&mut objects, &commands);
        prop_assert_eq!(&objects, &wanted);
        prop_assert_eq!(plan(&wanted, &objects, &BTreeSet::new()), vec![]);
    }
}
