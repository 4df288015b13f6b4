//! Packets between a client and its node since the last summary.

use evenkeel_model::{FlowCounts, STREAM_KINDS};
use serde::{Deserialize, Serialize};

/// The counts of [`FlowCounts`] that packets change, in its order of fields.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
pub(super) struct FlowTally {
    pub(super) sent: [u32; STREAM_KINDS],
    pub(super) received: [u32; STREAM_KINDS],
    pub(super) reported_ppm: Option<u32>,
    #[serde(default)]
    pub(super) client_ppm: Option<u32>,
    #[serde(default)]
    pub(super) frames: u32,
}

impl FlowTally {
    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        (self.received, self.reported_ppm, self.client_ppm) = Default::default();
    }
}

impl From<FlowTally> for FlowCounts {
    fn from(tally: FlowTally) -> FlowCounts {
        let FlowTally { sent, received, reported_ppm, client_ppm, frames } = tally;
        FlowCounts { sent, received, reported_ppm, client_ppm, frames, ..FlowCounts::default() }
    }
}
