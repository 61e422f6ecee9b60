//! Arithmetic of ranges: aligned blocks, overlaps, canonical forms; and which block is the next free one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::refusal::{Kind, Refusal};

/// Addresses from `first` to `last`, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    first: u128,
    last: u128,
    v4: bool,
}

impl Span {
    /// The span between two addresses, if they are of one family and in order.
    #[must_use]
    pub fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        let span = Self { first: number(first), last: number(last), v4: first.is_ipv4() };
        (first.is_ipv4() == last.is_ipv4() && span.first <= span.last).then_some(span)
    }

    /// All addresses of a network.
    #[must_use]
    pub fn of(network: IpNetwork) -> Self {
        let first = number(network.network());
        Self { first, last: number(network.broadcast()), v4: network.is_ipv4() }
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.v4 == other.v4 && self.first <= other.last && other.first <= self.last
    }

    /// Whether all of `other` lies in this span.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.v4 == other.v4 && self.first <= other.first && other.last <= self.last
    }

    /// How many aligned blocks with this prefix length lie in the span.
    #[must_use]
    pub fn blocks(self, prefix: u8) -> u128 {
        match (self.first_block(prefix), block_size(self.v4, prefix)) {
            (Some(first), Some(size)) if self.last - first >= size - 1 => {
                (self.last - first - (size - 1)) / size + 1
            }
            _ => 0,
        }
    }

    fn first_block(self, prefix: u8) -> Option<u128> {
        let size = block_size(self.v4, prefix)?;
        let first = self.first.checked_next_multiple_of(size)?;
        (first <= self.last).then_some(first)
    }

    /// Every address of the span, in order.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (self.first..=self.last).map(move |n| address(n, self.v4))
    }
}

/// What a search for a free block did not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Blocks that the span has.
    pub blocks: u128,
}

/// The lowest aligned block of the span that overlaps nothing that is taken.
pub fn lowest_free(span: Span, prefix: u8, taken: &[Span]) -> Result<IpNetwork, Full> {
    let full = Full { blocks: span.blocks(prefix) };
    let (Some(size), Some(mut first)) = (block_size(span.v4, prefix), span.first_block(prefix)) else {
        return Err(full);
    };
    let mut taken: Vec<Span> = taken.iter().filter(|t| t.overlaps(span)).copied().collect();
    taken.sort_by_key(|t| t.first);
    loop {
        let Some(last) = first.checked_add(size - 1).filter(|last| *last <= span.last) else {
            return Err(full);
        };
        let candidate = Span { first, last, v4: span.v4 };
        match taken.iter().filter(|t| t.overlaps(candidate)).map(|t| t.last).max() {
            None => return IpNetwork::new(address(first, span.v4), prefix).map_err(|_| full),
            Some(end) => match end.checked_add(1).and_then(|n| n.checked_next_multiple_of(size)) {
                Some(next) => first = next,
                None => return Err(full),
            },
        }
    }
}

/// The pod range of a new cluster on a network whose clusters have `taken`.
pub fn pod_range(
    network: &str,
    pool: IpNetwork,
    prefix: u8,
    taken: &[IpNetwork],
) -> Result<IpNetwork, Refusal> {
    let spans: Vec<Span> = taken.iter().map(|t| Span::of(*t)).collect();
    lowest_free(Span::of(pool), prefix, &spans).map_err(|full| {
        let used = taken.iter().filter(|t| Span::of(**t).overlaps(Span::of(pool))).count();
        Refusal::new(
            Kind::Exhausted,
            format!(
                "pod range: network {network}: {pool} has no free /{prefix}: {used} in use, {} fit; the operator \
                 can give the network a wider pod_pool",
                full.blocks
            ),
        )
    })
}

/// Whether a network is written with its own first address, as every stored range must be.
#[must_use]
pub fn is_canonical(network: IpNetwork) -> bool {
    network.ip() == network.network()
}

fn block_size(v4: bool, prefix: u8) -> Option<u128> {
    let bits = if v4 { 32_u8 } else { 128 };
    1_u128.checked_shl(u32::from(bits.checked_sub(prefix)?))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into()
    } else {
        Ipv6Addr::from_bits(number).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: &str, last: &str) -> Span {
        Span::between(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_aligned_and_lowest_first() {
        for (first, last, prefix, taken, expected) in [
            ("203.0.113.16", "203.0.113.239", 28, &[][..], Some("203.0.113.16/28")),
            ("203.0.113.17", "203.0.113.239", 28, &[], Some("203.0.113.32/28")),
            (
                "203.0.113.16",
                "203.0.113.239",
                28,
                &["203.0.113.16/28", "203.0.113.48/28"],
                Some("203.0.113.32/28"),
            ),
            ("203.0.113.16", "203.0.113.239", 28, &["203.0.113.20/32"], Some("203.0.113.32/28")),
            ("203.0.113.16", "203.0.113.239", 28, &["203.0.113.0/24"], None),
            ("203.0.113.16", "203.0.113.30", 28, &[], None),
            (
                "2001:db8:113::10",
                "2001:db8:113::ffff",
                124,
                &["2001:db8:113::10/124"],
                Some("2001:db8:113::20/124"),
            ),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 124, &[], Some("2001:db8::/124")),
            ("0.0.0.0", "255.255.255.255", 0, &[], Some("0.0.0.0/0")),
            ("192.0.2.0", "192.0.2.1", 33, &[], None),
        ] {
            let taken: Vec<Span> = taken.iter().map(|t| Span::of(net(t))).collect();
            assert_eq!(
                lowest_free(span(first, last), prefix, &taken).ok(),
                expected.map(net),
                "{first}-{last} /{prefix} {taken:?}"
            );
        }
        assert_eq!(span("203.0.113.16", "203.0.113.239").blocks(28), 14);
    }

    #[test]
    fn a_full_pool_names_network_and_range() {
        let taken = [net("10.240.0.0/16"), net("10.241.0.0/16")];
        let refusal = pod_range("provider", net("10.240.0.0/15"), 16, &taken).unwrap_err();
        assert_eq!(refusal.kind, Kind::Exhausted);
        for word in ["provider", "10.240.0.0/15", "/16", "2 in use"] {
            assert!(refusal.message.contains(word), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn allocated_blocks_never_overlap_and_fill_the_span(
            first in 0u32..200, length in 0u32..200, prefix in 26u8..=32
        ) {
            let span = Span::between(
                Ipv4Addr::from_bits(first).into(),
                Ipv4Addr::from_bits(first + length).into(),
            ).unwrap();
            let mut taken: Vec<Span> = Vec::new();
            while let Ok(block) = lowest_free(span, prefix, &taken) {
                prop_assert!(is_canonical(block));
                prop_assert!(span.contains(Span::of(block)));
                prop_assert!(taken.iter().all(|t| !t.overlaps(Span::of(block))));
                taken.push(Span::of(block));
            }
            prop_assert_eq!(taken.len() as u128, span.blocks(prefix));
        }

        #[test]
        fn the_lowest_free_block_has_none_free_below(taken in proptest::collection::vec((0u32..1024, 22u8..=32), 0..12)) {
            let span = Span::of(net("0.0.0.0/22"));
            let taken: Vec<Span> = taken
                .into_iter()
                .map(|(ip, p)| Span::of(IpNetwork::new(Ipv4Addr::from_bits(ip).into(), p).unwrap()))
                .collect();
            let by_hand = (0u32..1024)
                .step_by(16)
                .map(|n| IpNetwork::new(Ipv4Addr::from_bits(n).into(), 28).unwrap())
                .find(|b| taken.iter().all(|t| !t.overlaps(Span::of(*b))));
            prop_assert_eq!(lowest_free(span, 28, &taken).ok(), by_hand);
        }
    }
}
