//! The rows of failures of nodes and gateways in the store. The API writes and reads them.

use evenkeel_contract::operations::Failure;
use evenkeel_kept::{Document, Documents, FollowerCopy, Kind};
use serde::{Deserialize, Serialize};

/// Failures that are kept: a node that flaps adds one every few seconds.
const FAILURES_MAX: usize = 1_024;

/// A failure, as `GET /v1/failures` shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct KeptFailure(Failure);

impl KeptFailure {
    pub fn new(failure: Failure) -> KeptFailure {
        KeptFailure(failure)
    }

    /// Keeps the failure. One of the same time and cause is replaced.
    pub fn put(&self, kept: &Documents<KeptFailure>) {
        kept.put(&format!("{}-{}", self.0.at_us, self.0.cause), self);
    }

    /// All failures that are kept, in no order: those of the group's owner may come after later ones.
    pub fn all(kept: &Documents<KeptFailure>) -> Vec<Failure> {
        kept.rows().iter().filter_map(|row| Some(row.decode().ok()?.0)).collect()
    }
}

impl Document for KeptFailure {
    const KIND: Kind =
        Kind { name: "failures", version: 1, rows_max: FAILURES_MAX, copy: FollowerCopy::Adds };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evenkeel_kept::{Follower, Store};

    use super::*;
    use crate::Handle;

    #[test]
    fn part_before_the_api_begins_is_kept() {
        let owner = Store::default();
        let failure = Failure { at_us: 7, cause: "takeover".into(), ..Failure::default() };
        KeptFailure::new(failure.clone()).put(&owner.documents());
        let part = owner.next_part(&mut Follower::default(), usize::MAX).unwrap();
        let (handle, _requests) = Handle::new(Arc::default(), Arc::default());
        handle.kept.add_part(part);
        assert_eq!(KeptFailure::all(&handle.kept.documents()), [failure]);
    }
}
