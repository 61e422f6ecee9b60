//! The flow table's layout: `bpf/flows.h` in Rust, for those who read the table, and for one that changes its size. No IO.

use std::{fs::File, io::Read as _};

use crate::{
    config::Limits,
    layout::{self, Flow, FlowKey},
};

/// Entries of a bucket.
pub const WAYS: usize = 4;
/// `struct bucket`: `who` and `state` of each entry.
pub type Bucket = [u64; 2 * WAYS];
/// `struct bucket_keys`.
pub type Keys = [FlowKey; WAYS];
/// Of the hash: secret, and the same as long as the table lives.
pub type Seed = [u32; 20];

const PRINT: u64 = (1 << 48) - 1;
/// Ages are counted in these many steps, round and round.
const AGES: u32 = 1 << 15;
/// A bucket's place has at least as many bits, so that place and print together are the whole hash.
const LEAST_BITS: u32 = 16;

/// Size of the table in bits of a bucket's place: room for `limits.flows` or more.
pub fn bits(limits: &Limits) -> u32 {
    let buckets = u64::from(limits.flows).div_ceil(WAYS as u64).next_power_of_two();
    buckets.ilog2().max(LEAST_BITS)
}

/// A seed that nobody knows.
pub fn seed() -> std::io::Result<Seed> {
    let mut bytes = [0; 80];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut seed = Seed::default();
    for (word, bytes) in seed.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    Ok(seed)
}

/// `seeded_hash`.
pub fn hash(key: &FlowKey, seed: &Seed) -> u64 {
    let words = key.as_chunks::<8>().0;
    let v4 = key[37] == 4;
    let sum = |seed: &[u32]| {
        let pairs = words.iter().zip(seed.as_chunks::<2>().0).enumerate();
        let pairs = pairs.filter(|(index, _)| !(v4 && [0, 2].contains(index)));
        let products = pairs.map(|(_, (word, pair))| {
            let word = u64::from_ne_bytes(*word);
            let (low, high) = (word as u32, (word >> 32) as u32);
            u64::from(low.wrapping_add(pair[0])).wrapping_mul(high.wrapping_add(pair[1]).into())
        });
        products.fold(0, u64::wrapping_add)
    };
    let stir = |sum: u64, factor: u64| {
        let sum = (sum ^ sum >> 32).wrapping_mul(factor);
        sum ^ sum >> 29
    };
    stir(sum(&seed[..10]), 0x9e37_79b9_7f4a_7c15).wrapping_add(stir(sum(&seed[10..]), 0xbf58_476d_1ce4_e5b9))
}

/// What a flow of this hash is called in its buckets.
pub fn print(hash: u64) -> u64 {
    (hash & PRINT).max(1)
}

/// The hash of which the second bucket is the first.
fn across(hash: u64) -> u64 {
    hash ^ ((print(hash).wrapping_mul(0xff51_afd7_ed55_8ccd) | 1 << 48) & !PRINT)
}

/// The places of a flow's two buckets, in a table of this size.
pub fn places(hash: u64, bits: u32) -> [usize; 2] {
    [hash, across(hash)].map(|hash| (hash >> (64 - bits)) as usize)
}

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its flow's hash, or that of which the two buckets are the other way round.
    pub hash: u64,
    /// Print and slot.
    pub who: u64,
    /// All the rest.
    pub state: u64,
    /// Whose it is; another one's, if the entry changed hands while it was read.
    pub key: FlowKey,
}

impl Entry {
    /// Whether its flow was seen again after the packet that opened it.
    pub fn seen(&self) -> bool {
        self.state >> 63 == 1
    }

    /// How old it is, in steps, where the table counts this time.
    pub fn age(&self, now: u32) -> u32 {
        now.wrapping_sub((self.state >> 48) as u32) % AGES
    }

    /// The member's slot.
    pub fn slot(&self) -> u16 {
        self.who as u16
    }

    /// The lower 16 bits of the slot's generation.
    pub fn generation(&self) -> u16 {
        (self.state >> 24) as u16
    }

    /// Whether its key is its own.
    fn has_key(&self, seed: &Seed) -> bool {
        let hash = hash(&self.key, seed);
        print(hash) == print(self.hash) && [hash, across(hash)].contains(&self.hash)
    }

    /// As another instance is told of it, if it is known whose it is; `generation` is the whole one.
    pub fn told(&self, seed: &Seed, now: u32, generation: u32) -> Option<(FlowKey, Flow)> {
        let tag = (self.state >> 40) as u32 & 0xff;
        let mark = tag | u32::from(self.seen()) << 8 | self.age(now) << 16;
        self.has_key(seed).then(|| (self.key, layout::flow(self.slot(), generation, mark)))
    }
}

/// The entries of a bucket at this place, in a table of this size.
pub fn entries(place: usize, bits: u32, bucket: &Bucket, keys: &Keys) -> impl Iterator<Item = Entry> {
    let high = (place as u64) << (64 - bits) & !PRINT;
    let entries = bucket.as_chunks::<2>().0.iter().zip(keys);
    entries.filter_map(move |([who, state], key)| {
        // one that is free, or being written, has no print
        let print = who >> 16;
        (print != 0).then_some(Entry { hash: high | print, who: *who, state: *state, key: *key })
    })
}

/// A table of this size with these entries; where a flow's buckets are full, those stay that were seen again and used
/// last.
pub fn fill(mut entries: Vec<Entry>, bits: u32, now: u32) -> Vec<(Bucket, Keys)> {
    entries.sort_by_key(|entry| (!entry.seen(), entry.age(now)));
    let mut table = vec![(Bucket::default(), [[0; 40]; WAYS]); 1 << bits];
    for entry in entries {
        let free =
            |place: usize| table[place].0.as_chunks::<2>().0.iter().filter(|[who, _]| *who == 0).count();
        let [first, second] = places(entry.hash, bits);
        let place = if free(second) > free(first) { second } else { first };
        let (bucket, keys) = &mut table[place];
        let Some(way) = bucket.as_chunks::<2>().0.iter().position(|[who, _]| *who == 0) else { continue };
        bucket[2 * way] = entry.who;
        bucket[2 * way + 1] = entry.state;
        keys[way] = entry.key;
    }
    table
}

#[cfg(test)]
mod tests;
