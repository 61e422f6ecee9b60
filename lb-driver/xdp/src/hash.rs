//! Where the ring has a flow, as the program in the kernel finds it: the same on every instance, or a failover would
//! move flows.

use crate::layout::FlowKey;

const FACTORS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x27d4_eb2f_1656_67c5,
    0xff51_afd7_ed55_8ccd,
];

/// `flow_hash` of `bpf/choose.h`, or `client_hash` where only the client counts.
fn hash(key: &FlowKey, client_only: bool) -> u64 {
    let words = key.chunks_exact(8).map(|bytes| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    });
    let share = |(word, factor): (u64, u64)| (word ^ word >> 32).wrapping_mul(factor);
    let sum = words.zip(FACTORS).take(if client_only { 2 } else { 5 }).map(share).fold(0, u64::wrapping_add);
    (sum ^ sum >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The place of a flow in a ring of this size; with `client_only` (affinity), that of all flows of its client. A ring
/// without slots has none.
#[must_use]
pub fn place(key: &FlowKey, client_only: bool, size: usize) -> Option<usize> {
    let spread = usize::try_from(hash(key, client_only) >> 32).ok()?;
    spread.checked_rem(size)
}
