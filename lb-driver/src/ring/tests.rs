use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn shares(names: &BTreeMap<String, u16>) -> Vec<Share<'_>> {
    names.iter().map(|(name, weight)| Share { name, weight: *weight }).collect()
}

/// The owner of each slot by name.
fn owners(size: u32, names: &BTreeMap<String, u16>) -> Vec<String> {
    let shares = shares(names);
    build(size, &shares).into_iter().map(|index| shares[usize::from(index)].name.to_owned()).collect()
}

fn counts(owners: &[String]) -> BTreeMap<&str, u32> {
    owners.iter().fold(BTreeMap::new(), |mut counts, owner| {
        *counts.entry(owner.as_str()).or_default() += 1;
        counts
    })
}

fn members(
    count: std::ops::Range<usize>,
    weights: std::ops::Range<u16>,
) -> impl Strategy<Value = BTreeMap<String, u16>> {
    prop::collection::btree_map("[a-z0-9-]{1,12}", weights, count)
}

#[test]
fn sizes_are_primes_within_their_bounds() {
    let sizes: BTreeSet<u32> = (0..2000).map(size).collect();
    for size in &sizes {
        assert!((2..*size).take_while(|d| d * d <= *size).all(|d| size % d != 0), "{size}");
    }
    assert_eq!((size(0), size(2), size(100_000)), (SMALLEST, SMALLEST, LARGEST));
    assert!((0..655).all(|members| size(members) as usize >= 100 * members));
    assert!(sizes.len() < 30, "a member more seldom changes the size: {sizes:?}");
}

#[test]
fn it_is_the_same_for_ever() {
    let names = ["demo-worker-0", "demo-worker-1", "demo-worker-2"];
    let ring = build(251, &names.map(|name| Share { name, weight: 1 }));
    let first: String = ring[..24].iter().map(ToString::to_string).collect();
    assert_eq!(first, "221000112021102011012122");
}

#[test]
fn nobody_makes_no_ring() {
    assert!(build(251, &[]).is_empty());
    assert!(build(251, &[Share { name: "a", weight: 0 }]).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equal_members_have_equal_shares(names in members(1..40, 1..2)) {
        let owners = owners(size(names.len()), &names);
        let counts = counts(&owners);
        prop_assert_eq!(counts.len(), names.len());
        let (low, high) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        prop_assert!(high - low <= 1, "{} to {}", low, high);
    }

    #[test]
    fn shares_follow_weights(names in members(1..20, 0..10)) {
        let owners = owners(size(names.len()), &names);
        let counts = counts(&owners);
        let total: u32 = names.values().map(|weight| u32::from(*weight)).sum();
        for (name, weight) in &names {
            let share = counts.get(name.as_str()).copied().unwrap_or(0);
            if *weight == 0 {
                prop_assert_eq!(share, 0);
                continue;
            }
            let fair = f64::from(size(names.len())) * f64::from(*weight) / f64::from(total);
            prop_assert!((f64::from(share) - fair).abs() <= 2.0 + fair * 0.02, "{}: {} for {}", name, share, fair);
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(names in members(1..20, 1..4)) {
        let mut reversed = shares(&names);
        reversed.reverse();
        let size = size(names.len());
        let backwards: Vec<_> =
            build(size, &reversed).into_iter().map(|index| reversed[usize::from(index)].name.to_owned()).collect();
        prop_assert_eq!(owners(size, &names), backwards);
    }

    /// Slots of a member that leaves must move; of the others, few do (Maglev's paper, section 5.3).
    #[test]
    fn a_leaving_member_moves_few_flows_of_others(names in members(3..30, 1..2), pick: prop::sample::Index) {
        let size = size(names.len());
        let gone = pick.get(&names.keys().collect::<Vec<_>>()).to_string();
        let mut left = names.clone();
        left.remove(&gone);
        let (before, after) = (owners(size, &names), owners(size, &left));
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != gone && before != after).count();
        let others = before.iter().filter(|owner| **owner != gone).count();
        prop_assert!(moved * 100 <= others * 25, "{} of {}", moved, others);
    }
}
