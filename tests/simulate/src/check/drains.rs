//! What a drain left is told at its deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{Event, NodeId};

/// Control may stand still meanwhile.
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

    /// The node serves again, or is drained without a deadline.
    pub(crate) fn over(&mut self, node: NodeId) {
        self.due.remove(&node);
    }

    pub(super) fn hear(&mut self, event: &Event) {
        if let Event::Drained { node, .. } = event {
            self.due.remove(node);
        }
    }

    /// Nobody waits for the word in vain.
    pub(super) fn told_in_time(&self, now: Instant) -> Found {
        let late = self.due.iter().find(|(_, due)| now > **due + SLACK);
        late.map(|(node, due)| {
            ("drain", format!("{node} was to be drained {:?} ago, and nobody said so", now - *due))
        })
    }
}
