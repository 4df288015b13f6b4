//! Operators' operations on nodes, zones, regions, breakers and the log. Operations in force are kept in a file, and continue
//! after a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::Failback;
use evenkeel_model::{BreakerMode, ClientGroup, FailureScope};
use evenkeel_process::{file, lock};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Maximum size of the file, bytes: four operations of 256 bytes on each of 1,024 nodes, zones and regions, or breakers.
const BYTES_MAX: u64 = 1 << 20;

/// Maximum number of files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

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

/// The operations in force, in the file that the next process reads.
#[derive(Default, Debug)]
pub struct OperationLog {
    /// `None`: operations end with the process.
    path: Option<PathBuf>,
    operations: Operations,
    log_filter: LogFilterSender,
    /// The process that this one replaces may still write the file.
    is_unread: bool,
    changes: u64,
    /// The newest change in the file.
    written: Arc<Mutex<u64>>,
}

impl OperationLog {
    /// Reads this gateway's file in the folder. With `continues`, another process serves: the one that this one replaces
    /// writes the file until its end, or the owner of the group sends its operations.
    pub fn open(folder: Option<&Path>, socket: &Path, continues: bool) -> OperationLog {
        let Some(folder) = folder.map(|folder| folder.join("operations")) else {
            return OperationLog::default();
        };
        let path = folder.join(format!("{}.json", file::name_of(socket)));
        let mut log = OperationLog { path: Some(path), is_unread: true, ..OperationLog::default() };
        if !continues {
            log.resume();
        }
        log
    }

    /// Sends the log filter in force to this channel, also at a standby, where the owner's filter holds.
    pub fn telling(self, log_filter: LogFilterSender) -> OperationLog {
        let log = OperationLog { log_filter, ..self };
        log.tell_log_filter();
        log
    }

    fn tell_log_filter(&self) {
        let filter = self.operations.log_filter();
        self.log_filter
            .send_if_modified(|known| std::mem::replace(known, filter.clone()) != filter);
    }

    /// Reads the file, unless it was read: returns true if it is read now. An unreadable file is reported, and replaced at
    /// the next operation.
    pub(crate) fn resume(&mut self) -> bool {
        let Some(path) = self.path.as_ref().filter(|_| std::mem::take(&mut self.is_unread)) else {
            return false;
        };
        self.operations = read(path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "operators' decisions cannot be read; starting without");
            Operations::default()
        });
        self.tell_log_filter();
        true
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
        operations.into_iter().for_each(|operation| self.operations.add(operation));
        self.tell_log_filter();
        self.write(done);
    }

    /// Replaces the operations of this process by those of the one that it continues.
    pub(crate) fn replace(&mut self, operations: Operations) {
        self.is_unread = false;
        if self.operations != operations {
            self.operations = operations;
            self.tell_log_filter();
            self.write(|_| {});
        }
    }

    /// Returns the operations in force.
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    fn write(&mut self, done: impl FnOnce(Result<(), Arc<str>>) + Send + 'static) {
        self.changes += 1;
        let Some(path) = self.path.clone() else { return done(Ok(())) };
        let (operations, change) = (self.operations.clone(), self.changes);
        let written = Arc::clone(&self.written);
        let thread = std::thread::Builder::new().name("operations".into());
        let writing = thread.spawn(move || {
            let mut newest = lock(&written);
            // A later change may have been written before.
            let result = if *newest < change { write(&path, &operations) } else { Ok(()) };
            match &result {
                Ok(()) => *newest = change.max(*newest),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "operators' decisions end with the process");
                }
            }
            drop(newest);
            done(result.map_err(|error| error.to_string().into()));
        });
        if let Err(error) = writing {
            tracing::warn!(%error, "operators' decisions end with the process");
        }
    }
}

fn read(path: &Path) -> io::Result<Operations> {
    match file::read(path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Operations::default()),
        read => Ok(serde_json::from_slice(&read?)?),
    }
}

fn write(path: &Path, operations: &Operations) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, &serde_json::to_vec_pretty(operations)?)?;
    // The next change tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}

#[cfg(test)]
mod tests;
