//! What was done, when, and what the gateway said to it: everything that is judged afterwards beside the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use super::cast::Cast;
use super::hostile::Vice;
use crate::machine::Timeliness;
use crate::relay::Dropped;
use evenkeel_client::Event;

/// A stretch of time: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Span {
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
}

impl Span {
    pub(super) fn holds(&self, at_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&at_ns)
    }
}

/// A node that was killed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) node: String,
    /// By SIGSTOP: nothing refuses its packets.
    pub(super) silent: bool,
    /// With nobody there who could have decided or listened.
    pub(super) unattended: bool,
    /// From its death until the next thing was done.
    pub(super) span: Span,
}

/// A policy that was pushed.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) policy: &'static str,
    /// None: a good one.
    pub(super) vice: Option<Vice>,
    /// What the API answered.
    pub(super) answer: Value,
    pub(super) span: Span,
    /// Rooms that go another way than before.
    pub(super) rooms_moved: usize,
}

/// What became of strangers.
#[derive(Clone, Default, Debug)]
pub(super) struct Knocking {
    pub(super) sent: u64,
    pub(super) learned: u64,
    /// What the gateway counted meanwhile, by reason.
    pub(super) counted: BTreeMap<String, u64>,
}

/// What became of questions to policies.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Calls {
    pub(super) total: u64,
    pub(super) applied: u64,
    /// The same by policy.
    pub(super) applied_by: BTreeMap<String, u64>,
    pub(super) differs: u64,
    pub(super) faults: u64,
}

/// The whole demo.
pub(super) struct Chronicle {
    pub(super) cast: Cast,
    /// The number of each session by the gateway's id.
    pub(super) by_id: BTreeMap<String, u64>,
    pub(super) span: Span,
    /// How timely the machine was by itself.
    pub(super) machine: Timeliness,
    /// Moments at which nothing happened.
    pub(super) control_ns: Vec<u64>,
    pub(super) faults: Vec<Fault>,
    /// Who was behind it.
    pub(super) lossy: BTreeSet<u64>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) pushes: Vec<Push>,
    pub(super) knocking: Knocking,
    pub(super) calls: Calls,
    pub(super) telemetry: Value,
    /// Every event, until the API ended.
    pub(super) events: Vec<Event>,
    /// Where configuration and logs are, if they are kept.
    pub(super) kept: Option<PathBuf>,
    /// Sessions whose client failed or was let go.
    pub(super) failed: BTreeSet<u64>,
}
