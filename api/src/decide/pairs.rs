//! The address pairs of a node's port: what the askers want together, and what is written so that foreign
//! pairs stay as they are.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::ranges::Span;
use crate::refusal::Refusal;

/// Neutron's limit of address pairs on one port, as it comes.
pub const LIMIT: usize = 10;

/// One pair, as Neutron has it. Without a MAC address of its own it is the port's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Addresses that the port may send from.
    pub range: IpNetwork,
    /// Whether it is an address that is written without a prefix length: what is others' stays as they wrote it.
    pub bare: bool,
    /// The MAC address that goes with them.
    pub mac: String,
}

/// What to write to a port, and what to remember of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairPlan {
    /// All pairs that the port should have; none where it has them.
    pub write: Option<Vec<Pair>>,
    /// Those among them that are ours.
    pub ours: BTreeSet<IpNetwork>,
}

/// Leaves out what another entry covers, so that few pairs do.
#[must_use]
pub fn minimal(ranges: impl IntoIterator<Item = IpNetwork>) -> BTreeSet<IpNetwork> {
    let all: BTreeSet<IpNetwork> = ranges.into_iter().collect();
    all.iter()
        .filter(|range| {
            !all.iter().any(|other| other != *range && Span::of(*other).contains(Span::of(**range)))
        })
        .copied()
        .collect()
}

/// Plans the pairs of a port: foreign ones are kept, ours become `wanted`.
pub fn plan(
    port: &str,
    mac: &str,
    actual: &[Pair],
    written: &BTreeSet<IpNetwork>,
    wanted: &BTreeSet<IpNetwork>,
) -> Result<PairPlan, Refusal> {
    let is_ours = |pair: &Pair| pair.mac.eq_ignore_ascii_case(mac) && written.contains(&pair.range);
    let foreign: Vec<Pair> = actual.iter().filter(|pair| !is_ours(pair)).cloned().collect();
    let ours: BTreeSet<IpNetwork> = wanted
        .iter()
        .filter(|range| !foreign.iter().any(|f| f.range == **range && f.mac.eq_ignore_ascii_case(mac)))
        .copied()
        .collect();
    if foreign.len() + ours.len() > LIMIT && !ours.is_subset(written) {
        return Err(Refusal::invalid(
            "node-ports",
            port,
            format!(
                "{} address pairs would be needed, {} of others and {} of AKE's ({}); Neutron allows {LIMIT} on a port",
                foreign.len() + ours.len(),
                foreign.len(),
                ours.len(),
                ours.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            ),
        ));
    }
    let mut after = foreign;
    after.extend(ours.iter().map(|range| Pair { range: *range, bare: false, mac: mac.to_owned() }));
    let same = actual.len() == after.len()
        && after
            .iter()
            .all(|a| actual.iter().any(|b| a.range == b.range && a.mac.eq_ignore_ascii_case(&b.mac)));
    Ok(PairPlan { write: (!same).then_some(after), ours })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: &str = "fa:16:3e:00:00:01";

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn set(ranges: &[&str]) -> BTreeSet<IpNetwork> {
        ranges.iter().map(|r| net(r)).collect()
    }

    fn pairs(ranges: &[&str]) -> Vec<Pair> {
        ranges.iter().map(|r| Pair { range: net(r), bare: !r.contains('/'), mac: MAC.into() }).collect()
    }

    #[test]
    fn foreign_pairs_stay_and_ours_follow() {
        for (actual, written, wanted, expected, ours) in [
            (&[][..], &[][..], &["10.240.1.0/24"][..], Some(&["10.240.1.0/24"][..]), &["10.240.1.0/24"][..]),
            (&["10.240.1.0/24"], &["10.240.1.0/24"], &["10.240.1.0/24"], None, &["10.240.1.0/24"]),
            (
                &["10.9.9.9/32"],
                &[],
                &["10.240.1.0/24"],
                Some(&["10.9.9.9/32", "10.240.1.0/24"]),
                &["10.240.1.0/24"],
            ),
            (
                &["10.9.9.9", "2001:db8::9"],
                &[],
                &["10.240.1.0/24"],
                Some(&["10.9.9.9", "2001:db8::9", "10.240.1.0/24"]),
                &["10.240.1.0/24"],
            ),
            (&["10.9.9.9/32", "10.240.1.0/24"], &["10.240.1.0/24"], &[], Some(&["10.9.9.9/32"]), &[]),
            // what somebody else had written already stays theirs
            (&["10.240.1.0/24"], &[], &["10.240.1.0/24"], None, &[]),
            // somebody removed ours: it comes back
            (&[], &["10.240.1.0/24"], &["10.240.1.0/24"], Some(&["10.240.1.0/24"]), &["10.240.1.0/24"]),
        ] {
            let plan = plan("p", MAC, &pairs(actual), &set(written), &set(wanted)).unwrap();
            assert_eq!(plan.write, expected.map(pairs), "{actual:?} {written:?} {wanted:?}");
            assert_eq!(plan.ours, set(ours));
        }
    }

    #[test]
    fn a_pair_of_another_mac_is_foreign() {
        let other = vec![Pair { range: net("10.240.1.0/24"), bare: false, mac: "fa:16:3e:00:00:02".into() }];
        let plan = plan("p", MAC, &other, &set(&["10.240.1.0/24"]), &set(&[])).unwrap();
        assert_eq!(plan.write, None);
    }

    #[test]
    fn more_than_neutron_takes_is_explained() {
        let foreign: Vec<String> = (0..9).map(|n| format!("10.9.9.{n}/32")).collect();
        let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
        let wanted = set(&["10.240.1.0/24", "203.0.113.16/28"]);
        let refusal = plan("port-1", MAC, &pairs(&foreign), &set(&[]), &wanted).unwrap_err();
        for word in ["port-1", "11 address pairs", "9 of others", "203.0.113.16/28", "allows 10"] {
            assert!(refusal.message.contains(word), "{refusal}");
        }
        // what only becomes less is always taken
        assert!(plan("port-1", MAC, &pairs(&foreign), &wanted, &set(&["10.240.1.0/24"])).is_ok());
    }

    #[test]
    fn covered_ranges_are_left_out() {
        let all = ["203.0.113.17/32", "203.0.113.16/28", "10.240.1.0/24"].map(net);
        assert_eq!(minimal(all), set(&["203.0.113.16/28", "10.240.1.0/24"]));
    }

    proptest! {
        #[test]
        fn a_second_plan_writes_nothing(
            actual in proptest::collection::btree_set(0u8..8, 0..4),
            written in proptest::collection::btree_set(0u8..8, 0..4),
            wanted in proptest::collection::btree_set(0u8..8, 0..4),
        ) {
            let range = |n: &u8| net(&format!("10.0.{n}.0/24"));
            let actual: Vec<Pair> = actual.iter().map(|n| Pair { range: range(n), bare: false, mac: MAC.into() }).collect();
            let written: BTreeSet<_> = written.iter().map(range).collect();
            let wanted: BTreeSet<_> = wanted.iter().map(range).collect();
            let first = plan("p", MAC, &actual, &written, &wanted).unwrap();
            let after = first.write.clone().unwrap_or_else(|| actual.clone());
            let second = plan("p", MAC, &after, &first.ours, &wanted).unwrap();
            prop_assert_eq!(&second.write, &None);
            prop_assert_eq!(&second.ours, &first.ours);
            // every foreign pair and every wanted range is there
            for pair in actual.iter().filter(|p| !written.contains(&p.range)) {
                prop_assert!(after.contains(pair));
            }
            for range in &wanted {
                prop_assert!(after.iter().any(|p| p.range == *range));
            }
        }
    }
}
