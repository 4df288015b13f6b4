//! Policies: lists, pushes, rollouts and refused plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use evenkeel_config::read_duration;
use evenkeel_control::{
    ControlError, PluginView, PolicyView, PushRequest, RefusalRecord, RolloutAction,
    RolloutOutcome, RolloutReport,
};
use evenkeel_core::ArmStatistics;
use evenkeel_host::{BINARY_BYTES_MAX, DataDocument, DataDocuments};
use evenkeel_model::{Hook, PluginFault, PolicyName};
use evenkeel_process::unix_us;
use evenkeel_revisions::{CandidateCalls, CandidateStatus, CohortSize};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::context::{ApiContext, ApiState};
use super::error::{ApiError, ApiErrorCode, no_policy, note_retry, refused};
use super::events;
use super::object::{milliseconds, object};
use super::push::PushedParts;
use super::request::{PUSH_BYTES_MAX, PUSHED_WITHIN, policy_name, strict, unknown_verb, verb};

/// Characters of a fault that are shown: a trap may carry a kilobyte of text.
const FAULT_CHARS_MAX: usize = 200;

pub(super) async fn policies(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    let all = shared.ask("", shared.handle.policies()).await?;
    Ok(Json(object! { policies: all.into_iter().map(policy_status).collect::<Vec<_>>() }))
}

pub(super) async fn refusals(State(shared): ApiState) -> Result<Json<impl Serialize>, ApiError> {
    Ok(Json(object! { refusals: shared.ask("", shared.handle.refusals()).await? }))
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
    /// End the rollout of another revision.
    #[serde(default)]
    replace: bool,
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
        let PushQuery { shadow, now, force, replace, .. } = *self;
        let documents = DataDocuments::new();
        Ok(PushRequest { canary, pace, shadow, now, force, replace, documents })
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
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let policy = policy_name(&set, &hook)?;
    let Query(query) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    let mut wish = query.wish()?;
    let settings = query.settings.map(|text| strict(text.as_bytes())).transpose();
    let settings = settings.map_err(|error| ApiError::field("settings", error.message))?;
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/json");
    let bytes_max = if is_json { PUSH_BYTES_MAX } else { BINARY_BYTES_MAX };
    let (bytes, share) = match shared.uploads.read(body, bytes_max).await {
        Ok(read) => read,
        Err(error) => return Err(not_a_plugin(&shared, policy, error).await),
    };
    if bytes.is_empty() {
        return Err(ApiError::new(
            ApiErrorCode::BadRequest,
            "found no body, expected a plugin's bytes",
        ));
    }
    let (parts, share) = match is_json {
        // A body of 32 MiB takes a tenth of a second, for which the API must not wait.
        true => {
            let reading = spawn_blocking(move || (PushedParts::read(&bytes), share));
            let (parts, share) =
                reading.await.map_err(|_| refused(ControlError::Unavailable, "", &shared.names))?;
            (parts?, share)
        }
        false => (PushedParts { plugin: Some(bytes), ..PushedParts::default() }, share),
    };
    wish.documents = parts.documents;
    let (plugin, settings) = (parts.plugin, parts.settings.or(settings));
    let said = policy.to_string();
    let pushing = Arc::clone(&shared);
    // A separate task: the push goes on, and its bytes keep their share of the budget, even if the client does not wait.
    let rollout = tokio::spawn(async move {
        let _share = share;
        pushing.handle.push_policy(policy, plugin, settings, wish).await
    });
    let Ok(rollout) = tokio::time::timeout(PUSHED_WITHIN, rollout).await else {
        let message = format!(
            "the push is not complete after {} s, and continues: see `evenkeel policy status {said}`",
            PUSHED_WITHIN.as_secs()
        );
        return Err(ApiError::new(ApiErrorCode::Unconfirmed, message));
    };
    let rollout = rollout.unwrap_or(Err(ControlError::Unavailable));
    let rollout = rollout.map_err(|failed| refused(failed, &said, &shared.names))?;
    rolled_out(&shared, rollout).await
}

/// A data document of the active revision.
pub(super) async fn policy_document(
    State(shared): ApiState,
    Path((set, hook, name)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let policy = policy_name(&set, &hook)?;
    let all = shared.ask("", shared.handle.policies()).await?;
    let known = all.into_iter().find(|known| known.policy == policy);
    let active = known.ok_or_else(|| no_policy(&policy.to_string()))?.active;
    let document = active.documents.get(&*name).ok_or_else(|| {
        let message = format!("the active revision has no data document `{name}`");
        ApiError::new(ApiErrorCode::NotFound, message)
    })?;
    let text = document.text().to_vec();
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerbQuery {
    /// Of a rollback: to a quarantined revision as well.
    #[serde(default)]
    force: bool,
}

pub(super) async fn policy_verb(
    State(shared): ApiState,
    Path((set, target)): Path<(String, String)>,
    query: Result<Query<VerbQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (hook, verb) = verb(&target)?;
    let Query(VerbQuery { force }) =
        query.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
    if force && verb != "rollback" {
        let message = format!("found `force` with `{verb}`, expected it with `rollback`");
        return Err(ApiError::field("force", message));
    }
    let policy = policy_name(&set, hook)?;
    let said = policy.to_string();
    let action = match verb {
        "promote" => RolloutAction::Promote,
        "promote-all" => RolloutAction::PromoteAll,
        "pause" => RolloutAction::Pause,
        "resume" => RolloutAction::Resume,
        "abort" => RolloutAction::Abort,
        "rollback" => {
            let rolled_back =
                shared.ask(&said, shared.handle.rollback_policy(policy, force)).await?;
            return rolled_out(&shared, rolled_back).await;
        }
        "stop" => {
            shared.require_drills()?;
            shared.ask(&said, shared.handle.stop_policy(policy)).await?;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        other => {
            let right =
                "`rollback`, `promote`, `promote-all`, `pause`, `resume`, `abort` or `stop`";
            return Err(unknown_verb(other, right));
        }
    };
    let rollout = shared.ask(&said, shared.handle.act_on_rollout(policy, action)).await?;
    rolled_out(&shared, rollout).await
}

async fn rolled_out(shared: &ApiContext, rollout: RolloutReport) -> Result<Response, ApiError> {
    if rollout.outcome == RolloutOutcome::Refused {
        let refused = Json(events::rollout(rollout));
        return Ok((StatusCode::BAD_REQUEST, refused).into_response());
    }
    let confirmed = shared.confirm_policies().await;
    let status = confirmed.as_ref().map_or_else(ApiError::status, |()| StatusCode::OK);
    // An executed change has its outcome also if a restart or a takeover may forget it.
    let answer = object! {
        #[serde(flatten)]
        rollout: events::rollout(rollout),
        error?: confirmed.as_ref().err().map(ApiError::facts),
    };
    let mut response = (status, Json(answer)).into_response();
    let wait = confirmed.as_ref().err().and_then(|error| error.retry_after);
    wait.into_iter().for_each(|wait| note_retry(response.headers_mut(), wait));
    Ok(response)
}

fn policy_status(policy: PolicyView) -> impl Serialize {
    let PolicyView { status, candidate: plugin, cohorts, judged, .. } = policy;
    let candidate = status.candidate.as_ref().map(|it| Arc::clone(&it.revision));
    let hook = policy.policy.hook;
    let (differed, of) = policy.hidden_state;
    object! {
        policy: policy.policy.to_string(),
        plugin: policy.active.title,
        // Null while the native default decides because the revision failed.
        revision: status.active.clone(),
        // The target of a rollback.
        previous: status.previous,
        origin: policy.active.origin,
        // Data documents of the active revision, if it has any.
        documents?: documents(&policy.active.documents),
        calls: status.calls,
        faults: status.faults,
        // Questions without an answer in time; `on_fault` decided.
        late: status.late,
        // Sessions and rooms on which the revision faults; the gateway does not ask it about them.
        quarantined: policy.quarantined,
        // Mismatches with answers of a fresh instance.
        hidden_state: object! { differed: differed, of: of },
        // The fault of the last call; null if the policy answered.
        failing: status.failing.map(|fault| fault.to_string()),
        // The latest fault, even if later calls were answered.
        last_fault: status.last_fault.as_ref().map(first_words),
        // The revision that will be active once the rollout is complete.
        desired: candidate.or(status.active),
        // Remaining time in which a rollback to `previous` is possible.
        rollback_window_ms: milliseconds(status.previous_for),
        // Time since the latest push or changed file, until its outcome.
        preparing_ms: milliseconds(policy.preparing),
        rollout: status.candidate.map(|it| {
            let judged = judged.map(|judged| judged_part(judged, hook));
            candidate_status(it, plugin, cohorts, judged)
        }),
        last_rollout: status.last.map(|last| {
            object! {
                at_us: unix_us(last.at),
                #[serde(flatten)]
                rollout: events::rollout(last.rollout),
            }
        }),
        // Revisions that were rolled back, oldest first.
        quarantined_revisions: status.quarantined.into_iter().map(|it| {
            object! { revision: it.revision, since_us: unix_us(it.since), reason: it.reason }
        }).collect::<Vec<_>>(),
        // Revisions in use, or kept for a rollback, that were revoked since they were loaded.
        revoked_revisions: status.revoked.into_iter().map(|it| {
            object! { revision: it.revision, reason: it.reason }
        }).collect::<Vec<_>>(),
    }
}

/// A rollout in progress.
fn candidate_status(
    candidate: CandidateStatus,
    plugin: PluginView,
    cohorts: Vec<ArmStatistics>,
    judged: Option<impl Serialize>,
) -> impl Serialize {
    let CandidateCalls { calls, faults, same, different, faulted, last_fault } = candidate.calls;
    let cohorts = cohorts.into_iter().map(|it| (it.arm.name(), cohort_figures(it)));
    object! {
        revision: candidate.revision,
        plugin: plugin.title,
        origin: plugin.origin,
        documents?: documents(&plugin.documents),
        // `shadow` or `canary`.
        stage: candidate.staged.stage.name(),
        // Share of rooms or sessions.
        percent: candidate.staged.stage.percent(),
        paused: candidate.staged.paused,
        // The next share; at 100 the revision is active.
        next_percent: candidate.staged.next,
        // Minimum time until the next share; null if the rollout needs `promote`.
        next_in_ms: milliseconds(candidate.staged.next_in),
        // Time in this stage without pauses.
        lasted_ms: candidate.lasted.as_millis() as u64,
        // The part of the canary that was judged in this stage, and the number that the next share needs.
        judged?: judged,
        // Shares in per cent.
        steps: candidate.steps,
        pace_ms: candidate.each.as_millis() as u64,
        calls: calls,
        faults: faults,
        // The first 200 characters.
        last_fault: last_fault.as_ref().map(first_words),
        shadow: object! { same: same, different: different, faulted: faulted },
        // Figures of the canary and of the active revision.
        cohorts: cohorts.collect::<BTreeMap<_, _>>(),
    }
}

fn documents(documents: &DataDocuments) -> Option<Vec<impl Serialize + use<>>> {
    let row = |(name, document): (&Arc<str>, &DataDocument)| {
        object! {
            name: Arc::clone(name),
            sha256: HEXLOWER.encode(document.digest()),
            bytes: document.text().len(),
        }
    };
    (!documents.is_empty()).then(|| documents.iter().map(row).collect())
}

fn judged_part(CohortSize { judged, required }: CohortSize, hook: Hook) -> impl Serialize {
    let unit = if hook == Hook::Routing { "rooms" } else { "sessions" };
    object! { of: unit, count: judged, required: required }
}

fn cohort_figures(cohort: ArmStatistics) -> impl Serialize {
    let centi = |value: u32| f64::from(value) / 100.0;
    let worse = cohort
        .worse
        .into_iter()
        .map(|(figure, count)| (figure.name(), object! { worse: count.worse, of: count.of }));
    object! {
        sessions: cohort.sessions,
        rooms: cohort.rooms,
        // The mean; null if not measured.
        loss_percent: cohort.loss_ppm.map(|ppm| f64::from(ppm) / 10_000.0),
        r_factor: cohort.r_factor_centi.map(centi),
        rung: centi(cohort.rung_centi),
        // By figure: the number of recent regressions, and the number compared.
        worse: worse.collect::<BTreeMap<_, _>>(),
    }
}

fn first_words(fault: &PluginFault) -> String {
    let words = fault.to_string();
    match words.char_indices().nth(FAULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
