//! The report of the demo as JSON. Scripts rely on its keys.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ledger::GapSpread;
use crate::machine::Timeliness;

#[derive(Serialize, Debug)]
pub(super) struct DemoReport {
    pub(super) sessions: SessionFigures,
    pub(super) rooms: RoomFigures,
    pub(super) packets: PacketFigures,
    pub(super) failovers: Vec<FailoverFigures>,
    pub(super) control: ControlFigures,
    /// Null if it was skipped.
    pub(super) takeover: Option<Takeover>,
    /// Acts that this machine does not permit, with the reason.
    pub(super) skipped: Vec<String>,
    pub(super) continuity_breaks: usize,
    pub(super) degradation: DegradationFigures,
    pub(super) reloads: Vec<ReloadFigures>,
    pub(super) policy_calls: PolicyCalls,
    pub(super) strangers: StrangerFigures,
    pub(super) spans_received: BTreeMap<String, u64>,
    pub(super) machine: Timeliness,
    pub(super) checks: Vec<PromiseCheck>,
    pub(super) ok: bool,
}

#[derive(Serialize, Debug)]
pub(super) struct SessionFigures {
    pub(super) udp: usize,
    pub(super) quic: usize,
    pub(super) lost: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct RoomFigures {
    pub(super) calls: usize,
    pub(super) streams: usize,
    pub(super) split: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct PacketFigures {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: usize,
    pub(super) lost_to_faults: usize,
    pub(super) shed: usize,
    pub(super) twice: usize,
    pub(super) misdelivered: usize,
}

/// One failover or move, for receivers of one transport.
#[derive(Serialize, Debug)]
pub(super) struct FailoverFigures {
    pub(super) cause: &'static str,
    pub(super) silent: bool,
    pub(super) unattended: bool,
    pub(super) ingress: &'static str,
    pub(super) node: String,
    pub(super) sessions: usize,
    pub(super) detect_ms: DetectionFigures,
    pub(super) gap_ms: GapFigures,
    pub(super) packets_lost: usize,
    /// Sessions by the witness that accused the node when it was marked down.
    pub(super) by_witness: BTreeMap<String, usize>,
}

/// Time from the death until the node was marked down. Null without a death or without an event.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub(super) struct DetectionFigures {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
}

impl From<GapSpread> for DetectionFigures {
    fn from(GapSpread { p50, p99, max }: GapSpread) -> DetectionFigures {
        DetectionFigures { p50: Some(p50), p99: Some(p99), max: Some(max) }
    }
}

#[derive(Serialize, Clone, Copy, Debug)]
pub(super) struct GapFigures {
    #[serde(flatten)]
    pub(super) spread: GapSpread,
    /// `kernel` for UDP, `reader` for QUIC.
    pub(super) clock: &'static str,
}

#[derive(Serialize, Debug)]
pub(super) struct ControlFigures {
    pub(super) gap_ms: GapFigures,
    pub(super) gap_ms_quic: GapFigures,
}

/// The takeover of a gateway that was killed.
#[derive(Serialize, Clone, Copy, Debug)]
pub(super) struct Takeover {
    pub(super) sessions: usize,
    /// Sessions without a packet at the end.
    pub(super) unheard: usize,
    pub(super) gap_ms: GapFigures,
    pub(super) packets_lost: u64,
    pub(super) twice: u64,
    pub(super) misdelivered: u64,
}

#[derive(Serialize, Debug)]
pub(super) struct DegradationFigures {
    pub(super) behind_bad_network: usize,
    /// Sessions with any degradation, and their peers.
    pub(super) degraded: usize,
    /// Sessions with a bitrate cap.
    pub(super) capped: usize,
    pub(super) voice_only: usize,
    pub(super) restored: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct ReloadFigures {
    pub(super) policy: &'static str,
    /// `good`, or the defect of the plugin.
    pub(super) plugin: &'static str,
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    pub(super) activate_us: u64,
    pub(super) packets_lost: usize,
    pub(super) rooms_moved: usize,
}

#[derive(Serialize, Debug)]
pub(super) struct PolicyCalls {
    pub(super) total: u64,
    pub(super) applied: u64,
    pub(super) applied_by: BTreeMap<String, u64>,
    pub(super) differs_from_native: u64,
    pub(super) faults: u64,
}

#[derive(Serialize, Debug)]
pub(super) struct StrangerFigures {
    pub(super) sent: u64,
    pub(super) forwarded: u64,
    pub(super) learned: u64,
    pub(super) counted: BTreeMap<String, u64>,
}

#[derive(Serialize, Debug)]
pub(super) struct PromiseCheck {
    pub(super) promise: String,
    /// Null if undecided: the machine is late, and the gap exceeds the limit by less than a late machine may add.
    pub(super) kept: Option<bool>,
    pub(super) found: String,
}
