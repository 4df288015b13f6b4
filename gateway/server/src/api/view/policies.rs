//! JSON views of policies, rollouts and refused plugins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_core as core;
use serde::Serialize;

use crate::control;

/// Characters of a fault that are shown: a trap may carry a kilobyte of text.
const FAULT_CHARS_MAX: usize = 200;

#[derive(Serialize)]
pub(in crate::api) struct Policy {
    policy: String,
    plugin: Box<str>,
    /// Null: it failed, and the native default decides.
    revision: Option<Arc<str>>,
    /// The target of a rollback.
    previous: Option<Arc<str>>,
    origin: Box<str>,
    calls: u64,
    faults: u64,
    /// Sessions or rooms that the revision is not asked about.
    quarantined: u64,
    hidden_state: HiddenState,
    /// The fault of the last call; null: it was answered.
    failing: Option<String>,
    /// The latest fault, even if later calls were answered.
    last_fault: Option<String>,
    /// The revision that will be active once the rollout is complete.
    desired: Option<Arc<str>>,
    /// How long a rollback to `previous` is possible.
    rollback_window_ms: Option<u64>,
    rollout: Option<OnItsWay>,
    last_rollout: Option<Last>,
    /// Revisions that were rolled back, oldest first.
    quarantined_revisions: Vec<Quarantined>,
    /// Revisions in use, or kept for a rollback, that were revoked since they were loaded.
    revoked_revisions: Vec<Revoked>,
}

/// A rollout in progress.
#[derive(Serialize)]
struct OnItsWay {
    revision: Arc<str>,
    plugin: Box<str>,
    origin: Box<str>,
    /// `shadow` or `canary`.
    stage: &'static str,
    /// Share of rooms or sessions.
    percent: u8,
    paused: bool,
    /// The next share; at 100 the revision is active.
    next_percent: u8,
    /// Minimum time until then; null: it needs `promote`.
    next_in_ms: Option<u64>,
    /// Time in this stage without pauses.
    lasted_ms: u64,
    /// Shares in per cent.
    steps: Vec<u8>,
    pace_ms: u64,
    calls: u64,
    faults: u64,
    /// The first 200 characters.
    last_fault: Option<String>,
    shadow: Shadow,
    /// Figures of the canary and of the active revision.
    cohorts: BTreeMap<&'static str, Cohort>,
}

/// Answers in shadow.
#[derive(Serialize)]
struct Shadow {
    same: u64,
    different: u64,
    faulted: u64,
}

#[derive(Serialize)]
struct Cohort {
    sessions: u32,
    rooms: u32,
    /// A mean; null: not measured.
    loss_percent: Option<f64>,
    r_factor: Option<f64>,
    rung: f64,
    /// By figure: how many got worse lately, and of how many.
    worse: BTreeMap<&'static str, Worse>,
}

#[derive(Serialize)]
struct Worse {
    worse: u32,
    of: u32,
}

#[derive(Serialize)]
struct Last {
    at_us: u64,
    #[serde(flatten)]
    rollout: Rollout,
}

#[derive(Serialize)]
struct Quarantined {
    revision: Arc<str>,
    since_us: u64,
    reason: Box<str>,
}

fn milliseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_millis() as u64)
}

#[derive(Serialize)]
struct Revoked {
    revision: Arc<str>,
    reason: Box<str>,
}

/// Unix time in microseconds.
fn unix_us(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

impl OnItsWay {
    fn of(tried: control::Tried, walk: &control::WalkView, cohorts: Vec<core::Cohort>) -> OnItsWay {
        let control::Tried { revision, plugin, origin, .. } = tried;
        let control::Tried { calls, faults, same, different, faulted, last_fault, .. } = tried;
        OnItsWay {
            revision,
            plugin,
            origin,
            stage: walk.staged.stage.name(),
            percent: walk.staged.stage.percent(),
            paused: walk.staged.paused,
            next_percent: walk.staged.next,
            next_in_ms: milliseconds(walk.staged.next_in),
            lasted_ms: walk.lasted.as_millis() as u64,
            steps: walk.steps.clone(),
            pace_ms: walk.each.as_millis() as u64,
            calls,
            faults,
            last_fault: last_fault.as_ref().map(first_words),
            shadow: Shadow { same, different, faulted },
            cohorts: cohorts.into_iter().map(|it| (it.arm.name(), Cohort::from(it))).collect(),
        }
    }
}

impl From<core::Cohort> for Cohort {
    fn from(cohort: core::Cohort) -> Cohort {
        let centi = |value: u32| f64::from(value) / 100.0;
        let worse = |(figure, count): (core::Figure, core::Count)| {
            (figure.name(), Worse { worse: count.worse, of: count.of })
        };
        Cohort {
            sessions: cohort.sessions,
            rooms: cohort.rooms,
            loss_percent: cohort.loss_ppm.map(|ppm| f64::from(ppm) / 10_000.0),
            r_factor: cohort.r_factor_centi.map(centi),
            rung: centi(cohort.rung_centi),
            worse: cohort.worse.into_iter().map(worse).collect(),
        }
    }
}

/// How many answers of a fresh instance differed.
#[derive(Serialize)]
struct HiddenState {
    differed: u64,
    of: u64,
}

impl From<control::PolicyView> for Policy {
    fn from(policy: control::PolicyView) -> Policy {
        let control::PolicyLife { tried, walk, cohorts, previous_for, last, quarantined, revoked } =
            policy.life;
        let rollout = tried.zip(walk).map(|(tried, walk)| OnItsWay::of(tried, &walk, cohorts));
        let tried = rollout.as_ref().map(|rollout| Arc::clone(&rollout.revision));
        Policy {
            desired: tried.or_else(|| policy.revision.clone()),
            rollback_window_ms: milliseconds(previous_for),
            rollout,
            last_rollout: last
                .map(|last| Last { at_us: unix_us(last.at), rollout: last.rollout.into() }),
            quarantined_revisions: quarantined
                .into_iter()
                .map(|it| {
                    let control::Quarantined { revision, since, reason } = it;
                    Quarantined { revision, since_us: unix_us(since), reason }
                })
                .collect(),
            revoked_revisions: revoked
                .into_iter()
                .map(|control::Revoked { revision, reason }| Revoked { revision, reason })
                .collect(),
            policy: policy.policy.to_string(),
            plugin: policy.plugin,
            revision: policy.revision,
            previous: policy.previous,
            origin: policy.origin,
            calls: policy.calls,
            faults: policy.faults,
            quarantined: policy.quarantined,
            hidden_state: HiddenState {
                differed: policy.hidden_state.0,
                of: policy.hidden_state.1,
            },
            failing: policy.failing.map(|fault| fault.to_string()),
            last_fault: policy.last_fault.as_ref().map(first_words),
        }
    }
}

fn first_words(fault: &core::Fault) -> String {
    let words = fault.to_string();
    match words.char_indices().nth(FAULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// The outcome of a push, a step or a rollback.
#[derive(Clone, Serialize)]
pub(in crate::api) struct Rollout {
    pub(in crate::api) outcome: &'static str,
    pub(in crate::api) policy: String,
    pub(in crate::api) revision: Option<Arc<str>>,
    pub(in crate::api) previous: Option<Arc<str>>,
    /// Code of a refusal: `import`, `unsigned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) reason: Option<Box<str>>,
    pub(in crate::api) activate_us: u64,
    /// `file`, `signal`, `operator` or `gateway`.
    pub(in crate::api) by: &'static str,
    /// `shadow` or `canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) percent: Option<u8>,
    /// Until it is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) paused: Option<bool>,
    /// The next share; at 100 the revision is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) next_percent: Option<u8>,
    /// Minimum time until then; left out: it needs `promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) next_in_ms: Option<u64>,
}

#[derive(Serialize)]
pub(in crate::api) struct Refusal {
    at_us: u64,
    policy: String,
    origin: Box<str>,
    code: &'static str,
    reason: Box<str>,
}

impl From<control::Refusal> for Refusal {
    fn from(refusal: control::Refusal) -> Refusal {
        let control::Refusal { at, policy, origin, code, reason } = refusal;
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (at_us, policy) = (at.as_micros() as u64, policy.to_string());
        Refusal { at_us, policy, origin, code, reason }
    }
}

impl From<control::Rollout> for Rollout {
    fn from(rollout: control::Rollout) -> Rollout {
        Rollout {
            outcome: rollout.outcome.name(),
            policy: rollout.policy.to_string(),
            revision: rollout.revision,
            previous: rollout.previous,
            code: rollout.code,
            reason: rollout.reason,
            activate_us: rollout.activate.as_micros() as u64,
            by: rollout.by.name(),
            stage: rollout.stage.map(|staged| staged.stage.name()),
            percent: rollout.stage.map(|staged| staged.stage.percent()),
            paused: rollout.stage.map(|staged| staged.paused),
            next_percent: rollout.stage.map(|staged| staged.next),
            next_in_ms: milliseconds(rollout.stage.and_then(|staged| staged.next_in)),
        }
    }
}
