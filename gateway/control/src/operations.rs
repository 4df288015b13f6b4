//! Operators' operations on nodes, zones, regions, breakers and the log. Operations in force, the nodes that the gateway has started,
//! and the alerts that are being sent are kept in files, and continue after a restart.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Failback;
use evenkeel_model::{BreakerMode, ClientGroup, FailureScope};
use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::alerts::AlertsRecord;
use crate::kept_file::KeptFile;

/// Sends the log filter that operators set; `None` while there is none.
pub type LogFilterSender = watch::Sender<Option<Box<str>>>;

/// An operator's operation on a node, zone, region or breaker, or on the log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A draining place takes no new rooms, and its rooms move, by the deadline if other nodes have capacity.
    Drain {
        /// Node, zone or region that the operation changes.
        place: OperationTarget,
        /// True to drain, false to end the drain.
        draining: bool,
        /// Deadline of a drain. Without a deadline rooms move once other nodes have capacity.
        within: Option<Duration>,
    },
    /// Marks the node down until it is returned.
    Eject(Box<str>),
    /// Ends the ejection of a node.
    Return(Box<str>),
    /// Ejects all nodes of a zone at once. It is kept as the ejection of each.
    EjectZone(Box<str>),
    /// Ends the ejections of a zone's nodes.
    ReturnZone(Box<str>),
    /// Sets failback of a region, or of all regions.
    Failback(Option<Box<str>>, Failback),
    /// Holds a breaker open or closed, or lets it judge again.
    Breaker(BreakerTarget, BreakerMode),
    /// Selects the lines of the log, instead of the filter with which the process started; `None` ends that.
    LogFilter(Option<Box<str>>),
}

/// The place of a drain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum OperationTarget {
    /// Node with this name.
    Node(Box<str>),
    /// Zone with this name: `eu/a`, or `a` if one region alone has such a zone.
    Zone(Box<str>),
    /// Region with this name.
    Region(Box<str>),
}

/// A circuit breaker that an operator holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerTarget {
    /// That of the region with this name.
    Region(Box<str>),
    /// That of the zone with this name, as in [`OperationTarget::Zone`].
    Zone(Box<str>),
    /// That of these clients.
    Clients(ClientGroup),
}

impl OperationTarget {
    fn scope(&self) -> FailureScope {
        match self {
            OperationTarget::Node(_) => FailureScope::Node,
            OperationTarget::Zone(_) => FailureScope::Zone,
            OperationTarget::Region(_) => FailureScope::Region,
        }
    }
}

impl Operation {
    /// True if the later operation leaves no effect of this one.
    fn is_replaced_by(&self, later: &Operation) -> bool {
        match (self, later) {
            (Operation::Drain { place, .. }, Operation::Drain { place: same, .. }) => place == same,
            (
                Operation::Eject(node) | Operation::Return(node),
                Operation::Eject(same) | Operation::Return(same),
            ) => node == same,
            (Operation::Failback(region, _), Operation::Failback(same, _)) => {
                same.is_none() || region == same
            }
            (Operation::Breaker(breaker, _), Operation::Breaker(same, _)) => breaker == same,
            (Operation::LogFilter(_), Operation::LogFilter(_)) => true,
            _ => false,
        }
    }

    /// True if the operation takes back what nothing but `earlier` may have begun.
    fn is_void_after(&self, earlier: &[Operation]) -> bool {
        let drains = |it: &Operation, part_of: &OperationTarget| {
            matches!(it, Operation::Drain { place, draining: true, .. }
                if place.scope() != part_of.scope())
        };
        let of_all = |it: &Operation| matches!(it, Operation::Failback(None, _));
        match self {
            // The end of a region's drain also ends those of its zones and nodes, and that of a zone's drain those of its nodes:
            // they may be in force.
            Operation::Drain { place, draining, .. } => {
                !draining && !earlier.iter().any(|it| drains(it, place))
            }
            Operation::Return(_) | Operation::ReturnZone(_) => true,
            Operation::Failback(_, mode) => {
                *mode == Failback::default() && !earlier.iter().any(of_all)
            }
            Operation::Breaker(_, mode) => *mode == BreakerMode::Auto,
            Operation::LogFilter(filter) => filter.is_none(),
            Operation::Eject(_) | Operation::EjectZone(_) => false,
        }
    }
}

/// The operations in force, in the order in which they came.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(from = "Vec<RecordedOperation>")]
pub struct Operations(Vec<Operation>);

/// An operation in a record, perhaps of a later version.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordedOperation {
    Known(Operation),
    Unknown(IgnoredAny),
}

impl From<Vec<RecordedOperation>> for Operations {
    /// Drops operations that this version lacks, so that the others stay in force after a downgrade.
    fn from(recorded: Vec<RecordedOperation>) -> Operations {
        let known = recorded.into_iter().filter_map(|operation| match operation {
            RecordedOperation::Known(operation) => Some(operation),
            RecordedOperation::Unknown(IgnoredAny) => {
                tracing::warn!("an operator's decision is unknown to this version, and ends");
                None
            }
        });
        Operations(known.collect())
    }
}

impl Operations {
    /// Adds an operation that was executed, and drops those that have no effect any more.
    pub fn add(&mut self, operation: Operation) {
        self.0.retain(|earlier| !earlier.is_replaced_by(&operation));
        if !operation.is_void_after(&self.0) {
            self.0.push(operation);
        }
    }

    fn log_filter(&self) -> Option<Box<str>> {
        self.0.iter().find_map(|operation| match operation {
            Operation::LogFilter(filter) => filter.clone(),
            _ => None,
        })
    }

    /// Returns them in the order in which they are executed again.
    pub fn iter(&self) -> impl Iterator<Item = &Operation> {
        self.0.iter()
    }
}

/// The operations in force, the nodes that the gateway has started, and the alerts that are being sent, in files that the next
/// process reads.
#[derive(Debug)]
pub struct OperationLog {
    file: KeptFile<Operations>,
    alerts: KeptFile<AlertsRecord>,
    started_nodes: KeptFile<BTreeSet<Box<str>>>,
    log_filter: LogFilterSender,
}

impl Default for OperationLog {
    fn default() -> OperationLog {
        OperationLog::open(None, Path::new(""), false)
    }
}

impl OperationLog {
    /// Reads this gateway's files in the folder. With `continues`, another process serves: the one that this one replaces
    /// writes the files until its end, or the owner of the group sends its operations and alerts.
    pub fn open(folder: Option<&Path>, socket: &Path, continues: bool) -> OperationLog {
        let folder = |name| folder.map(|folder| folder.join(name));
        let nodes = folder("started-nodes");
        let (operations, alerts) = (KeptDocument::Operations, KeptDocument::Alerts);
        OperationLog {
            file: KeptFile::open(folder("operations"), operations, socket, continues),
            alerts: KeptFile::open(folder("alerts"), alerts, socket, continues),
            started_nodes: KeptFile::open(nodes, KeptDocument::StartedNodes, socket, continues),
            log_filter: LogFilterSender::default(),
        }
    }

    /// Reports files that cannot be written to this owner of them.
    pub fn reporting_to(self, unwritten: &UnwrittenDocuments) -> OperationLog {
        OperationLog {
            file: self.file.reporting_to(unwritten),
            alerts: self.alerts.reporting_to(unwritten),
            started_nodes: self.started_nodes.reporting_to(unwritten),
            log_filter: self.log_filter,
        }
    }

    /// Sends the log filter in force to this channel, also at a standby, where the owner's filter holds.
    pub fn telling(self, log_filter: LogFilterSender) -> OperationLog {
        let log = OperationLog { log_filter, ..self };
        log.tell_log_filter();
        log
    }

    fn tell_log_filter(&self) {
        let filter = self.file.value.log_filter();
        self.log_filter
            .send_if_modified(|known| std::mem::replace(known, filter.clone()) != filter);
    }

    /// Reads the files, unless they were read: returns true if the operations are read now.
    pub(crate) fn resume(&mut self) -> bool {
        self.alerts.resume();
        self.started_nodes.resume();
        let is_read = self.file.resume();
        if is_read {
            self.tell_log_filter();
        }
        is_read
    }

    /// Forgets operations on nodes, zones and regions that are gone.
    pub(crate) fn retain(&mut self, is_known: impl FnMut(&Operation) -> bool) {
        self.file.value.0.retain(is_known);
    }

    /// Keeps operations that were executed, and calls `done` once they are on the disk, or with the reason for which it cannot be
    /// written.
    pub(crate) fn keep(
        &mut self,
        operations: impl IntoIterator<Item = Operation>,
        done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static,
    ) {
        operations.into_iter().for_each(|operation| self.file.value.add(operation));
        self.tell_log_filter();
        self.file.write(done);
    }

    /// Replaces the operations of this process by those of the one that it continues.
    pub(crate) fn replace(&mut self, operations: Operations) {
        if self.file.replace(operations) {
            self.tell_log_filter();
        }
    }

    /// Returns the operations in force.
    pub(crate) fn operations(&self) -> &Operations {
        &self.file.value
    }

    /// Replaces the names of the nodes that this process, or the one that it continues, has started.
    pub(crate) fn keep_started_nodes(&mut self, nodes: BTreeSet<Box<str>>) {
        self.started_nodes.replace(nodes);
    }

    /// Returns the names of the nodes that the gateway has started.
    pub(crate) fn started_nodes(&self) -> &BTreeSet<Box<str>> {
        &self.started_nodes.value
    }

    /// Keeps the alerts that are being sent, and calls `done` as [`OperationLog::keep`] does.
    pub(crate) fn keep_alerts(
        &mut self,
        alerts: AlertsRecord,
        done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static,
    ) {
        self.alerts.value = alerts;
        self.alerts.write(done);
    }

    /// Replaces the alerts of this process by those of the one that it continues.
    pub(crate) fn replace_alerts(&mut self, alerts: AlertsRecord) {
        self.alerts.replace(alerts);
    }

    /// Returns the alerts that are being sent.
    pub(crate) fn alerts(&self) -> &AlertsRecord {
        &self.alerts.value
    }
}

#[cfg(test)]
mod tests;
