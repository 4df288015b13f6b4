//! Packets between a client and its node since the last summary.

use evenkeel_model::{FlowCounts, Hop, STREAM_KINDS};
use serde::{Deserialize, Serialize};

/// The counts of [`FlowCounts`] that packets change.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
#[serde(from = "FlowRecord", into = "FlowRecord")]
pub(super) struct FlowTally {
    pub(super) sent: [u32; STREAM_KINDS],
    pub(super) received: [u32; STREAM_KINDS],
    pub(super) reported_ppm: Option<u32>,
    pub(super) client_ppm: Option<u32>,
    pub(super) frames: u32,
    pub(super) client_jitter_us: Option<u32>,
}

/// The layout of records: that of earlier versions, and what they lacked.
#[derive(Default, Serialize, Deserialize)]
struct FlowRecord {
    sent: [u32; STREAM_KINDS],
    received: [u32; STREAM_KINDS],
    hears: Option<Hop>,
    expected: u32,
    lost: u32,
    missed: u32,
    reported_ppm: Option<u32>,
    #[serde(default)]
    client_ppm: Option<u32>,
    #[serde(default)]
    frames: u32,
    #[serde(default)]
    client_jitter_us: Option<u32>,
}

impl FlowTally {
    /// The client hears another hop from now on.
    pub(super) fn forget_hop(&mut self) {
        (self.received, self.reported_ppm) = Default::default();
        (self.client_ppm, self.client_jitter_us) = Default::default();
    }
}

impl From<FlowTally> for FlowCounts {
    fn from(tally: FlowTally) -> FlowCounts {
        let FlowTally { sent, received, reported_ppm, client_ppm, frames, client_jitter_us } =
            tally;
        FlowCounts {
            sent,
            received,
            reported_ppm,
            client_ppm,
            frames,
            client_jitter_us,
            ..FlowCounts::default()
        }
    }
}

impl From<FlowTally> for FlowRecord {
    fn from(tally: FlowTally) -> FlowRecord {
        let FlowTally { sent, received, reported_ppm, client_ppm, frames, client_jitter_us } =
            tally;
        FlowRecord {
            sent,
            received,
            reported_ppm,
            client_ppm,
            frames,
            client_jitter_us,
            ..FlowRecord::default()
        }
    }
}

impl From<FlowRecord> for FlowTally {
    fn from(record: FlowRecord) -> FlowTally {
        let FlowRecord {
            sent, received, reported_ppm, client_ppm, frames, client_jitter_us, ..
        } = record;
        FlowTally { sent, received, reported_ppm, client_ppm, frames, client_jitter_us }
    }
}
