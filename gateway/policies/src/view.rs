//! Policies with their plugins and measurements, as control reports them.

use evenkeel_core::ArmStatistics;
use evenkeel_model::PolicyName;
use evenkeel_revisions::PolicyStatus;

/// A policy, its plugins and their measurements.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyView {
    /// The policy: `call/routing`.
    pub policy: PolicyName,
    /// Revisions, rollout, faults.
    pub status: PolicyStatus,
    /// The plugin of the active revision. Empty while the native default decides because the plugin failed.
    pub active: PluginView,
    /// The plugin of the candidate; empty without a candidate.
    pub candidate: PluginView,
    /// Measurements of both cohorts, the active revision's first. Empty outside the canary stage.
    pub cohorts: Vec<ArmStatistics>,
    /// Sessions and rooms on which the active revision faults; the gateway does not ask it about them.
    pub quarantined: u64,
    /// Answers that differed from those of a fresh instance, and compared answers.
    pub hidden_state: (u64, u64),
}

/// The plugin of a revision.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PluginView {
    /// Name and version.
    pub title: Box<str>,
    /// `embedded`, the path of a file, or `pushed`.
    pub origin: Box<str>,
}
