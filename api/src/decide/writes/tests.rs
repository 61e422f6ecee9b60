use ake_api_client::{AddressRequest, Affinity, Check, ClusterId, Listener, Protocol};

use super::*;
use crate::decide::facts::PortFact;

const PORT: &str = "11111111-1111-1111-1111-111111111111";

fn cluster() -> ClusterRecord {
    ClusterRecord {
        blocks: vec!["203.0.113.16/30".parse().unwrap()],
        ..ClusterRecord::new(ClusterId::from_u128(1), ["demo", "p", "n"], "10.240.0.0/16".parse().unwrap())
    }
}

fn facts() -> Facts {
    let port = |id: &str, address: &str, owner: &str, project: &str| PortFact {
        id: id.into(),
        mac: "fa:16:3e:00:00:01".into(),
        network: "n".into(),
        project: project.into(),
        device_owner: owner.into(),
        device_id: if owner.is_empty() { "" } else { "server" }.into(),
        addresses: vec![address.parse().unwrap()],
    };
    Facts {
        ports: vec![
            port(PORT, "192.168.77.20", "compute:nova", "p"),
            port("unbound", "192.168.77.21", "", "p"),
            port("router", "192.168.77.22", "network:router_interface", "p"),
            port("foreign", "192.168.77.23", "compute:nova", "other"),
        ],
        ..Facts::default()
    }
}

fn put_address(name: &str) -> Write {
    Write::PutAddress { name: name.into(), request: AddressRequest::default() }
}

fn put_pool(name: &str) -> Write {
    Write::PutPool {
        name: name.into(),
        request: PoolRequest { members: None, checks: vec![Check::Tcp { port: 6443 }] },
    }
}

fn put_member(address: &str, port: Option<&str>) -> Write {
    Write::PutMember {
        pool: "masters".into(),
        name: "m0".into(),
        request: MemberRequest {
            address: address.parse().unwrap(),
            weight: 1,
            draining: false,
            port: port.map(Into::into),
        },
    }
}

fn put_balancer(name: &str, address: &str, port: u16, pool: &str) -> Write {
    Write::PutLoadBalancer {
        name: name.into(),
        request: LoadBalancerRequest {
            address: address.into(),
            listeners: vec![Listener { protocol: Protocol::Tcp, port, pool: pool.into() }],
            source_ranges: vec![],
            affinity: Affinity::None,
        },
    }
}

fn put_port(ranges: &[&str], addresses: &[&str]) -> Write {
    Write::PutNodePort {
        port: PORT.into(),
        request: NodePortRequest {
            asker: "controller".into(),
            pod_ranges: ranges.iter().map(|r| r.parse().unwrap()).collect(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            vip_blocks: true,
        },
    }
}

fn run(writes: &[Write]) -> Result<Wanted, Stop> {
    apply(&cluster(), &Wanted::default(), &facts(), writes)
}

fn refusal(writes: &[Write]) -> Refusal {
    match run(writes) {
        Err(Stop::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_api_servers_load_balancer_comes_about_in_order_and_repeats_without_change() {
    let writes = [
        put_address("api"),
        put_pool("masters"),
        put_member("192.168.77.20", Some(PORT)),
        put_balancer("api", "api", 6443, "masters"),
        put_port(&["10.240.1.0/24"], &["api"]),
    ];
    let wanted = run(&writes).unwrap();
    assert_eq!(wanted.addresses["api"].to_string(), "203.0.113.16");
    assert_eq!(wanted.pools["masters"].members["m0"].mac, "fa:16:3e:00:00:01");
    assert_eq!(apply(&cluster(), &wanted, &facts(), &writes).unwrap(), wanted);
}

#[test]
fn what_cannot_be_done_is_named() {
    let base = [put_address("api"), put_pool("masters")];
    let with = |write: Write| [base.as_slice(), &[write]].concat();
    let table: Vec<(Vec<Write>, Kind, &[&str])> = vec![
        (vec![put_member("192.168.77.20", None)], Kind::NotFound, &["pool masters"]),
        (
            with(put_member("192.168.77.99", None)),
            Kind::Invalid,
            &["192.168.77.99", "project p", "there is none"],
        ),
        (with(put_member("192.168.77.21", None)), Kind::Invalid, &["192.168.77.21", "no server yet"]),
        (with(put_member("192.168.77.22", None)), Kind::Invalid, &["192.168.77.22", "no server"]),
        (with(put_member("192.168.77.23", None)), Kind::Invalid, &["192.168.77.23", "there is none"]),
        (with(put_member("192.168.77.20", Some("unbound"))), Kind::Invalid, &["unbound", PORT]),
        (
            with(put_balancer("a", "nowhere", 80, "masters")),
            Kind::Invalid,
            &["nowhere", "name of an address"],
        ),
        (with(put_balancer("a", "api", 80, "nothing")), Kind::Invalid, &["nothing", "name of a pool"]),
        (with(put_balancer("a", "api", 0, "masters")), Kind::Invalid, &["0", "1 to 65535"]),
        (with(put_port(&["10.9.0.0/24"], &[])), Kind::Invalid, &["10.9.0.0/24", "10.240.0.0/16"]),
        (with(put_port(&[], &["other"])), Kind::Invalid, &["other", "names of addresses"]),
        (with(put_pool("UPPER")), Kind::Invalid, &["UPPER", "a-z"]),
    ];
    for (writes, kind, words) in table {
        let refusal = refusal(&writes);
        assert_eq!(refusal.kind, kind, "{refusal}");
        for word in words {
            assert!(refusal.message.contains(word), "{refusal} lacks {word}");
        }
    }
}

#[test]
fn a_port_of_somebody_else_gets_no_pairs() {
    for port in ["22222222-2222-2222-2222-222222222222", "not-a-uuid"] {
        let Write::PutNodePort { request, .. } = put_port(&[], &[]) else { unreachable!() };
        let refusal = refusal(&[Write::PutNodePort { port: port.into(), request }]);
        assert_eq!(refusal.kind, Kind::Invalid);
        assert!(refusal.message.contains(port), "{refusal}");
    }
}

#[test]
fn two_load_balancers_share_an_address_but_no_port() {
    let base = [put_address("api"), put_pool("masters"), put_balancer("a", "api", 80, "masters")];
    assert!(run(&[base.as_slice(), &[put_balancer("b", "api", 81, "masters")]].concat()).is_ok());
    let refusal = refusal(&[base.as_slice(), &[put_balancer("b", "api", 80, "masters")]].concat());
    assert_eq!(refusal.kind, Kind::Conflict);
    assert!(refusal.message.contains("TCP 80") && refusal.message.contains("load balancer a"), "{refusal}");
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let base = [put_address("api"), put_pool("masters"), put_balancer("a", "api", 80, "masters")];
    for write in [Write::DeleteAddress { name: "api".into() }, Write::DeletePool { name: "masters".into() }] {
        let refusal = refusal(&[base.as_slice(), &[write]].concat());
        assert_eq!(refusal.kind, Kind::Conflict);
        assert!(refusal.message.contains("load balancer a"), "{refusal}");
    }
    let all = [
        base.as_slice(),
        &[
            Write::DeleteLoadBalancer { name: "a".into() },
            Write::DeleteAddress { name: "api".into() },
            Write::DeletePool { name: "masters".into() },
        ],
    ]
    .concat();
    assert_eq!(run(&all).unwrap(), Wanted::default());
}

#[test]
fn an_address_pair_keeps_its_address() {
    let writes = [put_address("api"), put_port(&[], &["api"]), Write::DeleteAddress { name: "api".into() }];
    assert_eq!(refusal(&writes).kind, Kind::Conflict);
}

#[test]
fn a_full_block_asks_for_another() {
    let writes: Vec<Write> = (0..5).map(|n| put_address(&format!("a{n}"))).collect();
    assert!(run(&writes[..4]).is_ok());
    assert_eq!(run(&writes), Err(Stop::NeedsBlock(Family::V4)));
}

#[test]
fn an_address_is_never_changed() {
    let wish = |address: &str| Write::PutAddress {
        name: "api".into(),
        request: AddressRequest { address: Some(address.parse().unwrap()), ..AddressRequest::default() },
    };
    assert!(run(&[put_address("api"), wish("203.0.113.16")]).is_ok());
    let refusal = refusal(&[put_address("api"), wish("203.0.113.17")]);
    assert!(
        refusal.message.contains("203.0.113.16") && refusal.message.contains("203.0.113.17"),
        "{refusal}"
    );
}

#[test]
fn a_deleting_cluster_takes_only_deletions() {
    let base =
        run(&[put_address("api"), put_pool("masters"), put_balancer("a", "api", 80, "masters")]).unwrap();
    let deleting = ClusterRecord { deleting: true, ..cluster() };
    for write in
        [put_address("b"), put_pool("b"), put_balancer("a", "api", 80, "masters"), put_port(&[], &[])]
    {
        let Err(Stop::Refused(refusal)) = apply(&deleting, &base, &facts(), &[write]) else {
            panic!("taken")
        };
        assert_eq!(refusal.kind, Kind::Deleting);
    }
    assert!(apply(&deleting, &base, &facts(), &[Write::DeleteLoadBalancer { name: "a".into() }]).is_ok());
}

#[test]
fn a_pool_without_members_in_the_request_keeps_them() {
    let with_member = [put_pool("masters"), put_member("192.168.77.20", None), put_pool("masters")];
    assert_eq!(run(&with_member).unwrap().pools["masters"].members.len(), 1);
    let emptied = Write::PutPool {
        name: "masters".into(),
        request: PoolRequest { members: Some(BTreeMap::new()), checks: vec![] },
    };
    assert_eq!(
        run(&[with_member.as_slice(), &[emptied]].concat()).unwrap().pools["masters"].members.len(),
        0
    );
}

#[test]
fn a_checked_address_goes_with_its_pool_or_is_replaced() {
    let pool = Write::PutPool {
        name: "local".into(),
        request: PoolRequest { members: None, checks: vec![Check::Vip { address: "svc".into(), port: 80 }] },
    };
    assert!(run(std::slice::from_ref(&pool)).is_err(), "the address is not there yet");
    let base = run(&[put_address("svc"), pool]).unwrap();
    let gone = Write::DeleteAddress { name: "svc".into() };
    let Err(Stop::Refused(refusal)) = apply(&cluster(), &base, &facts(), std::slice::from_ref(&gone)) else {
        panic!("taken")
    };
    assert!(refusal.message.contains("address svc: pool local is checked there"), "{refusal}");
    for batch in [[gone.clone(), put_address("svc")], [gone, Write::DeletePool { name: "local".into() }]] {
        assert!(apply(&cluster(), &base, &facts(), &batch).is_ok());
    }
}

#[test]
fn what_is_let_go_in_a_batch_is_free_in_it() {
    let on = |name: &str, address: &str, port: u16| Write::PutLoadBalancer {
        name: name.into(),
        request: LoadBalancerRequest {
            address: address.into(),
            listeners: vec![Listener { protocol: Protocol::Tcp, port, pool: "masters".into() }],
            source_ranges: vec![],
            affinity: Affinity::None,
        },
    };
    let first = [put_address("a"), put_pool("masters"), on("one", "a", 80), on("two", "a", 81)];
    let wanted = apply(&cluster(), &Wanted::default(), &facts(), &first).unwrap();
    let refused = |writes: &[Write]| match apply(&cluster(), &wanted, &facts(), writes) {
        Err(Stop::Refused(refusal)) => refusal.message,
        other => panic!("{other:?}"),
    };
    // Ports pass from one to the other once they are free, and not before.
    assert!(refused(&[on("two", "a", 80)]).contains("load balancer one has it already"));
    let passed = [on("one", "a", 82), on("two", "a", 80), on("one", "a", 81)];
    let next = apply(&cluster(), &wanted, &facts(), &passed).unwrap();
    let ports: Vec<u16> = next.load_balancers.values().map(|balancer| balancer.listeners[0].port).collect();
    assert_eq!(ports, [81, 80]);
    let gone = Write::DeleteLoadBalancer { name: "one".into() };
    let last = Write::DeleteLoadBalancer { name: "two".into() };
    let address = Write::DeleteAddress { name: "a".into() };
    assert!(refused(&[gone.clone(), address.clone()]).contains("load balancer two uses it"));
    let next = apply(&cluster(), &wanted, &facts(), &[gone, last, address, put_address("b")]).unwrap();
    assert_eq!(next.addresses["b"], wanted.addresses["a"]);
}
