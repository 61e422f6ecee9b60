//! The flow table, as the other instance of a pair is told of it.

use aya::maps::MapError;

use super::{DataPlane, MapsError, of};
use crate::layout;

/// Bytes of news that wait to be read: 14,000 flows.
pub(super) const NEWS: u32 = 1 << 20;
/// The entry is made only where there is none: `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// A flow, and its entry of the flow table.
pub type FlowEntry = (layout::FlowKey, layout::Flow);

impl DataPlane {
    /// Flows that began since the last call; at most `most`.
    pub fn news(&mut self, most: usize) -> Vec<FlowEntry> {
        let mut entries = Vec::new();
        while let Some(item) = if entries.len() < most { self.news.next() } else { None } {
            let (mut key, mut flow): FlowEntry = ([0; 40], [0; 20]);
            if item.len() >= 60 {
                key.copy_from_slice(&item[..40]);
                flow.copy_from_slice(&item[40..60]);
                entries.push((key, flow));
            }
        }
        entries
    }

    /// All flows. Packets go on meanwhile: one that begins or goes while they are read may be missing.
    pub fn flows(&self) -> Vec<FlowEntry> {
        self.flows.iter().flatten().collect()
    }

    /// Enters a flow; where there is one of the same ports, only if `over`.
    pub fn enter(&mut self, key: layout::FlowKey, flow: layout::Flow, over: bool) -> Result<(), MapsError> {
        match self.flows.insert(key, flow, if over { 0 } else { ONLY_NEW }) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            done => done.map_err(of("flows")),
        }
    }
}
