//! The report as text.

use std::fmt::Write as _;

use super::report::{DemoReport, FailoverFigures};

/// Maximum characters of a reason in the table.
const REASON_MAX: usize = 110;

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
