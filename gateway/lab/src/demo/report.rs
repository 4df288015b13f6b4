//! The report of the demo: as JSON, on whose keys scripts rely, and as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::ledger::GapSpread;
use crate::machine::Timeliness;

/// Maximum characters of a reason in the table.
const REASON_MAX: usize = 110;

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

/// Answers of policies. Those of one policy are in `applied_by`.
#[derive(Serialize, Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PolicyCalls {
    pub(super) total: u64,
    pub(super) applied: u64,
    pub(super) applied_by: BTreeMap<String, u64>,
    pub(super) differs_from_native: u64,
    pub(super) faults: u64,
}

/// Unauthorised traffic.
#[derive(Serialize, Clone, Default, Debug)]
pub(super) struct StrangerFigures {
    pub(super) sent: u64,
    /// Packets that reached a client.
    pub(super) forwarded: u64,
    /// Packets and checks that were answered as if their sender were known.
    pub(super) learned: u64,
    /// Drop counters of the gateway and the probed node, by reason.
    pub(super) counted: BTreeMap<String, u64>,
}

#[derive(Serialize, Debug)]
pub(super) struct PromiseCheck {
    pub(super) promise: String,
    /// Null if undecided: the machine is late, and the gap exceeds the limit by less than a late machine may add.
    pub(super) kept: Option<bool>,
    pub(super) found: String,
}

/// The report as text.
pub(super) fn render(report: &DemoReport) -> String {
    let mut out = String::new();
    write(report, &mut out).expect("a string takes everything");
    out
}

fn write(report: &DemoReport, out: &mut String) -> std::fmt::Result {
    let DemoReport {
        sessions, rooms, packets, control, degradation, strangers, policy_calls, ..
    } = report;
    writeln!(out)?;
    writeln!(
        out,
        "{} sessions over UDP and {} over QUIC, in {} calls and {} streams",
        sessions.udp, sessions.quic, rooms.calls, rooms.streams
    )?;
    writeln!(
        out,
        "{} packets sent, {} received; lost: {} to faults and {} unexplained; {} dropped by degradation",
        packets.sent, packets.received, packets.lost_to_faults, packets.lost, packets.shed
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "{:<34}{:>9}{:>11}{:>10}{:>8}{:>8}{:>7}",
        "gap at the receiver, ms", "sessions", "detected", "p50", "p99", "max", "lost"
    )?;
    for (name, gap) in [("no fault, UDP", control.gap_ms), ("no fault, QUIC", control.gap_ms_quic)]
    {
        let spread = gap.spread;
        writeln!(
            out,
            "{name:<34}{:>9}{:>11}{:>10.1}{:>8.1}{:>8.1}",
            "", "", spread.p50, spread.p99, spread.max
        )?;
    }
    if let Some(takeover) = &report.takeover {
        let spread = takeover.gap_ms.spread;
        writeln!(
            out,
            "{:<34}{:>9}{:>11}{:>10.1}{:>8.1}{:>8.1}{:>7}",
            "gateway killed, UDP",
            takeover.sessions,
            "",
            spread.p50,
            spread.p99,
            spread.max,
            takeover.packets_lost
        )?;
    }
    for failover in &report.failovers {
        let spread = failover.gap_ms.spread;
        let marked_down =
            failover.detect_ms.max.map_or("–".to_owned(), |detect| format!("{detect:.1}"));
        writeln!(
            out,
            "{:<34}{:>9}{marked_down:>11}{:>10.1}{:>8.1}{:>8.1}{:>7}",
            name(failover),
            failover.sessions,
            spread.p50,
            spread.p99,
            spread.max,
            failover.packets_lost
        )?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "lossy network: {} sessions capped, {} on voice only, {} restored",
        degradation.capped, degradation.voice_only, degradation.restored
    )?;
    writeln!(
        out,
        "policies: {} answers, {} applied, {} other than the native default, {} faults",
        policy_calls.total,
        policy_calls.applied,
        policy_calls.differs_from_native,
        policy_calls.faults
    )?;
    for reload in &report.reloads {
        let reason = reload.reason.as_deref().unwrap_or("");
        writeln!(out, "  {} plugin: {}{}", reload.plugin, reload.outcome, shortened(reason))?;
    }
    let counted: Vec<String> =
        strangers.counted.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(
        out,
        "unauthorised: {} packets, {} forwarded, {} learned ({})",
        strangers.sent,
        strangers.forwarded,
        strangers.learned,
        counted.join(", ")
    )?;
    let spans: Vec<String> =
        report.spans_received.iter().map(|(name, count)| format!("{name} {count}")).collect();
    writeln!(out, "spans received: {}", spans.join(", "))?;
    for skipped in &report.skipped {
        writeln!(out, "skipped: {skipped}")?;
    }
    writeln!(out)?;
    for check in &report.checks {
        let mark = match check.kept {
            Some(true) => "ok    ",
            Some(false) => "FAILED",
            None => "LATE  ",
        };
        writeln!(out, "{mark}  {:<62} {}", check.promise, check.found)?;
    }
    let count = |kept| report.checks.iter().filter(|check| check.kept == kept).count();
    writeln!(out)?;
    writeln!(out, "{} of {} checks passed", count(Some(true)), report.checks.len())?;
    if report.machine.is_late() {
        writeln!(out, "this machine is slow to wake threads: {}", report.machine)?;
    }
    if count(None) > 0 {
        writeln!(
            out,
            "LATE: the gap exceeds its limit, which this machine may cause; repeat on an idle one"
        )?;
    }
    Ok(())
}

fn name(failover: &FailoverFigures) -> String {
    let what = match (failover.cause, failover.silent, failover.unattended) {
        ("node-down", false, false) => "killed",
        ("node-down", true, _) => "stopped",
        ("node-down", false, true) => "killed, no control",
        _ => "moved by a policy",
    };
    format!("{what}, {}", failover.ingress.to_uppercase())
}

/// The first line of a reason, up to [`REASON_MAX`] characters.
fn shortened(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or("");
    match line.char_indices().nth(REASON_MAX) {
        _ if line.is_empty() => String::new(),
        Some((end, _)) => format!(" ({}…)", &line[..end]),
        None => format!(" ({line})"),
    }
}
