//! Failures of nodes and gateways, as the process that continues them reads them. Control does not read them.

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
