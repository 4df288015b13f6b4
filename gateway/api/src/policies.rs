//! Policies: lists, pushes, rollouts and refused plugins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use evenkeel_config::read_duration;
use evenkeel_control::{
    ControlError, PushRequest, RefusalRecord, RolloutAction, RolloutOutcome, RolloutReport,
};
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_model::PolicyName;
use evenkeel_process::unix_us;
use serde::{Deserialize, Serialize};

use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode, no_policy, refused};
use super::request::{policy_name, strict, unknown_verb, verb};

#[derive(Serialize)]
pub(super) struct PoliciesView {
    policies: Vec<PolicyStatusView>,
}

pub(super) async fn policies(State(shared): ApiState) -> Result<Json<PoliciesView>, ApiError> {
    let all = shared.ask("", shared.handle.policies()).await?;
    Ok(Json(PoliciesView { policies: all.into_iter().map(PolicyStatusView::from).collect() }))
}

#[derive(Serialize)]
pub(super) struct RefusalsView {
    refusals: Vec<RefusalRecord>,
}

pub(super) async fn refusals(State(shared): ApiState) -> Result<Json<RefusalsView>, ApiError> {
    Ok(Json(RefusalsView { refusals: shared.ask("", shared.handle.refusals()).await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushQuery {
    settings: Option<String>,
    /// Shares of the canary: `1,5,25`.
    canary: Option<String>,
    /// Minimum duration of each step: `10s`.
    pace: Option<String>,
    #[serde(default)]
    shadow: bool,
    #[serde(default)]
    now: bool,
    #[serde(default)]
    force: bool,
}

impl PushQuery {
    fn wish(&self) -> Result<PushRequest, ApiError> {
        let canary = self.canary.as_deref().map(shares).transpose()?;
        let pace = self.pace.as_deref().map(read_duration).transpose();
        let pace = pace.map_err(|right| ApiError::field("pace", right))?;
        if self.now && (canary.is_some() || pace.is_some() || self.shadow) {
            let message = "found `now` with `canary`, `pace` or `shadow`, expected either";
            return Err(ApiError::field("now", message));
        }
        Ok(PushRequest { canary, pace, shadow: self.shadow, now: self.now, force: self.force })
    }
}

/// Increasing shares in per cent.
fn shares(text: &str) -> Result<Vec<u8>, ApiError> {
    let wrong = || {
        let message =
            format!("found `{text}`, expected growing shares in per cent such as `1,5,25`");
        ApiError::field("canary", message)
    };
    let shares: Option<Vec<u8>> = text.split(',').map(|share| share.trim().parse().ok()).collect();
    let shares = shares.ok_or_else(wrong)?;
    let fine = shares.is_sorted_by(|one, next| one < next)
        && shares.iter().all(|share| (1..=100).contains(share));
    if fine { Ok(shares) } else { Err(wrong()) }
}

pub(super) async fn push_policy(
    State(shared): ApiState,
    Path((set, hook)): Path<(String, String)>,
    query: Result<Query<PushQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let policy = policy_name(&set, &hook)?;
    let Query(query) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let wish = query.wish()?;
    let settings = query.settings.map(|text| strict(text.as_bytes())).transpose();
    let settings = settings.map_err(|error| ApiError::field("settings", error.message))?;
    let body = match shared.uploads.read(body, BINARY_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return Err(not_a_plugin(&shared, policy, error).await),
    };
    if body.is_empty() {
        return Err(ApiError::new(
            ApiErrorCode::BadRequest,
            "found no body, expected a plugin's bytes",
        ));
    }
    let said = policy.to_string();
    let pushing = Arc::clone(&shared);
    // A separate task: the bytes keep their share of the budget even if the client disconnects. No timeout here:
    // validation and compilation have separate limits.
    let rollout = tokio::spawn(async move {
        let (bytes, _share) = body.into_parts();
        pushing.handle.push_policy_as(policy, bytes, settings, wish).await
    });
    let rollout = rollout.await.unwrap_or(Err(ControlError::Unavailable));
    let rollout = rollout.map_err(|failed| refused(failed, &said, &shared.names))?;
    Ok(rolled_out(rollout))
}

/// Records a plugin that was too large to read among the refusals of its policy.
async fn not_a_plugin(shared: &ApiContext, policy: PolicyName, error: ApiError) -> ApiError {
    if error.code != ApiErrorCode::TooLarge {
        return error;
    }
    match shared.ask("", shared.handle.policies()).await {
        Ok(known) if known.iter().any(|known| known.policy == policy) => {
            let (code, reason) = (error.code.name(), error.message.clone().into());
            let refusal = RefusalRecord::now(policy, "pushed".into(), code, reason);
            shared.handle.note_refusal(refusal).await;
            error
        }
        Ok(_) => no_policy(&policy.to_string()),
        Err(unanswered) => unanswered,
    }
}

pub(super) async fn policy_verb(
    State(shared): ApiState,
    Path((set, target)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (hook, verb) = verb(&target)?;
    let policy = policy_name(&set, hook)?;
    let said = policy.to_string();
    match verb {
        "rollback" => {
            Ok(rolled_out(shared.ask(&said, shared.handle.rollback_policy(policy)).await?))
        }
        "promote" => walk(&shared, policy, RolloutAction::Promote).await,
        "promote-all" => walk(&shared, policy, RolloutAction::PromoteAll).await,
        "pause" => walk(&shared, policy, RolloutAction::Pause).await,
        "resume" => walk(&shared, policy, RolloutAction::Resume).await,
        "abort" => walk(&shared, policy, RolloutAction::Abort).await,
        "stop" => {
            shared.require_drills()?;
            shared.ask(&said, shared.handle.stop_policy(policy)).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        other => {
            let right =
                "`rollback`, `promote`, `promote-all`, `pause`, `resume`, `abort` or `stop`";
            Err(unknown_verb(other, right))
        }
    }
}

async fn walk(
    shared: &ApiContext,
    policy: PolicyName,
    verb: RolloutAction,
) -> Result<Response, ApiError> {
    let said = policy.to_string();
    Ok(rolled_out(shared.ask(&said, shared.handle.act_on_rollout(policy, verb)).await?))
}

fn rolled_out(rollout: RolloutReport) -> Response {
    let status = match rollout.outcome {
        RolloutOutcome::Activated
        | RolloutOutcome::Unchanged
        | RolloutOutcome::RolledBack
        | RolloutOutcome::Started
        | RolloutOutcome::Advanced
        | RolloutOutcome::Paused
        | RolloutOutcome::Resumed
        | RolloutOutcome::Revoked => StatusCode::OK,
        RolloutOutcome::Refused => StatusCode::BAD_REQUEST,
    };
    (status, Json(RolloutView::from(rollout))).into_response()
}

/// Characters of a fault that are shown: a trap may carry a kilobyte of text.
const FAULT_CHARS_MAX: usize = 200;

#[derive(Serialize)]
pub(super) struct PolicyStatusView {
    policy: String,
    plugin: Box<str>,
    /// Null while the native default decides because the revision failed.
    revision: Option<Arc<str>>,
    /// The target of a rollback.
    previous: Option<Arc<str>>,
    origin: Box<str>,
    calls: u64,
    faults: u64,
    /// Sessions and rooms on which the revision faults; the gateway does not ask it about them.
    quarantined: u64,
    hidden_state: HiddenState,
    /// The fault of the last call; null if the policy answered.
    failing: Option<String>,
    /// The latest fault, even if later calls were answered.
    last_fault: Option<String>,
    /// The revision that will be active once the rollout is complete.
    desired: Option<Arc<str>>,
    /// Remaining time in which a rollback to `previous` is possible.
    rollback_window_ms: Option<u64>,
    rollout: Option<CandidateView>,
    last_rollout: Option<LastRolloutView>,
    /// Revisions that were rolled back, oldest first.
    quarantined_revisions: Vec<QuarantinedView>,
    /// Revisions in use, or kept for a rollback, that were revoked since they were loaded.
    revoked_revisions: Vec<RevokedView>,
}

/// A rollout in progress.
#[derive(Serialize)]
struct CandidateView {
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
    /// Minimum time until the next share; null if the rollout needs `promote`.
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
    cohorts: BTreeMap<&'static str, CohortView>,
}

#[derive(Serialize)]
struct Shadow {
    same: u64,
    different: u64,
    faulted: u64,
}

#[derive(Serialize)]
struct CohortView {
    sessions: u32,
    rooms: u32,
    /// The mean; null if not measured.
    loss_percent: Option<f64>,
    r_factor: Option<f64>,
    rung: f64,
    /// By figure: the number of recent regressions, and the number compared.
    worse: BTreeMap<&'static str, WorseView>,
}

#[derive(Serialize)]
struct WorseView {
    worse: u32,
    of: u32,
}

#[derive(Serialize)]
struct LastRolloutView {
    at_us: u64,
    #[serde(flatten)]
    rollout: RolloutView,
}

#[derive(Serialize)]
struct QuarantinedView {
    revision: Arc<str>,
    since_us: u64,
    reason: Box<str>,
}

fn milliseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_millis() as u64)
}

#[derive(Serialize)]
struct RevokedView {
    revision: Arc<str>,
    reason: Box<str>,
}

impl CandidateView {
    fn of(
        candidate: evenkeel_revisions::CandidateStatus,
        plugin: evenkeel_control::PluginView,
        cohorts: Vec<evenkeel_core::ArmStatistics>,
    ) -> CandidateView {
        let evenkeel_revisions::CandidateCalls {
            calls,
            faults,
            same,
            different,
            faulted,
            last_fault,
        } = candidate.calls;
        CandidateView {
            revision: candidate.revision,
            plugin: plugin.title,
            origin: plugin.origin,
            stage: candidate.staged.stage.name(),
            percent: candidate.staged.stage.percent(),
            paused: candidate.staged.paused,
            next_percent: candidate.staged.next,
            next_in_ms: milliseconds(candidate.staged.next_in),
            lasted_ms: candidate.lasted.as_millis() as u64,
            steps: candidate.steps,
            pace_ms: candidate.each.as_millis() as u64,
            calls,
            faults,
            last_fault: last_fault.as_ref().map(first_words),
            shadow: Shadow { same, different, faulted },
            cohorts: cohorts.into_iter().map(|it| (it.arm.name(), CohortView::from(it))).collect(),
        }
    }
}

impl From<evenkeel_core::ArmStatistics> for CohortView {
    fn from(cohort: evenkeel_core::ArmStatistics) -> CohortView {
        let centi = |value: u32| f64::from(value) / 100.0;
        let worse = |(figure, count): (evenkeel_model::Figure, evenkeel_model::BreachCount)| {
            (figure.name(), WorseView { worse: count.worse, of: count.of })
        };
        CohortView {
            sessions: cohort.sessions,
            rooms: cohort.rooms,
            loss_percent: cohort.loss_ppm.map(|ppm| f64::from(ppm) / 10_000.0),
            r_factor: cohort.r_factor_centi.map(centi),
            rung: centi(cohort.rung_centi),
            worse: cohort.worse.into_iter().map(worse).collect(),
        }
    }
}

/// Mismatches with answers of a fresh instance.
#[derive(Serialize)]
struct HiddenState {
    differed: u64,
    of: u64,
}

impl From<evenkeel_control::PolicyView> for PolicyStatusView {
    fn from(policy: evenkeel_control::PolicyView) -> PolicyStatusView {
        let evenkeel_control::PolicyView { status, candidate: plugin, cohorts, .. } = policy;
        let candidate = status.candidate.as_ref().map(|it| Arc::clone(&it.revision));
        let (differed, of) = policy.hidden_state;
        PolicyStatusView {
            policy: policy.policy.to_string(),
            plugin: policy.active.title,
            desired: candidate.or_else(|| status.active.clone()),
            revision: status.active,
            previous: status.previous,
            origin: policy.active.origin,
            calls: status.calls,
            faults: status.faults,
            quarantined: policy.quarantined,
            hidden_state: HiddenState { differed, of },
            failing: status.failing.map(|fault| fault.to_string()),
            last_fault: status.last_fault.as_ref().map(first_words),
            rollback_window_ms: milliseconds(status.previous_for),
            rollout: status.candidate.map(|it| CandidateView::of(it, plugin, cohorts)),
            last_rollout: status.last.map(|last| LastRolloutView {
                at_us: unix_us(last.at),
                rollout: last.rollout.into(),
            }),
            quarantined_revisions: status
                .quarantined
                .into_iter()
                .map(|evenkeel_revisions::QuarantinedRevision { revision, since, reason }| {
                    QuarantinedView { revision, since_us: unix_us(since), reason }
                })
                .collect(),
            revoked_revisions: status
                .revoked
                .into_iter()
                .map(|evenkeel_revisions::RevokedRevision { revision, reason }| RevokedView {
                    revision,
                    reason,
                })
                .collect(),
        }
    }
}

fn first_words(fault: &evenkeel_model::PluginFault) -> String {
    let words = fault.to_string();
    match words.char_indices().nth(FAULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// The outcome of a push, a step or a rollback.
#[derive(Clone, Serialize)]
pub(super) struct RolloutView {
    outcome: &'static str,
    policy: String,
    revision: Option<Arc<str>>,
    previous: Option<Arc<str>>,
    /// Code of a refusal: `import`, `unsigned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Box<str>>,
    activate_us: u64,
    /// `file`, `signal`, `operator` or `gateway`.
    by: &'static str,
    /// `shadow` or `canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    /// The next share; at 100 the revision is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_percent: Option<u8>,
    /// Minimum time until the next share; omitted if the rollout needs `promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_in_ms: Option<u64>,
}

impl From<RolloutReport> for RolloutView {
    fn from(rollout: RolloutReport) -> RolloutView {
        RolloutView {
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
