//! What is to be done about a claim that asks for more.

use super::super::{
    quantity,
    view::{ClaimView, PersistentView},
};

/// kubelet's turn, in a claim's conditions.
pub(super) const NODE_PENDING: &str = "FileSystemResizePending";

/// One step, in external-resizer's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Cinder grows the volume.
    Grow { gib: u64 },
    /// The PersistentVolume says so.
    WriteCapacity { gib: u64 },
    /// kubelet is asked to grow the file system.
    HandToNode,
}

/// Decides about a bound claim.
pub(super) fn plan(claim: &ClaimView, volume: &PersistentView) -> Vec<Step> {
    // A claim without capacity has not been bound completely.
    if claim.deleting || volume.deleting || claim.capacity == 0 || claim.requested <= claim.capacity {
        return vec![];
    }
    let mut steps = Vec::new();
    if volume.capacity < claim.requested {
        let gib = quantity::gib(claim.requested);
        steps.extend([Step::Grow { gib }, Step::WriteCapacity { gib }]);
    }
    if !claim.conditions.contains(NODE_PENDING) || !steps.is_empty() {
        steps.push(Step::HandToNode);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::{Step::*, *};

    const GIB: u64 = 1 << 30;

    #[test]
    fn table() {
        let claim = |requested: u64, capacity: u64, pending: bool| ClaimView {
            requested,
            capacity,
            bound: true,
            conditions: if pending { [NODE_PENDING.to_owned()].into() } else { Default::default() },
            ..ClaimView::default()
        };
        let volume = |capacity| PersistentView { capacity, ..PersistentView::default() };
        let all = |gib| vec![Grow { gib }, WriteCapacity { gib }, HandToNode];
        for (why, claim, volume, steps) in [
            ("as large as asked", claim(GIB, GIB, false), volume(GIB), vec![]),
            ("larger", claim(2 * GIB, GIB, false), volume(GIB), all(2)),
            ("rounded up", claim(GIB + 1, GIB, false), volume(GIB), all(2)),
            ("grown, not told", claim(2 * GIB, GIB, false), volume(2 * GIB), vec![HandToNode]),
            ("kubelet's turn", claim(2 * GIB, GIB, true), volume(2 * GIB), vec![]),
            ("larger again", claim(3 * GIB, GIB, true), volume(2 * GIB), all(3)),
            ("smaller", claim(GIB, 2 * GIB, false), volume(2 * GIB), vec![]),
            ("being bound", claim(GIB, 0, false), volume(GIB), vec![]),
            ("going", ClaimView { deleting: true, ..claim(2 * GIB, GIB, false) }, volume(GIB), vec![]),
        ] {
            assert_eq!(plan(&claim, &volume), steps, "{why}");
        }
    }
}
