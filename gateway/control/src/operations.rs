//! Operators' operations on nodes, zones, regions, breakers and the log. Operations in force, the nodes that the gateway has started,
//! and the alerts that are being sent continue after a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Failback;
use evenkeel_kept::{Document, Documents, Encoded, FollowerCopy, Kind, Row, Store};
use evenkeel_model::{BreakerMode, ClientGroup, FailureScope};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::alerts::AlertsRecord;

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
        self.add_unmerged(operation);
        if let Some((last, earlier)) = self.0.split_last()
            && last.is_void_after(earlier)
        {
            self.0.pop();
        }
    }

    /// As [`Operations::add`], while the disk has not answered: it may have the operation that this one ends.
    fn add_unmerged(&mut self, operation: Operation) {
        self.0.retain(|earlier| !earlier.is_replaced_by(&operation));
        self.0.push(operation);
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

impl Document for Operations {
    const KIND: Kind =
        Kind { name: "operations", version: 1, rows_max: 1, copy: FollowerCopy::Replaces };

    fn merge(mut kept: Operations, own: Operations) -> Operations {
        own.0.into_iter().for_each(|operation| kept.add(operation));
        kept
    }

    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![Path::new("operations").join(format!("{name}.json"))]
    }
}

/// The names of the nodes that the gateway has started.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(transparent)]
struct StartedNodes(BTreeSet<Box<str>>);

impl Document for StartedNodes {
    const KIND: Kind =
        Kind { name: "started-nodes", version: 1, rows_max: 1, copy: FollowerCopy::Replaces };

    fn merge(mut kept: StartedNodes, own: StartedNodes) -> StartedNodes {
        kept.0.extend(own.0);
        kept
    }

    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![Path::new("started-nodes").join(format!("{name}.json"))]
    }
}

/// Each kind has one row, with this key.
const ONE: &str = "";

/// Start, takeover and upgrade wait for the disk for this time; without documents they go on.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The operations in force, the nodes that the gateway has started, and the alerts that are being sent, as the next process reads
/// them.
#[derive(Debug)]
pub struct OperationLog {
    operations: Operations,
    kept: Documents<Operations>,
    alerts: Documents<AlertsRecord>,
    started_nodes: Documents<StartedNodes>,
    log_filter: LogFilterSender,
}

impl Default for OperationLog {
    fn default() -> OperationLog {
        OperationLog::of(&Store::default())
    }
}

impl OperationLog {
    /// The documents in this store.
    pub fn of(store: &Store) -> OperationLog {
        OperationLog {
            operations: Operations::default(),
            kept: store.documents(),
            alerts: store.documents(),
            started_nodes: store.documents(),
            log_filter: LogFilterSender::default(),
        }
    }

    /// Sends the log filter in force to this channel, also at a standby, where the owner's filter holds.
    pub fn telling(mut self, log_filter: LogFilterSender) -> OperationLog {
        self.log_filter = log_filter;
        self.tell_log_filter();
        self
    }

    fn tell_log_filter(&self) {
        let filter = self.operations.log_filter();
        self.log_filter
            .send_if_modified(|known| std::mem::replace(known, filter.clone()) != filter);
    }

    /// This process owns the documents from now on: returns true if they are read from the disk now.
    pub fn resume(&mut self) -> bool {
        let is_read = self.kept.store().begin(READ_WITHIN);
        self.read();
        is_read
    }

    /// Reads the operations of the process that this one follows, or those of a disk that answered late.
    pub(crate) fn read(&mut self) {
        self.kept.store().take_late();
        self.operations = self.kept.get(ONE).unwrap_or_default();
        self.tell_log_filter();
    }

    /// Forgets operations on nodes, zones and regions that are gone.
    pub(crate) fn retain(&mut self, is_known: impl FnMut(&Operation) -> bool) {
        self.operations.0.retain(is_known);
    }

    /// Keeps operations that were executed, and calls `done` once they are on the disk, or with the reason for which it cannot be
    /// written.
    pub(crate) fn keep(
        &mut self,
        operations: impl IntoIterator<Item = Operation>,
        done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static,
    ) {
        if self.kept.store().take_late() {
            self.read();
        }
        let add = match self.kept.store().expects_late() {
            true => Operations::add_unmerged,
            false => Operations::add,
        };
        operations.into_iter().for_each(|operation| add(&mut self.operations, operation));
        self.tell_log_filter();
        // Two operations on each of 1,024 nodes, 100 KB, take a millisecond.
        self.kept.put_and(Encoded::new(ONE, &self.operations), done);
    }

    /// Replaces the names of the nodes that this process, or the one that it continues, has started.
    pub(crate) fn keep_started_nodes(&mut self, nodes: BTreeSet<Box<str>>) {
        self.started_nodes.put(ONE, &StartedNodes(nodes));
    }

    /// Returns the names of the nodes that the gateway has started.
    pub(crate) fn started_nodes(&self) -> BTreeSet<Box<str>> {
        self.started_nodes.get(ONE).unwrap_or_default().0
    }

    /// Keeps the alerts that are being sent, and calls `done` as [`OperationLog::keep`] does.
    pub(crate) fn keep_alerts(
        &mut self,
        alerts: Encoded<AlertsRecord>,
        done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static,
    ) {
        self.alerts.put_and(alerts, done);
    }

    /// Returns the alerts that are being sent.
    pub(crate) fn alerts(&self) -> Option<Row<AlertsRecord>> {
        self.alerts.row(ONE)
    }
}

#[cfg(test)]
mod tests;
