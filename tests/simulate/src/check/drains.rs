//! The result of a drain is reported at its deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, NodeId};

/// Tolerated delay of the report, since control may stall.
const SLACK: Duration = Duration::from_millis(500);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Drains {
    due: BTreeMap<NodeId, Instant>,
}

impl Drains {
    pub(crate) fn begun(&mut self, node: NodeId, due: Instant) {
        self.due.insert(node, due);
    }

    /// The node is undrained, or drained without a deadline.
    pub(crate) fn over(&mut self, node: NodeId) {
        self.due.remove(&node);
    }

    pub(super) fn hear(&mut self, event: &CoreEvent) {
        if let CoreEvent::Drained { node, .. } = event {
            self.due.remove(node);
        }
    }

    /// Each deadline is followed by a report.
    pub(super) fn check(&self, now: Instant) -> Found {
        let late = self.due.iter().find(|(_, due)| now > **due + SLACK);
        late.map(|(node, due)| {
            (
                "drain",
                format!("the drain of {node} was due {:?} ago and is not reported", now - *due),
            )
        })
    }
}
