//! Policies: lists, pushes, rollouts and refused plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Word;
use crate::errors::ErrorFacts;

/// The answer to `GET /v1/policies`. A client that passes rows on reads them as JSON, with the members of later versions.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
#[cfg_attr(feature = "openapi", schemars(rename = "PolicyList", bound = "P: Default + JsonSchema"))]
pub struct PolicyList<P = Policy> {
    /// All policies.
    pub policies: Vec<P>,
}

/// A policy.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Policy {
    /// `call/routing`.
    pub policy: String,
    /// The title of the active plugin.
    pub plugin: Box<str>,
    /// Null while the native default decides because the revision failed.
    pub revision: Option<Arc<str>>,
    /// The target of a rollback.
    pub previous: Option<Arc<str>>,
    /// The place where the active plugin came from.
    pub origin: Box<str>,
    /// Data documents of the active revision, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<Vec<PolicyDocument>>,
    /// Calls of the active revision.
    pub calls: u64,
    /// Calls that faulted.
    pub faults: u64,
    /// Questions without an answer in time; `on_fault` decided.
    pub late: u64,
    /// Sessions and rooms on which the revision faults; the gateway does not ask it about them.
    pub quarantined: u64,
    /// Mismatches with answers of a fresh instance.
    pub hidden_state: HiddenState,
    /// The fault of the last call; null if the policy answered.
    pub failing: Option<String>,
    /// The latest fault, its first 200 characters, even if later calls were answered.
    pub last_fault: Option<String>,
    /// The revision that will be active once the rollout is complete.
    pub desired: Option<Arc<str>>,
    /// Remaining time in which a rollback to `previous` is possible.
    pub rollback_window_ms: Option<u64>,
    /// Time since the latest push or changed file, until its outcome.
    pub preparing_ms: Option<u64>,
    /// The rollout in progress.
    pub rollout: Option<RolloutStatus>,
    /// The latest outcome.
    pub last_rollout: Option<TimedRollout>,
    /// Revisions that were rolled back, oldest first.
    pub quarantined_revisions: Vec<QuarantinedRevision>,
    /// Revisions in use, or kept for a rollback, that were revoked since they were loaded.
    pub revoked_revisions: Vec<RevokedRevision>,
}

/// A data document of a revision.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PolicyDocument {
    /// Its name.
    pub name: Arc<str>,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// The length of its text.
    pub bytes: usize,
}

/// Answers that were compared with those of a fresh instance.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct HiddenState {
    /// Answers that differed.
    pub differed: u64,
    /// All of them.
    pub of: u64,
}

/// A rollout in progress.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RolloutStatus {
    /// The revision.
    pub revision: Arc<str>,
    /// The title of its plugin.
    pub plugin: Box<str>,
    /// The place where the plugin came from.
    pub origin: Box<str>,
    /// Its data documents, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<Vec<PolicyDocument>>,
    /// `shadow` or `canary`.
    pub stage: Word,
    /// Share of rooms or sessions.
    pub percent: u8,
    /// It stays at its step.
    pub paused: bool,
    /// The next share; at 100 the revision is active.
    pub next_percent: u8,
    /// Minimum time until the next share; null if the rollout needs `promote`.
    pub next_in_ms: Option<u64>,
    /// Time in this stage without pauses.
    pub lasted_ms: u64,
    /// The part of the canary that was judged in this stage, and the number that the next share needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<JudgedPart>,
    /// Shares in per cent.
    pub steps: Vec<u8>,
    /// Minimum time of each.
    pub pace_ms: u64,
    /// Calls of the canary.
    pub calls: u64,
    /// Calls that faulted.
    pub faults: u64,
    /// The first 200 characters.
    pub last_fault: Option<String>,
    /// Answers in shadow, compared with those of the active revision.
    pub shadow: ShadowCounts,
    /// Figures of `canary` and of the `active` revision.
    pub cohorts: BTreeMap<Word, Cohort>,
}

/// The part of a canary that was judged.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct JudgedPart {
    /// `rooms` or `sessions`.
    pub of: Word,
    /// Rooms or sessions that were judged.
    pub count: u32,
    /// The number that the next share needs.
    pub required: u32,
}

/// Answers in shadow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ShadowCounts {
    /// Answers of the active revision.
    pub same: u64,
    /// Other answers.
    pub different: u64,
    /// No answer.
    pub faulted: u64,
}

/// Figures of the sessions of a revision.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Cohort {
    /// Its sessions.
    pub sessions: u32,
    /// Its rooms.
    pub rooms: u32,
    /// The mean; null if not measured.
    pub loss_percent: Option<f64>,
    /// The mean; null if not measured.
    pub r_factor: Option<f64>,
    /// The mean.
    pub rung: f64,
    /// Recent regressions by figure: `gap`, `loss`, `r-factor`…
    pub worse: BTreeMap<Word, RegressionCount>,
}

/// Recent regressions of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RegressionCount {
    /// Comparisons with a worse figure.
    pub worse: u32,
    /// All comparisons.
    pub of: u32,
}

/// The outcome of a push, a step or a rollback.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Rollout {
    /// `activated`, `unchanged`, `refused`, `rolled-back`, `started`, `advanced`, `paused`, `resumed` or `revoked`.
    pub outcome: Word,
    /// `call/routing`.
    pub policy: String,
    /// The active revision; during a rollout the candidate; after a refusal the refused revision, if its name is known.
    pub revision: Option<Arc<str>>,
    /// The previous active revision or candidate; during a rollout the active revision.
    pub previous: Option<Arc<str>>,
    /// Code of a refusal: `import`, `unsigned`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Word>,
    /// One sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Time from the decision until the revision could answer.
    pub activate_us: u64,
    /// `file`, `signal`, `operator` or `gateway`.
    pub by: Word,
    /// Of a rollout in progress.
    #[serde(flatten)]
    pub stage: Option<RolloutStage>,
}

/// The step of a rollout in progress.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
pub struct RolloutStage {
    /// `shadow` or `canary`.
    pub stage: Word,
    /// Share of rooms or sessions.
    #[serde(default)]
    pub percent: u8,
    /// It stays at its step.
    #[serde(default)]
    pub paused: bool,
    /// The next share; at 100 the revision is active.
    #[serde(default)]
    pub next_percent: u8,
    /// Minimum time until the next share; left out if the rollout needs `promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_in_ms: Option<u64>,
}

/// An outcome with its time: in `last_rollout` of a policy, and the event `policy`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct TimedRollout {
    /// The time of the outcome.
    pub at_us: u64,
    /// The outcome.
    #[serde(flatten)]
    pub rollout: Rollout,
}

/// The answer to `PUT /v1/policies/SET/HOOK`, and to the verbs of a policy.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RolloutAnswer {
    /// The outcome; `refused` with status 400.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// Executed, and a restart or a takeover may forget it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorFacts>,
}

/// A revision that was rolled back.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct QuarantinedRevision {
    /// The revision.
    pub revision: Arc<str>,
    /// The time of the rollback.
    pub since_us: u64,
    /// The reason of the rollback.
    pub reason: Box<str>,
}

/// A revision that was revoked.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RevokedRevision {
    /// The revision.
    pub revision: Arc<str>,
    /// The reason of the revocation.
    pub reason: Box<str>,
}

/// The query of `PUT /v1/policies/SET/HOOK`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PushQuery {
    /// JSON. Default: the active settings, or the plugin's own if another plugin is active.
    pub settings: Option<String>,
    /// Shares of the canary in per cent: `1,5,25`. Default: those of the set's `[rollout]`.
    pub canary: Option<String>,
    /// Minimum duration of each step: `10s`. Default: that of the set's `[rollout]`.
    pub pace: Option<String>,
    /// Only compares the answers, until it is promoted. Default false.
    pub shadow: bool,
    /// Activates at once in spite of the set's `[rollout]`. Default false.
    pub now: bool,
    /// Accepts a quarantined or older revision. Default false.
    pub force: bool,
    /// Ends the rollout of another revision. Default false.
    pub replace: bool,
}

/// The body of `PUT /v1/policies/SET/HOOK` with the type `application/json`. With another type it is the plugin's bytes.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct PushRequest {
    /// In Base64. Default: the plugin of the active revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// As of [`PushQuery`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// Data documents by name. Others of the active revision stay.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub documents: BTreeMap<String, Value>,
}

/// The query of a verb of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct VerbQuery {
    /// Of a rollback: to a quarantined revision as well. Default false.
    pub force: bool,
}

/// The answer to `GET /v1/policies/refusals`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct RefusalList {
    /// The last 128 plugins that were refused, the oldest first.
    pub refusals: Vec<Refusal>,
}

/// A plugin that was refused.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Refusal {
    /// The time of the refusal.
    pub at_us: u64,
    /// The policy that the plugin was for: `call/routing`.
    pub policy: String,
    /// `pushed`, or the path of a file.
    pub origin: Box<str>,
    /// The stable code of the reason.
    pub code: Word,
    /// One sentence with the next step.
    pub reason: Box<str>,
}

/// The query of `GET /v1/recording`: either `seconds` or `last`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RecordingQuery {
    /// Records this long from now on, 1 to 600.
    pub seconds: Option<u64>,
    /// Returns the calls that the recorder has kept. Default false.
    pub last: bool,
    /// Keeps addresses of clients. Default false.
    pub addresses: bool,
    /// Only calls of this policy: `call/routing`. Default: all.
    pub policy: Option<String>,
}
