//! A change of a gateway, for its standby.

use serde::{Deserialize, Serialize};

/// A change by an operator, a file or a rollout, which travels with a batch of records. Control does not read it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Its Unix time in microseconds.
    pub at_us: u64,
    /// The change as JSON, as `GET /v1/changes` shows it.
    pub text: Box<str>,
}
