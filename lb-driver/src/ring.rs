//! Spreads flows over members, the same way on every instance: Maglev's table.
//!
//! M. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.
//! Each member has a permutation of the slots that only its name decides; members take turns, as often as
//! their weights say, at taking the next free slot of theirs.

/// Smallest ring.
pub const SMALLEST: u32 = 251;
/// Largest ring.
pub const LARGEST: u32 = 65_537;
/// Slots per member at least, as long as the largest ring allows.
pub const SLOTS_PER_MEMBER: u32 = 100;

/// The size of a ring for so many members: the smallest prime that gives each [`SLOTS_PER_MEMBER`] slots,
/// within [`SMALLEST`] and [`LARGEST`].
///
/// It grows in steps of a quarter, so that one member more or less seldom changes it: a ring of another
/// size spreads flows anew.
pub fn size(members: usize) -> u32 {
    let wanted = u64::try_from(members).unwrap_or(u64::MAX).saturating_mul(SLOTS_PER_MEMBER.into());
    let mut size = SMALLEST;
    while u64::from(size) < wanted && size < LARGEST {
        size = next_prime(size + size / 4).min(LARGEST);
    }
    size
}

fn next_prime(from: u32) -> u32 {
    let prime = |n: u32| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from..).find(|n| prime(*n)).unwrap_or(from)
}

/// A member that takes new flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share<'a> {
    /// What decides its permutation; unique in the ring.
    pub name: &'a str,
    /// Its turns per round relative to others; 0 takes no slot.
    pub weight: u16,
}

/// The slots of a ring of `size`, each with the index of the member in `shares` that owns it. Empty where
/// nobody has weight. The order of `shares` does not matter but for those indices.
pub fn build(size: u32, shares: &[Share<'_>]) -> Vec<u16> {
    let heaviest = shares.iter().map(|share| share.weight).max().unwrap_or(0);
    if heaviest == 0 {
        return Vec::new();
    }
    let mut takers: Vec<Taker> = shares
        .iter()
        .enumerate()
        .filter(|(_, share)| share.weight > 0)
        .filter_map(|(index, share)| Some(Taker::new(u16::try_from(index).ok()?, share, size)))
        .collect();
    takers.sort_by(|a, b| a.key.cmp(&b.key));
    let mut slots: Vec<Option<u16>> = vec![None; size as usize];
    let mut free = slots.len();
    while free > 0 {
        for taker in &mut takers {
            taker.credit += u32::from(taker.weight);
            if taker.credit < u32::from(heaviest) {
                continue;
            }
            taker.credit -= u32::from(heaviest);
            taker.take(&mut slots);
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

struct Taker {
    index: u16,
    weight: u16,
    credit: u32,
    /// Decides turns, so that the order does not come from names that sort alike on purpose.
    key: (u64, String),
    next: u32,
    skip: u32,
}

impl Taker {
    fn new(index: u16, share: &Share<'_>, size: u32) -> Self {
        let hash = hash(share.name.as_bytes());
        let (offset, skip) = ((hash >> 32) as u32, hash as u32);
        Self {
            index,
            weight: share.weight,
            credit: 0,
            key: (hash, share.name.to_owned()),
            next: offset % size,
            skip: skip % (size - 1) + 1,
        }
    }

    /// Takes the next free slot of its permutation. A prime size makes every skip visit every slot.
    fn take(&mut self, slots: &mut [Option<u16>]) {
        let size = slots.len() as u64;
        loop {
            let slot = self.next as usize;
            self.next = ((u64::from(self.next) + u64::from(self.skip)) % size) as u32;
            if slots[slot].is_none() {
                slots[slot] = Some(self.index);
                return;
            }
        }
    }
}

/// FNV-1a over the bytes, finished as MurmurHash3 does: the same on every machine and in every version.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
