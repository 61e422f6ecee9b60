//! VIPs on the link: who asks for one by ARP or neighbour discovery gets our address. The benches' ranges on the
//! link are 203.0.113.0/24 and 2001:db8:113::/64.

use crate::{
    bench::{Bench, PASS, TX, VIP, VIP6, owner},
    frames::{self, Frame, OWN, ROUTER},
};

const ASKER: &str = "192.168.77.1";
const ASKER6: &str = "fd00:77::1";
/// The option with the asker's address.
const SOURCE: [u8; 8] = [1, 1, 0xfa, 0x16, 0x3e, 0, 0, 1];

#[test]
fn who_asks_by_arp_gets_an_answer() {
    let bench = Bench::new(1);
    let mut probe = frames::arp(1, "0.0.0.0", VIP);
    probe[..6].copy_from_slice(&OWN);
    for (request, sender) in [(frames::arp(1, ASKER, VIP), ASKER), (probe, "0.0.0.0")] {
        let mut expected = frames::arp(2, VIP, sender);
        expected[..6].copy_from_slice(&ROUTER);
        expected[6..12].copy_from_slice(&OWN);
        expected[22..28].copy_from_slice(&OWN);
        expected[32..38].copy_from_slice(&ROUTER);
        assert_eq!(bench.run(&request), (TX, expected));
    }
    // an answer, somebody's announcement, an address that is no VIP, one cut short, other hardware
    let mut other = frames::arp(1, ASKER, VIP);
    other[15] = 6;
    for request in [
        frames::arp(2, ASKER, VIP),
        frames::arp(1, VIP, VIP),
        frames::arp(1, ASKER, "203.0.113.18"),
        frames::arp(1, ASKER, VIP)[..41].to_vec(),
        other,
    ] {
        assert_eq!(bench.run(&request), (PASS, request.clone()));
    }
}

#[test]
fn who_solicits_gets_an_advertisement() {
    let bench = Bench::new(1);
    let six = Frame::v6(ASKER6, VIP6);
    // to the group of the address, with another option behind the one that is needed; and to the address itself
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let mut grouped = Frame::v6(ASKER6, "ff02::1:ff00:17").solicitation(VIP6, &[SOURCE, nonce].concat());
    grouped[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 0x17]);
    for request in [grouped, six.solicitation(VIP6, &SOURCE)] {
        let (action, answer) = bench.run(&request);
        assert_eq!(action, TX);
        assert_eq!((&answer[..6], &answer[6..12]), (&ROUTER[..], &OWN[..]));
        assert_eq!((answer[18..20].to_vec(), answer[21]), (vec![0, 32], 255));
        assert_eq!(answer[22..38], "2001:db8:113::17".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(answer[38..54], request[22..38]);
        let message = &answer[54..86];
        assert_eq!((message[0], message[1], &message[4..8]), (136, 0, &[0x60, 0, 0, 0][..]));
        assert_eq!(message[8..24], request[62..78]);
        assert_eq!(message[24..], [&[2, 1][..], &OWN].concat());
        assert_eq!(six.back().sum6(message), 0xffff);
    }
    let mut far = six.solicitation(VIP6, &SOURCE);
    far[21] = 254;
    let whole = six.solicitation(VIP6, &SOURCE);
    for request in [
        far,
        six.solicitation("2001:db8:113::18", &SOURCE),
        Frame::v6("::", "ff02::1:ff00:17").solicitation(VIP6, &[]),
        six.solicitation(VIP6, &nonce),
        whole[..whole.len() - 1].to_vec(),
    ] {
        assert_eq!(bench.run(&request), (PASS, request.clone()));
    }
}

#[test]
fn only_the_active_instance_answers_and_only_for_the_link() {
    let mut bench = Bench::new(1);
    let asked = |bench: &Bench, four: &str, six: &str| {
        let arp = bench.run(&frames::arp(1, ASKER, four)).0;
        assert_eq!(bench.run(&Frame::v6(ASKER6, six).solicitation(six, &SOURCE)).0, arp);
        arp
    };
    assert_eq!(asked(&bench, VIP, VIP6), TX);
    bench.engine.set_active(false).unwrap();
    assert_eq!(asked(&bench, VIP, VIP6), PASS);
    bench.goes_to(&crate::bench::tcp(1).0).unwrap();
    bench.engine.set_active(true).unwrap();
    assert_eq!(asked(&bench, VIP, VIP6), TX);
    let (four, six) = ("192.0.2.1", "2001:db8:2::1");
    bench.change(|state| {
        state.load_balancers.get_mut(&owner("four")).unwrap().vip = four.parse().unwrap();
        state.load_balancers.get_mut(&owner("six")).unwrap().vip = six.parse().unwrap();
    });
    assert_eq!(asked(&bench, four, six), PASS, "routed");
    assert_eq!(asked(&bench, VIP, VIP6), PASS, "no VIPs any more");
}
