//! Records of another process that this one continues.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_core::HopMap;
use evenkeel_dataplane::worker::{SessionState, TrunkState};
use evenkeel_drivers::DriversRecord;
use evenkeel_model::NodeId;

/// Restored records of another process. This one continues the sessions.
pub(crate) struct RestoredRecords {
    pub(crate) translation: Translation,
    /// The time at which restoring began.
    pub(crate) since: Instant,
    /// `None` once they are restored.
    pub(crate) unshared: Option<UnsharedRecords>,
}

/// The numbers that hops, listeners and nodes of another process have here.
pub(crate) struct Translation {
    pub(crate) hops: HopMap,
    pub(crate) listeners: Vec<Option<u8>>,
    pub(crate) nodes: BTreeMap<NodeId, NodeId>,
}

impl Translation {
    pub(crate) fn apply(&self, state: &mut SessionState) {
        let listener = |number| self.listeners.get(usize::from(number)).copied().flatten();
        state.map_hops(|hop| self.hops.map(hop));
        state.map_listeners(listener);
    }
}

/// Records that continue the numbers of another process on trunks and at nodes, which two processes must not use.
pub(crate) struct UnsharedRecords {
    pub(crate) drivers: DriversRecord,
    pub(crate) trunks: Vec<Vec<TrunkState>>,
}
