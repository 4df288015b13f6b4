//! Changes by operators, saved files and rollouts.

use evenkeel_contract::operations::{Change, RequestChange};
use evenkeel_control::KeptChange;
use evenkeel_kept::{Documents, Store};
use serde_json::{Value, json};

/// Bytes of a change; a reload may name a thousand nodes. A longer one is kept without its details.
const CHANGE_BYTES_MAX: usize = 4_096;

/// The events that are changes.
const EVENTS: [&str; 3] = ["reload", "policy", "group"];

/// The newest changes of this gateway and of the owners of its group that it followed. They outlive the process.
pub(super) struct ChangeLog {
    kept: Documents<KeptChange>,
}

impl ChangeLog {
    pub(super) fn new(store: &Store) -> ChangeLog {
        ChangeLog { kept: store.documents() }
    }

    /// Keeps an event that is a change.
    pub(super) fn note_event(&self, name: &str, data: &str) {
        if !EVENTS.contains(&name) {
            return;
        }
        let Ok(mut change) = serde_json::from_str::<Value>(data) else { return };
        if data.len() > CHANGE_BYTES_MAX {
            change = json!({"at_us": change["at_us"], "by": change["by"]});
        }
        change["event"] = name.into();
        KeptChange::new(change).put(&self.kept);
    }

    /// Keeps a request that changed something.
    pub(super) fn note_request(&self, change: &RequestChange) {
        let change = serde_json::to_value(change).expect("words and numbers");
        KeptChange::new(change).put(&self.kept);
    }

    /// The changes since a Unix time, newest first.
    pub(super) fn since(&self, since_us: u64) -> Vec<Change> {
        let changes = KeptChange::since(&self.kept, since_us).into_iter();
        changes.filter_map(|change| serde_json::from_value(change).ok()).collect()
    }
}
