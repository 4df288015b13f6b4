//! The record of a policy's revisions: all that another process needs to continue their lives, as plain data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calls::CallRecord;
use crate::judge::{JudgeRecord, RuleBreaches};
use crate::report::Remembered;
use crate::revision::Revisions;

/// The lives of one policy's revisions.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct LifecycleRecord {
    /// The active, candidate and previous revisions, with the progress of the rollout.
    pub revisions: Revisions,
    /// Quarantine and version floor.
    pub remembered: Remembered,
    pub(crate) stuck: Option<Stuck>,
    pub(crate) calls: CallRecord,
    /// The evidence about a canary, of the owner of its judge.
    pub judge: Option<JudgeRecord>,
    /// The decisions that broke a rule, of the owner of their counts.
    pub breaches: Option<RuleBreaches>,
    /// The routes without a standby, of the owner of their counts.
    #[serde(default)]
    pub unprotected: Option<RuleBreaches>,
}

/// An active revision that did harm and stays, since the previous one is revoked.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Stuck {
    pub(crate) revision: Arc<str>,
    pub(crate) reason: Box<str>,
}
