use super::*;

fn owner(object: &str) -> Owner {
    Owner::new("p", "c", object).unwrap()
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint { protocol: Protocol::Tcp, port: NonZeroU16::new(port).unwrap() }
}

fn balancer(vip: &str, pool: &str) -> LoadBalancer {
    LoadBalancer {
        vip: vip.parse().unwrap(),
        listeners: BTreeMap::from([(endpoint(80), owner(pool))]),
        source_ranges: BTreeSet::new(),
        affinity: Affinity::None,
    }
}

#[test]
fn owners_print_as_they_parse() {
    let text = "0f0c/9f8e-11/svc-1";
    let owner: Owner = text.parse().unwrap();
    assert_eq!(owner.to_string(), text);
    assert_eq!((owner.project(), owner.cluster(), owner.object()), ("0f0c", "9f8e-11", "svc-1"));
    assert_eq!(owner.sibling("nodes").unwrap().to_string(), "0f0c/9f8e-11/nodes");
    for wrong in ["", "a/b", "a/b/c/d", "a//c", "a/b/ c", "a/b/ü"] {
        assert!(wrong.parse::<Owner>().is_err(), "{wrong}");
    }
}

#[test]
fn a_mac_address_is_a_stations() {
    let text = "fa:16:3e:00:0a:ff";
    assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), text);
    for wrong in [
        "",
        "fa:16:3e:00:0a",
        "fa:16:3e:00:0a:ff:00",
        "fa-16-3e-00-0a-ff",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
        "+a:16:3e:00:0a:f",
    ] {
        assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
    }
}

#[test]
fn what_no_device_can_do_is_named() {
    let mut state = State::default();
    state.load_balancers.insert(owner("a"), balancer("203.0.113.17", "nodes"));
    assert_eq!(
        state.check().unwrap_err().to_string(),
        "load balancer p/c/a: TCP/80: pool p/c/nodes is not in the state"
    );
    state.pools.insert(owner("nodes"), Pool::default());
    state.check().unwrap();
    state.load_balancers.insert(owner("b"), balancer("203.0.113.17", "nodes"));
    assert_eq!(
        state.check().unwrap_err().to_string(),
        "load balancers p/c/a and p/c/b: both listen on TCP/80 of 203.0.113.17"
    );
    state.load_balancers.insert(owner("b"), balancer("224.0.0.1", "nodes"));
    assert!(state.check().unwrap_err().to_string().contains("224.0.0.1"));
}
