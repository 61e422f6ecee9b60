use super::*;

fn record(name: &str) -> ClusterRecord {
    ClusterRecord {
        pod_range_v6: Some("fd00:240::/56".parse().unwrap()),
        ..ClusterRecord::new(ClusterId::from_u128(7), [name, "p", "n"], "10.240.0.0/16".parse().unwrap())
    }
}

#[test]
fn a_description_reads_back_whatever_the_name_is() {
    for name in ["demo", "a; project evil; pods 10.0.0.0/8", &"ü".repeat(255)] {
        let text = Description::text(&record(name), "203.0.113.16/28".parse().unwrap());
        assert!(text.chars().count() <= 255);
        let read = Description::read(&text);
        assert_eq!(read.project.as_deref(), Some("p"));
        assert_eq!(read.nodes.as_deref(), Some("n"));
        assert_eq!(read.pods, ["10.240.0.0/16", "fd00:240::/56"].map(|range| range.parse().unwrap()));
        assert!(name.starts_with(&read.name.unwrap()));
    }
    assert_eq!(Description::read("AKE: VIP block of old"), Description::default());
}

#[test]
fn a_block_is_what_its_ports_addresses_fill() {
    let addresses =
        |first: u8, count: u8| (first..first + count).map(|n| IpAddr::from([203, 0, 113, n])).collect();
    for (first, count, expected) in
        [(16, 16, Some("203.0.113.16/28")), (18, 1, Some("203.0.113.18/32")), (16, 15, None), (17, 16, None)]
    {
        assert_eq!(
            covering(&addresses(first, count)),
            expected.map(|b| b.parse().unwrap()),
            "{first} {count}"
        );
    }
}
