//! Whatever users write into annotations, it is read to something possible, or told by field, value and expectation.

use super::*;

/// Whether the API server takes it for the name of an annotation.
fn is_name(name: &str) -> bool {
    let (prefix, name) = name.split_once('/').unwrap_or(("a", name));
    let part = |part: &str, longest: usize, more: &[char]| {
        (1..=longest).contains(&part.len())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
            && !part.starts_with(more)
            && !part.ends_with(more)
    };
    part(prefix, 253, &['-', '.']) && part(name, 63, &['-', '_', '.'])
}

/// A Service's annotations, source ranges and address, a line each.
fn read_lines(text: &str) -> ServiceView {
    let mut service = ServiceView::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("range", value)) => service.source_ranges.push(value.to_owned()),
            Some(("address", value)) => service.load_balancer_ip = Some(value.to_owned()),
            Some((name, value)) if is_name(name) => {
                drop(service.annotations.insert(name.to_owned(), value.to_owned()))
            }
            _ => {}
        }
    }
    service
}

const GOOD: [&str; 3] = [
    "range=198.51.100.0/24\naddress=203.0.113.17\nake.dev/share=web\nake.dev/share-with=a,b\nake.dev/drain-seconds=60",
    "ake.dev/address=203.0.113.17,2001:db8:113::17\nake.dev/range=203.0.113.16/28\nake.dev/retain-address=true\n\
     service.beta.kubernetes.io/load-balancer-source-ranges=10.0.0.0/8, 2001:db8::/32\nake.dev/health-check=vip",
    "loadbalancer.openstack.org/node-selector=a=b,c\nloadbalancer.openstack.org/keep-floatingip=true\n\
     loadbalancer.openstack.org/enable-health-monitor=false\nloadbalancer.openstack.org/lb-method=SOURCE_IP\n\
     loadbalancer.openstack.org/proxy-protocol=v2",
];

const WORDS: [&[u8]; 18] = [
    b"0.0.0.0/0",
    b"::/0",
    b"10.0.0.1/8",
    b"::ffff:203.0.113.17",
    b"255.255.255.255",
    b"fe80::1%eth0",
    b"0",
    b"-1",
    b"4294967296",
    b"3601",
    b"\n",
    b",",
    b" ",
    b"*",
    b"=",
    b"True",
    b"\xc2\xa0",
    b"loadbalancer.openstack.org/",
];

#[test]
fn fuzz_annotations() {
    let good: Vec<Vec<u8>> = GOOD.iter().map(|text| text.as_bytes().to_vec()).collect();
    ake_fuzz::fuzz(&good, &WORDS, |bytes| {
        let service = read_lines(&String::from_utf8_lossy(bytes));
        let (wishes, findings) = read(&service);
        for finding in &findings {
            let text = finding.to_string();
            let told = !finding.field.is_empty() && !finding.expected.is_empty();
            if !told || text.chars().any(char::is_control) {
                return Err(format!(
                    "a finding was expected that names field and expectation, it was {text:?}"
                ));
            }
        }
        if findings.iter().any(|finding| finding.refused) {
            return Ok(());
        }
        let of_family = |(family, address): (&Family, &IpAddr)| address.is_ipv6() == (*family == Family::V6);
        if !wishes.addresses.iter().all(of_family) || wishes.drain_seconds > LONGEST_DRAIN {
            return Err(format!("these wishes are not possible: {wishes:?}"));
        }
        let cut_off =
            wishes.source_ranges.iter().chain(&wishes.ranges).find(|range| range.network() != range.ip());
        if let Some(range) = cut_off {
            return Err(format!("{range} has bits behind its prefix"));
        }
        let asked = !service.source_ranges.is_empty() && wishes.source_ranges.is_empty();
        if asked { Err("source ranges were asked for, and everybody is let in".to_owned()) } else { Ok(()) }
    });
}
