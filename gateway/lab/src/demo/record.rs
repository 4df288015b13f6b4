//! The records of a demo beside the ledger: faults, pushes, answers and events.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use super::hostile::Vice;
use super::report::{PolicyCalls, StrangerFigures};
use super::sessions::SessionPlan;
use super::takeover::TakeoverResult;
use crate::machine::Timeliness;
use crate::relay::RelayDrop;
use evenkeel_client::ServerEvent;

/// A time span: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct TimeSpan {
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
}

impl TimeSpan {
    pub(super) fn holds(&self, at_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&at_ns)
    }
}

#[derive(Clone, Debug)]
pub(super) struct DemoFault {
    pub(super) node: String,
    /// The node was stopped (SIGSTOP), so that its port stays open.
    pub(super) silent: bool,
    /// The gateway ran without plugins, API and telemetry receiver.
    pub(super) unattended: bool,
    pub(super) span: TimeSpan,
}

#[derive(Clone, Debug)]
pub(super) struct DemoPush {
    pub(super) policy: &'static str,
    /// `None` for a valid plugin.
    pub(super) vice: Option<Vice>,
    pub(super) answer: Value,
    pub(super) span: TimeSpan,
    pub(super) rooms_moved: usize,
}

pub(super) struct DemoRecord {
    pub(super) plan: SessionPlan,
    /// Session numbers by the gateway's id.
    pub(super) by_id: BTreeMap<String, u64>,
    pub(super) span: TimeSpan,
    pub(super) machine: Timeliness,
    pub(super) control_ns: Vec<u64>,
    pub(super) faults: Vec<DemoFault>,
    /// The sessions behind the lossy network.
    pub(super) lossy: BTreeSet<u64>,
    pub(super) dropped: Vec<RelayDrop>,
    pub(super) pushes: Vec<DemoPush>,
    pub(super) strangers: StrangerFigures,
    pub(super) calls: PolicyCalls,
    pub(super) telemetry: Value,
    /// Every event, until the API ended.
    pub(super) events: Vec<ServerEvent>,
    /// The folder with configuration and logs, if kept.
    pub(super) kept: Option<PathBuf>,
    /// Sessions with a failed or closed client.
    pub(super) failed: BTreeSet<u64>,
    pub(super) takeover: TakeoverResult,
}
