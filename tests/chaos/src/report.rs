//! The report, `target/chaos/report.json`.

use std::collections::BTreeMap;
use std::path::Path;

use evenkeel_lab::crowd::FaultEffect;
use evenkeel_lab::ledger::GapSpread;
use evenkeel_lab::machine::Timeliness;
use evenkeel_report::AcceptanceRow;
use serde::Serialize;

use crate::baseline::Outage;
use crate::baseline::keepalived::OwnerDeaths;
use crate::limits::{Limits, moves};
use crate::moves::Moves;
use crate::newcomers::NewcomerReport;
use crate::node_samples::SampledNodes;
use crate::prediction::Predicted;
use crate::row::Row;
use crate::runs::RowRuns;
use crate::unplaced::UnplacedRooms;
use crate::webrtc::Transports;

#[derive(Default, Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<RowReport>,
    /// The runs of each row; empty for one run.
    runs: Vec<RowRuns>,
    /// Gaps of sessions on dead nodes, over all rows in which one was marked down.
    session_gaps_total: usize,
    /// Outage time avoided, compared with a health check every 5 s and clients that reopen their session; null if not
    /// measured.
    outage_cut: Option<f64>,
    /// The measurements behind `outage_cut`, or the reason for their absence.
    outage: Option<Result<Outage, String>>,
    /// The deaths of a gateway at keepalived, or the reason for their absence.
    keepalived: Option<Result<Vec<OwnerDeaths>, String>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Distribution {
    pub(crate) n: usize,
    #[serde(flatten)]
    pub(crate) spread: GapSpread,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowReport {
    #[serde(flatten)]
    pub(crate) row: AcceptanceRow,
    pub(crate) mode: &'static str,
    pub(crate) sessions: u32,
    /// The senders of a room.
    speech: &'static str,
    /// Number of injected faults; null if the row was not played, as all that follows from them.
    pub(crate) kills: Option<usize>,
    /// Gaps of each affected session at each fault.
    pub(crate) gap_ms: Option<Distribution>,
    /// Gaps of each session's packets at the nodes at each fault; null if nodes have no host of their own.
    gap_at_nodes_ms: Option<Distribution>,
    /// From the fault until another gateway's host had the shared address; null if none took it.
    taken_over_ms: Option<Distribution>,
    /// The time in which the gateway that took over restored the sessions; it may begin before it takes over. Null if none did.
    restore_ms: Option<Distribution>,
    /// From the return of the store until the index was correct; null without a store.
    index_correct_ms: Option<Distribution>,
    /// Gaps of the sessions of each kill.
    gap_ms_of_kills: Vec<GapSpread>,
    /// Distribution over the kills of the 99th percentile of gaps.
    gap_p99_over_kills: Option<OverKills>,
    /// For faults with two variants: `stopped` (SIGSTOP) and `hushed` (SIGKILL without ICMP).
    by_way: BTreeMap<&'static str, OneWay>,
    /// From the fault until the node was marked down.
    pub(crate) detect_ms: Option<Distribution>,
    /// From the fault until each witness began to accuse the node.
    by_witness: BTreeMap<String, Distribution>,
    /// From the fault to each affected session's first packet of another node.
    left_ms: Option<Distribution>,
    /// The packets of each session; null if they are not counted, as those of other programs.
    #[serde(flatten)]
    pub(crate) packets: PacketCounts,
    moves_by_cause: BTreeMap<String, u64>,
    /// The largest number of moves of one room, except off a dead node.
    moves_in_a_minute: Option<usize>,
    /// Rooms without capacity elsewhere; null if all fit.
    unplaced: Option<UnplacedRooms>,
    /// Times from the repair to the next packet of each receiver in a room without a node.
    unplaced_recovered_ms: Option<Distribution>,
    /// Samples of nodes; null if none were taken.
    nodes_sampled: Option<SampledNodes>,
    /// Sessions that were offered and answered around faults; null if none are offered.
    offered: Option<usize>,
    /// From each of these offers to its answer; null if none are offered.
    offer_ms: Option<Distribution>,
    /// Media packets from the host of a standby: before faults, and after a former owner is back; null without a standby.
    of_standby: Option<u64>,
    /// New sessions; null if none were opened.
    newcomers: Option<NewcomerReport>,
    /// The transports of WebRTC sessions; null without any.
    transports: Option<Transports>,
    /// Requests for key frames that reached the publisher of a live stream at each fault.
    key_frames_asked: Vec<u64>,
    /// The duration of freezes in each page of a browser at each fault (`totalFreezesDuration`), and by frames at the capture of each client of the
    /// lab and of each end of a library, milliseconds.
    frozen_ms: Vec<u64>,
    unfault: Option<RecoveryReport>,
    pub(crate) control: Option<ControlReport>,
    /// Scheduling latency of the machine before and during this row.
    machine: Option<Timeliness>,
    limit: String,
}

/// The packets of sessions around faults.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct PacketCounts {
    /// Packets that affected sessions lost.
    pub(crate) packets_lost: Option<u64>,
    packets_lost_of_others: Option<u64>,
    packets_sent: Option<u64>,
    freezes: Option<u64>,
    freezes_of_others: Option<u64>,
    twice: Option<u64>,
    misdelivered: Option<u64>,
    /// Packets of an old node after the first of the new one.
    stragglers: Option<u64>,
    /// The longest time over which stragglers arrived.
    straggled_ms: Option<f64>,
    /// Moves of an affected room per fault; both sessions of the room move with it.
    pub(crate) moves_per_session: Option<f64>,
    moves_of_other_rooms: Option<u64>,
}

impl PacketCounts {
    fn of(faults: &FaultEffect, unfaults: &FaultEffect) -> PacketCounts {
        PacketCounts {
            packets_lost: Some(faults.lost),
            packets_lost_of_others: Some(faults.lost_of_others),
            packets_sent: Some(faults.sent),
            freezes: Some(faults.freezes),
            freezes_of_others: Some(faults.freezes_of_others),
            twice: Some(faults.twice),
            misdelivered: Some(faults.misdelivered + unfaults.misdelivered),
            stragglers: Some(faults.stragglers),
            straggled_ms: Some(faults.straggled_ns as f64 / 1e6),
            moves_per_session: Some(moves(faults)),
            moves_of_other_rooms: Some(faults.other_rooms_moved),
        }
    }
}

/// 99th percentile of gaps over the kills of a row, milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct OverKills {
    pub(crate) median: f64,
    pub(crate) worst: f64,
}

impl OverKills {
    /// `None` without kills.
    pub(crate) fn of(kills: &[GapSpread]) -> Option<OverKills> {
        let mut each: Vec<f64> = kills.iter().map(|kill| kill.p99).collect();
        each.sort_unstable_by(f64::total_cmp);
        let median = *each.get(each.len().saturating_sub(1) / 2)?;
        Some(OverKills { median, worst: *each.last()? })
    }
}

#[derive(Clone, Debug, Serialize)]
struct OneWay {
    gap_ms: Option<Distribution>,
    detect_ms: Option<Distribution>,
}

/// The time from the repair to recovery.
#[derive(Clone, Debug, Serialize)]
struct RecoveryReport {
    /// The longest pause of each receiver after each repair.
    gap_ms: Option<Distribution>,
    settle_ms: Option<Distribution>,
    /// Repairs without recovery in time.
    unsettled: u32,
    packets_lost: Option<u64>,
    freezes: Option<u64>,
    /// Packets that came from affected nodes.
    of_the_hit: Option<u64>,
    moves: Option<u64>,
    condemned: usize,
}

/// The control run before the first fault, as long as a fault is observed: 1.2 s in most rows, whatever the length of
/// the fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ControlReport {
    /// Pauses at ten moments per second.
    pub(crate) gap_ms: Option<Distribution>,
    /// The longest pause of each session.
    longest_ms: Option<Distribution>,
    /// The longest pause of each session's packets at the nodes; null if nodes have no host of their own.
    longest_at_nodes_ms: Option<Distribution>,
    packets_lost: Option<u64>,
    freezes: Option<u64>,
    moves: Option<u64>,
    condemned: usize,
    /// Idle time of the processors, per cent.
    idle_percent: f64,
    /// The duration of freezes, milliseconds.
    frozen_ms: Vec<u64>,
    /// Frames that the slower page of a browser decoded; null without pages.
    frames_per_second: Option<f64>,
}

#[derive(Default)]
pub(crate) struct Played {
    pub(crate) control: Control,
    pub(crate) faults: FaultEffect,
    /// The longest pause of each session's packets at the nodes at each fault.
    pub(crate) gaps_up_ns: Vec<u64>,
    /// The time from each fault until another gateway's host had the shared address.
    pub(crate) taken_ns: Vec<u64>,
    /// The time in which a process that continues sessions restored them, at each fault.
    pub(crate) restore_ns: Vec<u64>,
    /// The time from each return of the store until the index was correct.
    pub(crate) index_ns: Vec<u64>,
    /// Sessions that were offered and answered around faults.
    pub(crate) offered: usize,
    /// From the offer of each of them to its answer.
    pub(crate) offers_ns: Vec<u64>,
    /// Those that the gateway does not list afterwards.
    pub(crate) offered_missing: usize,
    /// Media packets from the host of a standby.
    pub(crate) of_standby: u64,
    pub(crate) kills: Vec<GapSpread>,
    /// Measurements of each variant of the fault.
    pub(crate) ways: BTreeMap<&'static str, FaultEffect>,
    /// Nodes that were marked down without a fault, and when.
    pub(crate) strangers: Vec<(&'static str, String)>,
    /// Expected effects of faults that were missing.
    pub(crate) unproven: Vec<String>,
    pub(crate) unfaults: FaultEffect,
    pub(crate) settle_ns: Vec<u64>,
    pub(crate) unsettled: u32,
    pub(crate) moves: Moves,
    pub(crate) predicted: Predicted,
    pub(crate) unplaced: UnplacedRooms,
    pub(crate) sampled: Option<SampledNodes>,
    pub(crate) tide: Option<NewcomerReport>,
    /// `None` without WebRTC sessions.
    pub(crate) transports: Option<Transports>,
    /// Requests for key frames that reached the publisher of a live stream at each fault.
    pub(crate) key_frames_asked: Vec<u64>,
    /// The duration of freezes of each stream of video at each fault.
    pub(crate) frozen_ms: Vec<u64>,
    /// The part of a stranger's ClientHellos that the gateway read in each flood, per cent.
    pub(crate) hellos_read: Vec<f64>,
}

/// The measurements of the control run.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) gaps_ns: Vec<u64>,
    pub(crate) longest: FaultEffect,
    /// The longest pause of each session's packets at the nodes.
    pub(crate) up_ns: Vec<u64>,
    /// Idle time of the processors, per cent.
    pub(crate) idle_percent: f64,
    /// The duration of freezes of each stream of video.
    pub(crate) frozen_ms: Vec<u64>,
    /// The frame rate of the page with the lower one; `None` without pages.
    pub(crate) frames_per_second: Option<f64>,
}

impl Played {
    /// Records nodes that were marked down and are no victims.
    pub(crate) fn marked_down(&mut self, when: &'static str, who: &[String], victims: &[String]) {
        let strangers = who.iter().filter(|node| !victims.contains(node));
        self.strangers.extend(strangers.map(|node| (when, node.clone())));
    }
}

/// The run of a row.
pub(crate) struct RowPlayed<'a> {
    pub(crate) row: &'a Row,
    pub(crate) limits: &'a Limits,
    pub(crate) machine: Timeliness,
    /// The error that ended it, if any.
    pub(crate) outcome: Result<(), String>,
}

impl RowReport {
    /// The report of a row with its measurements.
    pub(crate) fn new(
        RowPlayed { row, limits, machine, outcome }: RowPlayed<'_>,
        played: Played,
    ) -> RowReport {
        let mut misses: Vec<String> = outcome.err().into_iter().collect();
        misses.extend(limits.misses(&played));
        let mut judged = limits.row(row.report_id(), &played);
        let Played { control, faults, kills, ways, unproven, unfaults, .. } = played;
        let Played { settle_ns, unsettled, unplaced, sampled, tide, .. } = played;
        misses.extend(unproven);
        let moves_in_a_minute = played.moves.most();
        judged.judge();
        judged.miss(misses);
        let packets = PacketCounts::of(&faults, &unfaults);
        // A row that broke off before its first fault counted none.
        let counts_packets = limits.counts_packets() && !kills.is_empty();
        let of_sessions = |count: u64| counts_packets.then_some(count);
        let mut by_witness: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (witness, after_ms) in faults.detections.iter().flat_map(|found| &found.by_witness) {
            by_witness.entry(witness.clone()).or_default().push(*after_ms);
        }
        let by_witness = by_witness.into_iter();
        let by_witness = by_witness.filter_map(|(witness, ms)| Some((witness, of_ms(ms)?)));
        RowReport {
            row: judged,
            packets: if counts_packets { packets } else { PacketCounts::default() },
            gap_ms: of_ns(faults.gaps_ns.clone()),
            gap_at_nodes_ms: of_ns(played.gaps_up_ns),
            taken_over_ms: of_ns(played.taken_ns),
            restore_ms: of_ns(played.restore_ns),
            index_correct_ms: of_ns(played.index_ns),
            kills: Some(kills.len()),
            gap_p99_over_kills: OverKills::of(&kills),
            gap_ms_of_kills: kills,
            by_way: ways.into_iter().map(|(way, of)| (way, OneWay::new(of))).collect(),
            detect_ms: of_ms(found_ms(&faults)),
            by_witness: by_witness.collect(),
            left_ms: of_ns(faults.left_ns.clone()).filter(|_| !faults.left_ns.is_empty()),
            moves_by_cause: by_report_key(faults.causes),
            moves_in_a_minute: Some(moves_in_a_minute),
            unplaced_recovered_ms: of_ns(unplaced.back_ns.clone()),
            unplaced: row.checks.some_unplaced.then_some(unplaced),
            nodes_sampled: sampled,
            offered: limits.has_offers().then_some(played.offered),
            offer_ms: of_ns(played.offers_ns),
            of_standby: limits.has_standby().then_some(played.of_standby),
            newcomers: tide,
            transports: played.transports,
            key_frames_asked: played.key_frames_asked,
            frozen_ms: played.frozen_ms,
            unfault: Some(RecoveryReport {
                gap_ms: of_ns(unfaults.gaps_ns),
                settle_ms: of_ns(settle_ns),
                unsettled,
                packets_lost: of_sessions(unfaults.lost),
                freezes: of_sessions(unfaults.freezes),
                of_the_hit: of_sessions(unfaults.of_the_hit),
                moves: of_sessions(unfaults.rooms_moved),
                condemned: unfaults.marked_down.len(),
            }),
            control: Some(ControlReport::of(control, limits)),
            machine: Some(machine),
            ..RowReport::blank(row, limits)
        }
    }

    /// True if the machine was late.
    fn is_late(&self) -> bool {
        self.machine.is_some_and(|machine| machine.is_late())
    }

    /// The p99 of the wake-up delays of the machine, milliseconds.
    pub(crate) fn woken_late_ms(&self) -> Option<f64> {
        self.machine.map(|machine| machine.woken_late_ms.p99)
    }

    pub(crate) fn skipped(row: &Row, limits: &Limits, reason: String) -> RowReport {
        let mut report = RowReport::blank(row, limits);
        report.row.skipped = Some(reason);
        report
    }

    /// A report without measurements, with the control run and the reason.
    pub(crate) fn not_measured(
        row: &Row,
        limits: &Limits,
        control: Control,
        reason: String,
    ) -> RowReport {
        let mut report = RowReport::blank(row, limits);
        report.row.not_measured = Some(reason);
        report.control = Some(ControlReport::of(control, limits));
        report
    }

    fn blank(row: &Row, limits: &Limits) -> RowReport {
        RowReport {
            row: limits.blank(row.report_id()),
            mode: row.layout.mode,
            sessions: row.sessions,
            speech: match row.both_ways {
                false => "one way",
                true => "both ways",
            },
            kills: None,
            gap_ms: None,
            gap_at_nodes_ms: None,
            taken_over_ms: None,
            restore_ms: None,
            index_correct_ms: None,
            gap_ms_of_kills: Vec::new(),
            gap_p99_over_kills: None,
            by_way: BTreeMap::new(),
            detect_ms: None,
            by_witness: BTreeMap::new(),
            left_ms: None,
            packets: PacketCounts::default(),
            moves_by_cause: BTreeMap::new(),
            moves_in_a_minute: None,
            unplaced: None,
            unplaced_recovered_ms: None,
            nodes_sampled: None,
            offered: None,
            offer_ms: None,
            of_standby: None,
            newcomers: None,
            transports: None,
            key_frames_asked: Vec::new(),
            frozen_ms: Vec::new(),
            unfault: None,
            control: None,
            machine: None,
            limit: limits.words(),
        }
    }
}

impl ControlReport {
    fn of(control: Control, limits: &Limits) -> ControlReport {
        let of_sessions = |count: u64| limits.counts_packets().then_some(count);
        ControlReport {
            gap_ms: of_ns(control.gaps_ns),
            packets_lost: of_sessions(control.longest.lost),
            freezes: of_sessions(control.longest.freezes),
            moves: of_sessions(control.longest.rooms_moved),
            condemned: control.longest.marked_down.len(),
            longest_ms: of_ns(control.longest.gaps_ns),
            longest_at_nodes_ms: of_ns(control.up_ns),
            idle_percent: control.idle_percent,
            frozen_ms: control.frozen_ms,
            frames_per_second: control.frames_per_second,
        }
    }
}

impl Report {
    pub(crate) fn add(&mut self, row: RowReport) {
        let gaps = row.gap_ms.filter(|_| row.detect_ms.is_some());
        self.session_gaps_total += gaps.map_or(0, |gap| gap.n);
        self.rows.push(row);
    }

    pub(crate) fn add_runs(&mut self, runs: RowRuns) {
        self.runs.push(runs);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of rows in which the machine was late.
    pub(crate) fn late(&self) -> usize {
        self.rows.iter().filter(|row| row.is_late()).count()
    }

    pub(crate) fn compare(&mut self, outage: Result<Outage, String>) {
        self.outage_cut = outage.as_ref().ok().map(|outage| outage.cut);
        self.outage = Some(outage);
    }

    pub(crate) fn compare_keepalived(&mut self, standby: Result<Vec<OwnerDeaths>, String>) {
        self.keepalived = Some(standby);
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        evenkeel_report::write(self, path)
    }
}

impl OneWay {
    fn new(of: FaultEffect) -> OneWay {
        OneWay { detect_ms: of_ms(found_ms(&of)), gap_ms: of_ns(of.gaps_ns) }
    }
}

/// Keeps the key of earlier reports, so that figures can be compared.
fn by_report_key(mut moves: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    if let Some(failbacks) = moves.remove("failback") {
        moves.insert("fail-back".to_owned(), failbacks);
    }
    moves
}

/// Detection times after the faults.
pub(crate) fn found_ms(faults: &FaultEffect) -> Vec<f64> {
    faults.detections.iter().map(|found| found.after_ms).collect()
}

fn of_ns(values: Vec<u64>) -> Option<Distribution> {
    let n = values.len();
    (n > 0).then(|| Distribution { n, spread: GapSpread::of_ns(values) })
}

fn of_ms(values: Vec<f64>) -> Option<Distribution> {
    of_ns(values.into_iter().map(|ms| (ms.max(0.0) * 1e6) as u64).collect())
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;
    use serde_json::Value;

    use crate::rows;

    use super::*;

    #[test]
    fn row_that_was_not_played_has_no_zeros() {
        let all = rows::all();
        let ids: Vec<&str> = all.iter().map(|row| row.id).collect();
        let table = LimitTable::load().unwrap().rows_of("chaos", &ids).unwrap();
        let row = all.iter().find(|row| row.id == "gateway.kill").unwrap();
        let report = RowReport::skipped(row, &Limits::of(row, &table), "no root".to_owned());
        let report = serde_json::to_value(&report).unwrap();
        let is_zero = |value: &Value| value.as_f64() == Some(0.0) || *value == Value::Bool(false);
        let zeros = report.as_object().unwrap().iter().filter(|(_, value)| is_zero(value));
        let zeros: Vec<&String> = zeros.map(|(name, _)| name).collect();
        assert!(zeros.is_empty(), "{zeros:?}");
        for name in ["kills", "unfault", "control", "machine", "moves_in_a_minute"] {
            assert!(report[name].is_null(), "{name}");
        }
    }
}
