//! The report of a drill, and the record of past ones.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{DrillError, DrillFault, DrillPlan, Unmended, by_hand};
use crate::crowd::FaultEffect;
use crate::ledger::ranks;

/// A distribution in milliseconds (nearest rank). Without samples it is `null` in JSON.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Milliseconds {
    /// Median; null without a value.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Maximum.
    pub max: Option<f64>,
    /// The number of samples.
    pub n: usize,
}

impl Milliseconds {
    pub(crate) fn of(values: Vec<f64>) -> Milliseconds {
        let n = values.len();
        let [p50, p90, p99, max] = ranks(values, [50, 90, 99, 100]);
        Milliseconds { p50, p90, p99, max, n }
    }

    fn of_ns(values: &[u64]) -> Milliseconds {
        Milliseconds::of(values.iter().map(|&ns| ns as f64 / 1e6).collect())
    }
}

/// The report of a drill as JSON. Scripts rely on its keys.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DrillReport {
    /// The name of the drill: `kill-node`.
    pub drill: &'static str,
    /// Names of the broken nodes.
    pub nodes: Vec<String>,
    /// Time of the drill: microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// Synthetic sessions, two per room, of which one sends.
    pub sessions: u32,
    /// Receivers on a broken node.
    pub(crate) hit: usize,
    /// The longest pause after the fault, of receivers on a broken node.
    pub gap_ms: Milliseconds,
    /// Pauses of all receivers in the control run.
    pub control_ms: Milliseconds,
    /// Time from the fault until the gateway marked a node down.
    pub detect_ms: Milliseconds,
    /// Broken nodes that the gateway did not mark down while it was observed.
    pub(crate) not_found: Vec<String>,
    /// Time from the fault until each witness accused a node that was marked down.
    pub by_witness: BTreeMap<String, Milliseconds>,
    /// Packets due to affected receivers that never arrived.
    pub packets_lost: u64,
    /// Packets lost by receivers that were on no broken node.
    pub packets_lost_of_others: u64,
    /// Affected receivers without packets at the end.
    pub unheard: usize,
    /// Moves of rooms with a broken node.
    pub moves: u64,
    pub(crate) moves_per_room: f64,
    /// Packets lost after the repair.
    pub packets_lost_mending: u64,
    /// All nodes were repaired.
    pub mended: bool,
    pub(crate) unmended: Vec<Unmended>,
    /// The nodes carry rooms again.
    pub trusted_again: bool,
}

impl DrillReport {
    pub(super) fn new(
        drill: &DrillPlan,
        nodes: Vec<String>,
        at_ns: u64,
        fault: &FaultEffect,
        control_ns: &[u64],
        unfault: &FaultEffect,
        trusted_again: bool,
    ) -> DrillReport {
        let mut by_witness: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (witness, ms) in fault.detections.iter().flat_map(|found| &found.by_witness) {
            by_witness.entry(witness.clone()).or_default().push(*ms);
        }
        let found = fault.detections.iter().map(|found| found.after_ms).collect();
        let is_lost = |node: &&String| !fault.detections.iter().any(|found| found.node == **node);
        DrillReport {
            not_found: nodes.iter().filter(is_lost).cloned().collect(),
            drill: drill.kind.facts().name,
            nodes,
            at_us: at_ns / 1_000,
            sessions: drill.sessions,
            hit: fault.hit,
            gap_ms: Milliseconds::of_ns(&fault.gaps_ns),
            control_ms: Milliseconds::of_ns(control_ns),
            detect_ms: Milliseconds::of(found),
            by_witness: by_witness.into_iter().map(|(w, ms)| (w, Milliseconds::of(ms))).collect(),
            packets_lost: fault.lost,
            packets_lost_of_others: fault.lost_of_others,
            unheard: fault.unheard,
            moves: fault.rooms_moved,
            moves_per_room: fault.rooms_moved as f64 / (fault.rooms_hit.max(1)) as f64,
            packets_lost_mending: unfault.lost,
            mended: true,
            unmended: Vec::new(),
            trusted_again,
        }
    }

    /// Violated expectations, as text. A flapping node need not be marked down.
    pub fn amiss(&self) -> Option<String> {
        let mut amiss = Vec::new();
        if !self.unmended.is_empty() {
            amiss.push(by_hand(&self.unmended));
        }
        if !self.not_found.is_empty() && self.drill != DrillFault::Flap.facts().name {
            amiss.push(format!("{} was never marked down", self.not_found.join(", ")));
        }
        if self.unheard > 0 {
            amiss.push(format!(
                "{} of {} receivers got no packets at the end",
                self.unheard, self.hit
            ));
        }
        (!amiss.is_empty()).then(|| amiss.join("; "))
    }
}

/// `$XDG_STATE_HOME/evenkeel/drills.jsonl`, else `~/.local/state/evenkeel/drills.jsonl` (XDG base directories).
pub fn default_place() -> PathBuf {
    let named = |key| std::env::var_os(key).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || named("HOME").unwrap_or_else(|| PathBuf::from("/var/lib")).join(".local/state");
    named("XDG_STATE_HOME").unwrap_or_else(home).join("evenkeel/drills.jsonl")
}

/// The record of past drills: a file with one JSON object per line, newest last. It need not exist.
#[derive(Clone, Debug)]
pub struct DrillRecordFile(pub PathBuf);

impl DrillRecordFile {
    /// Appends a report.
    pub fn add(&self, report: &DrillReport) -> Result<(), DrillError> {
        let add = || -> io::Result<()> {
            if let Some(folder) = self.0.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut line = serde_json::to_vec(report)?;
            line.push(b'\n');
            OpenOptions::new().create(true).append(true).open(&self.0)?.write_all(&line)
        };
        add().map_err(|error| DrillError::Record(self.0.clone(), error))
    }

    /// All reports, newest last. The list is empty if the file is missing. A truncated line is skipped.
    pub fn all(&self) -> Result<Vec<Value>, DrillError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => {
                Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(DrillError::Record(self.0.clone(), error)),
        }
    }
}
