//! Policies: lists, pushes, rollouts and refused plugins.

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
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::policies::{
    Cohort, HiddenState, JudgedPart, Policy, PolicyDocument, PolicyList, PushQuery,
    QuarantinedRevision, Refusal, RefusalList, RegressionCount, RevokedRevision, RolloutAnswer,
    RolloutStatus, ShadowCounts, TimedRollout, VerbQuery,
};
use evenkeel_control::{ControlError, PushRequest};
use evenkeel_core::ArmStatistics;
use evenkeel_host::{BINARY_BYTES_MAX, DataDocument, DataDocuments};
use evenkeel_model::{Hook, PluginFault, PolicyName};
use evenkeel_policies::{PluginView, PolicyView, RefusalRecord};
use evenkeel_process::unix_us;
use evenkeel_revisions::{
    CandidateCalls, CandidateStatus, CohortSize, RolloutAction, RolloutOutcome, RolloutReport,
};
use tokio::task::spawn_blocking;

use super::answers::{self, milliseconds};
use super::context::{ApiContext, ApiState};
use super::error::{ApiError, no_policy, note_retry, refused};
use super::push::PushedParts;
use super::request::{PUSH_BYTES_MAX, PUSHED_WITHIN, policy_name, strict, unknown_verb, verb};

/// Characters of a fault that are shown: a trap may carry a kilobyte of text.
const FAULT_CHARS_MAX: usize = 200;

pub(super) async fn policies(State(shared): ApiState) -> Result<Json<PolicyList>, ApiError> {
    let all = shared.ask("", shared.handle.policies()).await?;
    Ok(Json(PolicyList { policies: all.into_iter().map(policy_status).collect() }))
}

pub(super) async fn refusals(State(shared): ApiState) -> Result<Json<RefusalList>, ApiError> {
    let all = shared.ask("", shared.handle.refusals()).await?;
    let refusals = all.into_iter().map(|it| Refusal {
        at_us: it.at_us,
        policy: it.policy.to_string(),
        origin: it.origin,
        code: it.code.into(),
        reason: it.reason,
    });
    Ok(Json(RefusalList { refusals: refusals.collect() }))
}

fn push_request(query: &PushQuery) -> Result<PushRequest, ApiError> {
    let canary = query.canary.as_deref().map(shares).transpose()?;
    let pace = query.pace.as_deref().map(read_duration).transpose();
    let pace = pace.map_err(|right| ApiError::field("pace", right))?;
    let PushQuery { shadow, now, force, replace, .. } = *query;
    if now && (canary.is_some() || pace.is_some() || shadow) {
        let message = "found `now` with `canary`, `pace` or `shadow`, expected either";
        return Err(ApiError::field("now", message));
    }
    let documents = DataDocuments::new();
    Ok(PushRequest { canary, pace, shadow, now, force, replace, documents })
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
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    let mut wish = push_request(&query)?;
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
            ErrorCode::BadRequest,
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
        return Err(ApiError::new(ErrorCode::Unconfirmed, message));
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
        ApiError::new(ErrorCode::NotFound, message)
    })?;
    let text = document.text().to_vec();
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

/// Records a plugin that was too large to read among the refusals of its policy.
async fn not_a_plugin(shared: &ApiContext, policy: PolicyName, error: ApiError) -> ApiError {
    if error.code != ErrorCode::TooLarge {
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
    query: Result<Query<VerbQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (hook, verb) = verb(&target)?;
    let Query(VerbQuery { force }) =
        query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
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
        other => {
            let right = "`rollback`, `promote`, `promote-all`, `pause`, `resume` or `abort`";
            return Err(unknown_verb(other, right));
        }
    };
    let rollout = shared.ask(&said, shared.handle.act_on_rollout(policy, action)).await?;
    rolled_out(&shared, rollout).await
}

async fn rolled_out(shared: &ApiContext, rollout: RolloutReport) -> Result<Response, ApiError> {
    if rollout.outcome == RolloutOutcome::Refused {
        let refused = Json(answers::rollout(rollout));
        return Ok((StatusCode::BAD_REQUEST, refused).into_response());
    }
    let confirmed = shared.confirm_policies().await;
    let status = confirmed.as_ref().map_or_else(ApiError::status, |()| StatusCode::OK);
    // An executed change has its outcome also if a restart or a takeover may forget it.
    let error = confirmed.as_ref().err().map(ApiError::facts);
    let answer = RolloutAnswer { rollout: answers::rollout(rollout), error };
    let mut response = (status, Json(answer)).into_response();
    let wait = confirmed.as_ref().err().and_then(|error| error.retry_after);
    wait.into_iter().for_each(|wait| note_retry(response.headers_mut(), wait));
    Ok(response)
}

fn policy_status(view: PolicyView) -> Policy {
    let PolicyView { status, candidate: plugin, cohorts, judged, active, .. } = view;
    let candidate = status.candidate.as_ref().map(|it| Arc::clone(&it.revision));
    let hook = view.policy.hook;
    let (differed, of) = view.hidden_state;
    let quarantined_revisions = status.quarantined.into_iter().map(|it| QuarantinedRevision {
        revision: it.revision,
        since_us: unix_us(it.since),
        reason: it.reason,
    });
    let revoked_revisions = status
        .revoked
        .into_iter()
        .map(|it| RevokedRevision { revision: it.revision, reason: it.reason });
    Policy {
        policy: view.policy.to_string(),
        plugin: active.title,
        revision: status.active.clone(),
        previous: status.previous,
        origin: active.origin,
        documents: documents(&active.documents),
        calls: status.calls,
        faults: status.faults,
        late: status.late,
        quarantined: view.quarantined,
        hidden_state: HiddenState { differed, of },
        failing: status.failing.map(|fault| fault.to_string()),
        last_fault: status.last_fault.as_ref().map(first_words),
        desired: candidate.or(status.active),
        rollback_window_ms: milliseconds(status.previous_for),
        preparing_ms: milliseconds(view.preparing),
        rollout: status.candidate.map(|it| {
            let judged = judged.map(|judged| judged_part(judged, hook));
            rollout_status(it, plugin, cohorts, judged)
        }),
        last_rollout: status.last.map(|last| TimedRollout {
            at_us: unix_us(last.at),
            rollout: answers::rollout(last.rollout),
        }),
        quarantined_revisions: quarantined_revisions.collect(),
        revoked_revisions: revoked_revisions.collect(),
    }
}

fn rollout_status(
    candidate: CandidateStatus,
    plugin: PluginView,
    cohorts: Vec<ArmStatistics>,
    judged: Option<JudgedPart>,
) -> RolloutStatus {
    let CandidateCalls { calls, faults, same, different, faulted, last_fault } = candidate.calls;
    let cohorts = cohorts.into_iter().map(|it| (it.arm.name().into(), cohort_figures(it)));
    RolloutStatus {
        revision: candidate.revision,
        plugin: plugin.title,
        origin: plugin.origin,
        documents: documents(&plugin.documents),
        stage: candidate.staged.stage.name().into(),
        percent: candidate.staged.stage.percent(),
        paused: candidate.staged.paused,
        next_percent: candidate.staged.next,
        next_in_ms: milliseconds(candidate.staged.next_in),
        lasted_ms: candidate.lasted.as_millis() as u64,
        judged,
        steps: candidate.steps,
        pace_ms: candidate.each.as_millis() as u64,
        calls,
        faults,
        last_fault: last_fault.as_ref().map(first_words),
        shadow: ShadowCounts { same, different, faulted },
        cohorts: cohorts.collect(),
    }
}

fn documents(documents: &DataDocuments) -> Option<Vec<PolicyDocument>> {
    let row = |(name, document): (&Arc<str>, &DataDocument)| PolicyDocument {
        name: Arc::clone(name),
        sha256: HEXLOWER.encode(document.digest()),
        bytes: document.text().len(),
    };
    (!documents.is_empty()).then(|| documents.iter().map(row).collect())
}

fn judged_part(CohortSize { judged, required }: CohortSize, hook: Hook) -> JudgedPart {
    let unit = if hook == Hook::Routing { "rooms" } else { "sessions" };
    JudgedPart { of: unit.into(), count: judged, required }
}

fn cohort_figures(cohort: ArmStatistics) -> Cohort {
    let centi = |value: u32| f64::from(value) / 100.0;
    let worse = cohort.worse.into_iter().map(|(figure, count)| {
        let count = RegressionCount { worse: count.worse, of: count.of };
        (figure.name().into(), count)
    });
    Cohort {
        sessions: cohort.sessions,
        rooms: cohort.rooms,
        loss_percent: cohort.loss_ppm.map(|ppm| f64::from(ppm) / 10_000.0),
        r_factor: cohort.r_factor_centi.map(centi),
        rung: centi(cohort.rung_centi),
        worse: worse.collect(),
    }
}

fn first_words(fault: &PluginFault) -> String {
    let words = fault.to_string();
    match words.char_indices().nth(FAULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
