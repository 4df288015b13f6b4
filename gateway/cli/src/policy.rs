//! `evenkeel policy`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use evenkeel_client::{ApiClient, ClientError, escape};
use evenkeel_contract::policies::{
    Cohort, Policy, PolicyDocument, PolicyList, PushRequest, Rollout, RolloutAnswer, RolloutStage,
    RolloutStatus, ShadowCounts,
};
use evenkeel_host::{DataDocument, DataDocuments};
use serde_json::{Value, json};

use crate::command::{
    ApiArgs, CommandError, UNCONFIRMED, documents_of, list, named_file, read_file, say,
    settings_of, typed,
};
use crate::recording;
use crate::session::{age, period};
use crate::status::failing;

/// List, push, roll out and roll back policies of a running gateway.
#[derive(Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON as in the API
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// List policies with revision, calls and faults
    List,
    /// Replace a policy's plugin, its settings or its data documents: at once, or by the steps of these options or of its
    /// set's `[rollout]`
    Push {
        #[command(flatten)]
        revision: RevisionArgs,
        #[command(flatten)]
        steps: StepArgs,
    },
    /// Push a plugin in shadow: it gets every call, and its answers are only compared until it is promoted
    Shadow(RevisionArgs),
    /// Show the active revision, the running rollout and its figures, and the last outcome
    Status {
        /// The policy as `<set>/<hook>`, or the hook alone if only one set binds it; default: all
        policy: Option<String>,
        /// Print this data document of the active revision instead
        #[arg(long, value_name = "NAME", requires = "policy")]
        data: Option<String>,
    },
    /// Advance the running rollout to its next step now
    Promote {
        #[command(flatten)]
        of: PolicyNameArgs,
        /// Activate the revision without further steps
        #[arg(long)]
        all: bool,
    },
    /// Pause the running rollout at its step
    Pause(PolicyNameArgs),
    /// Resume a paused rollout
    Resume(PolicyNameArgs),
    /// Cancel the running rollout; the active revision stays
    Abort(PolicyNameArgs),
    Record(recording::RecordArgs),
    Replay(recording::ReplayArgs),
    Diff(recording::DiffArgs),
    /// Cancel the running rollout or, without one, reactivate the previous revision
    Rollback {
        #[command(flatten)]
        of: PolicyNameArgs,
        /// Reactivate the previous revision even if it is quarantined
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
struct PolicyNameArgs {
    /// The policy as `<set>/<hook>`, or the hook alone if only one set binds it
    policy: String,
}

#[derive(Args)]
struct RevisionArgs {
    #[command(flatten)]
    of: PolicyNameArgs,
    /// The plugin: a WebAssembly module or component; default: that of the active revision, with other settings or data
    #[arg(required_unless_present_any = ["settings", "data"])]
    plugin: Option<PathBuf>,
    /// File with settings, JSON or TOML; default: the active settings, or the plugin's own if another plugin is active
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    /// Data document in a file of JSON or TOML; may be repeated; documents that are not named stay
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    data: Vec<(String, PathBuf)>,
    /// End the running rollout of another revision
    #[arg(long)]
    replace: bool,
}

#[derive(Args, Default)]
struct StepArgs {
    /// Canary steps, per cent of rooms or sessions: `5` or `1,5,25`; 100 % follows automatically unless the canary regresses
    /// or `policy pause` holds it
    #[arg(long, value_name = "PERCENT,…")]
    canary: Option<String>,
    /// Minimum duration of each step; default: that of the set's `[rollout]`, or 10s
    #[arg(long, value_name = "DURATION")]
    pace: Option<String>,
    /// Activate at once in spite of the set's `[rollout]`
    #[arg(long, conflicts_with_all = ["canary", "pace"])]
    now: bool,
    /// Accept a quarantined or older revision
    #[arg(long)]
    force: bool,
    #[arg(skip)]
    shadow: bool,
}

impl StepArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        let said = |is: bool| is.then(|| "true".to_owned());
        let words = [
            ("canary", self.canary.clone()),
            ("pace", self.pace.clone()),
            ("now", said(self.now)),
            ("force", said(self.force)),
            ("shadow", said(self.shadow)),
        ];
        words.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl PolicyArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        match &self.verb {
            PolicyCommand::List => {
                let rows = |list: PolicyList| list.policies;
                list(self.json, &self.api.read("/v1/policies")?, rows, line)
            }
            PolicyCommand::Push { revision, steps } => self.push(revision, steps),
            PolicyCommand::Record(record) => record.run(&self.api, self.json),
            PolicyCommand::Replay(replay) => replay.run(self.json),
            PolicyCommand::Diff(diff) => diff.run(self.json),
            PolicyCommand::Shadow(revision) => {
                self.push(revision, &StepArgs { shadow: true, ..StepArgs::default() })
            }
            PolicyCommand::Status { policy: Some(policy), data: Some(data) } => {
                self.document(policy, data)
            }
            PolicyCommand::Status { policy, .. } => self.status(policy.as_deref()),
            PolicyCommand::Promote { of, all } => {
                self.tell(of, if *all { "promote-all" } else { "promote" })
            }
            PolicyCommand::Pause(of) => self.tell(of, "pause"),
            PolicyCommand::Resume(of) => self.tell(of, "resume"),
            PolicyCommand::Abort(of) => self.tell(of, "abort"),
            PolicyCommand::Rollback { of, force } => {
                self.tell(of, if *force { "rollback?force=true" } else { "rollback" })
            }
        }
    }

    fn push(&self, revision: &RevisionArgs, steps: &StepArgs) -> Result<(), CommandError> {
        let parts = RevisionParts {
            plugin: revision.plugin.as_deref().map(read_file).transpose()?,
            settings: revision.settings.as_deref().map(settings_of).transpose()?,
            documents: documents_of(&revision.data)?,
        };
        let mut query = steps.query();
        query.extend(revision.replace.then(|| ("replace", "true".to_owned())));
        let (set, hook) = self.name(&revision.of.policy)?;
        let rollout = parts.push(&self.api, &set, &hook, query)?;
        print_rollout(&rollout, self.json)
    }

    fn document(&self, policy: &str, name: &str) -> Result<(), CommandError> {
        let (set, hook) = self.name(policy)?;
        let document =
            self.api.read(&format!("/v1/policies/{set}/{hook}/data/{}", escape(name)))?;
        say(&document);
        Ok(())
    }

    fn tell(&self, of: &PolicyNameArgs, verb: &str) -> Result<(), CommandError> {
        let (set, hook) = self.name(&of.policy)?;
        let path = format!("/v1/policies/{set}/{hook}:{verb}");
        let rollout = self.api.post(&path, &())?;
        print_rollout(&rollout, self.json)
    }

    fn status(&self, policy: Option<&str>) -> Result<(), CommandError> {
        let wanted = policy.map(|policy| self.name(policy)).transpose()?;
        let wanted = wanted.map(|(set, hook)| format!("{set}/{hook}"));
        let PolicyList { policies: rows } = self.api.get::<PolicyList<Value>>("/v1/policies")?;
        let policies = rows.iter().map(typed::<Policy>).collect::<Result<Vec<_>, _>>()?;
        let is_wanted = |policy: &Policy| wanted.as_ref().is_none_or(|name| policy.policy == *name);
        if let Some(wanted) = wanted.as_ref().filter(|_| !policies.iter().any(is_wanted)) {
            let words = format!("unknown policy {wanted}; see `evenkeel policy list`");
            return Err(CommandError::Wrong(words));
        }
        if self.json {
            // With the members that this version does not know.
            let rows = rows.into_iter().zip(&policies).filter(|(_, policy)| is_wanted(policy));
            say(&json!(PolicyList { policies: rows.map(|(row, _)| row).collect() }));
        } else {
            policies.iter().filter(|policy| is_wanted(policy)).for_each(show);
        }
        Ok(())
    }

    fn name(&self, policy: &str) -> Result<(String, String), CommandError> {
        let names = self.api.operate(async |admin| named(admin, policy).await)?;
        split(policy, &names)
    }
}

/// The parts of a revision that are pushed. The others are those of the active revision.
pub(crate) struct RevisionParts {
    pub(crate) plugin: Option<Vec<u8>>,
    pub(crate) settings: Option<Value>,
    pub(crate) documents: DataDocuments,
}

impl RevisionParts {
    /// Pushes them with these options, and returns the rollout.
    pub(crate) fn push(
        &self,
        api: &ApiArgs,
        set: &str,
        hook: &str,
        mut query: Vec<(&'static str, String)>,
    ) -> Result<Value, CommandError> {
        let bare = self.plugin.as_deref().filter(|_| self.documents.is_empty());
        if bare.is_some() {
            query.extend(self.settings.iter().map(|settings| ("settings", settings.to_string())));
        }
        let mut target = hook.to_owned();
        for (at, (key, value)) in query.iter().enumerate() {
            let before = if at == 0 { '?' } else { '&' };
            target += &format!("{before}{key}={}", escape(value));
        }
        api.operate(async |admin| match bare {
            Some(plugin) => admin.push(set, &target, plugin).await,
            None => admin.push_parts(set, &target, &self.request()).await,
        })
    }

    fn request(&self) -> PushRequest {
        let document = |(name, document): (&Arc<str>, &DataDocument)| {
            // Its text was made of a value.
            let value: Value = serde_json::from_slice(document.text()).unwrap_or_default();
            (name.to_string(), value)
        };
        PushRequest {
            plugin: self.plugin.as_deref().map(|plugin| BASE64.encode(plugin)),
            settings: self.settings.clone(),
            documents: self.documents.iter().map(document).collect(),
        }
    }
}

async fn named(admin: &mut ApiClient, policy: &str) -> Result<Vec<String>, ClientError> {
    if policy.contains('/') {
        return Ok(vec![policy.to_owned()]);
    }
    let names = admin.policies().await?.into_iter().map(|row| row.policy);
    Ok(names.filter(|name| name.rsplit('/').next() == Some(policy)).collect())
}

fn split(asked: &str, names: &[String]) -> Result<(String, String), CommandError> {
    let wrong = |words: String| Err(CommandError::Wrong(words));
    match names {
        [name] => match name.split_once('/') {
            Some((set, hook)) => Ok((set.to_owned(), hook.to_owned())),
            None => wrong(format!("found {asked:?}, expected <set>/<hook>, such as call/routing")),
        },
        [] => wrong(format!("no policy is bound to {asked}; see `evenkeel policy list`")),
        names => wrong(format!("{asked} matches {}; name one", names.join(" or "))),
    }
}

fn line(policy: &Policy) -> String {
    format!(
        "{:<20} {:<13} {:<26} {:>8} calls {:>5} faults {:>5} late  {}{}",
        policy.policy,
        policy.revision.as_deref().unwrap_or("(native)"),
        policy.plugin,
        policy.calls,
        policy.faults,
        policy.late,
        policy.origin,
        failing(policy)
    )
}

/// Prints the outcome of a rollout. A refusal fails the command, and an outcome that may be forgotten has an exit code of its own.
pub(crate) fn print_rollout(answer: &Value, json: bool) -> Result<(), CommandError> {
    let RolloutAnswer { rollout, error } = typed(answer)?;
    let error = error.unwrap_or_default();
    let refused = || {
        let reason = rollout.reason.as_deref().unwrap_or_default();
        let reason = if error.message.is_empty() { reason } else { &error.message };
        format!("nothing changed: {reason}")
    };
    // An unknown policy is a wrong command line; a refused plugin is a failure.
    let failed = |words| match &*error.code {
        "bad-request" | "not-found" => CommandError::Wrong(words),
        _ => CommandError::Failed(words),
    };
    if json {
        say(answer);
    }
    let unconfirmed = match &*error.code {
        "unconfirmed" => Err(CommandError::Refused {
            exit: UNCONFIRMED,
            code: "unconfirmed".to_owned(),
            words: if json { String::new() } else { error.message.clone() },
        }),
        _ => Ok(()),
    };
    let outcome = &*rollout.outcome;
    match (outcome, json) {
        ("", _) if unconfirmed.is_err() => return unconfirmed,
        ("" | "refused", true) => return Err(failed(String::new())),
        ("" | "refused", false) => return Err(failed(refused())),
        (_, true) => return unconfirmed,
        (_, false) => {}
    }
    let Rollout { policy, revision, reason, stage, .. } = &rollout;
    let state = match (outcome, stage) {
        ("activated" | "unchanged" | "rolled-back", _) => "is active".to_owned(),
        (_, Some(staged)) => {
            let RolloutStage { stage, percent, paused, next_percent, next_in_ms } = staged;
            stage_text(stage, *percent, *paused) + &next(*next_percent, *next_in_ms, *paused)
        }
        (_, None) => "starting".to_owned(),
    };
    let revision = revision.as_deref().unwrap_or("?");
    say(&format!("{policy}: {outcome}, revision {revision} {state}"));
    if let ("activated" | "unchanged" | "started", Some(reason)) = (outcome, reason) {
        say(&format!("  {reason}"));
    }
    unconfirmed
}

fn show(policy: &Policy) {
    say(&format!(
        "{}: {} ({}, {}), {} calls, {} faults{}{}",
        policy.policy,
        policy.revision.as_deref().unwrap_or("(native)"),
        policy.plugin,
        policy.origin,
        policy.calls,
        policy.faults,
        last_fault(policy),
        late_text(policy)
    ));
    show_documents(policy.documents.as_deref(), "  ");
    if let Some(previous) = &policy.previous {
        let left = policy.rollback_window_ms.map(Duration::from_millis);
        let left = left.map_or(String::new(), |left| format!(", for {} s more", left.as_secs()));
        say(&format!("  previous: {previous}, available for rollback{left}"));
    }
    if let Some(ms) = policy.preparing_ms {
        say(&format!(
            "  preparing: a new revision has been compiled and proved for {} s",
            ms / 1_000
        ));
    }
    if let Some(rollout) = &policy.rollout {
        show_rollout(rollout);
    }
    if let Some(last) = &policy.last_rollout {
        let Rollout { outcome, by, reason, .. } = &last.rollout;
        let reason = reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        say(&format!("  last: {outcome} by {by}{reason}"));
    }
    for one in &policy.quarantined_revisions {
        let (revision, reason) = (&one.revision, &one.reason);
        let since = period(age(one.since_us));
        say(&format!("  quarantined {since} ago, until a push with --force: {revision}: {reason}"));
    }
    for one in &policy.revoked_revisions {
        say(&format!("  revoked: {}: {}", one.revision, one.reason));
    }
}

fn show_documents(documents: Option<&[PolicyDocument]>, indent: &str) {
    for PolicyDocument { name, sha256, bytes } in documents.unwrap_or_default() {
        let digest = sha256.get(..12).unwrap_or(sha256);
        say(&format!("{indent}data: {name}, {bytes} bytes, SHA-256 {digest}…"));
    }
}

fn last_fault(policy: &Policy) -> String {
    match &policy.last_fault {
        Some(fault) if policy.failing.is_none() => format!(", last fault: {fault}"),
        Some(_) | None => failing(policy),
    }
}

fn late_text(policy: &Policy) -> String {
    match policy.late {
        0 => String::new(),
        late => {
            format!("; {late} questions were not answered in time: on_fault decided")
        }
    }
}

fn show_rollout(rollout: &RolloutStatus) {
    let steps: Vec<String> = rollout.steps.iter().map(u8::to_string).collect();
    let pace = match &*rollout.stage {
        "canary" => format!(" of at least {} s", rollout.pace_ms / 1_000),
        _ => String::new(),
    };
    let waits = waits_for(rollout);
    let next = || next(rollout.next_percent, rollout.next_in_ms, rollout.paused);
    say(&format!(
        "  rollout: {} ({}, {}), {} for {} s{}; steps {} %{}",
        rollout.revision,
        rollout.plugin,
        rollout.origin,
        stage_text(&rollout.stage, rollout.percent, rollout.paused),
        rollout.lasted_ms / 1_000,
        pace,
        if steps.is_empty() { "100".to_owned() } else { steps.join(", ") },
        waits.unwrap_or_else(next)
    ));
    show_documents(rollout.documents.as_deref(), "    ");
    let ShadowCounts { same, different, faulted } = rollout.shadow;
    if same + different + faulted > 0 {
        say(&format!("    shadow answers: {same} equal, {different} different, {faulted} failed"));
    }
    let (calls, faults) = (rollout.calls, rollout.faults);
    if calls > 0 {
        say(&format!("    canary: {calls} calls, {faults} faults"));
    }
    if let Some(fault) = &rollout.last_fault {
        say(&format!("    last fault: {fault}"));
    }
    for name in ["canary", "active"] {
        if let Some(cohort) = rollout.cohorts.get(name) {
            let shown = |value: Option<f64>, unit: &str| {
                value.map_or("unknown".to_owned(), |it| format!("{it:.1}{unit}"))
            };
            say(&format!(
                "    {name}: {} sessions, {} rooms; loss {}, R {}, rung {}{}",
                cohort.sessions,
                cohort.rooms,
                shown(cohort.loss_percent, " %"),
                shown(cohort.r_factor, ""),
                shown(Some(cohort.rung), ""),
                worse(cohort)
            ));
        }
    }
}

fn worse(cohort: &Cohort) -> String {
    let some = cohort.worse.iter().filter(|(_, it)| it.worse > 0);
    let words: Vec<String> =
        some.map(|(figure, it)| format!("{figure} {} of {}", it.worse, it.of)).collect();
    if words.is_empty() { String::new() } else { format!("; worse: {}", words.join(", ")) }
}

fn stage_text(stage: &str, percent: u8, paused: bool) -> String {
    let paused = if paused { ", paused" } else { "" };
    match stage {
        "canary" => format!("canary at {percent} %{paused}"),
        "shadow" => format!("in shadow{paused}"),
        _ => "starting".to_owned(),
    }
}

fn next(percent: u8, next_in_ms: Option<u64>, paused: bool) -> String {
    let then = if percent < 100 { ", and so on to 100 %" } else { "" };
    match next_in_ms {
        Some(ms) => {
            let seconds = ms.div_ceil(1_000);
            format!("; {percent} % in {seconds} s or later unless it regresses{then}")
        }
        None if paused => String::new(),
        None => "; waits for `evenkeel policy promote`".to_owned(),
    }
}

/// The judgement that the next step of a canary waits for once its time is over.
fn waits_for(rollout: &RolloutStatus) -> Option<String> {
    let judged = rollout.judged.as_ref()?;
    let (over, unit) = (rollout.pace_ms / 1_000, &judged.of);
    let (count, required) = (judged.count, judged.required);
    (rollout.next_in_ms == Some(0) && count < required).then(|| {
        format!("; {over} s are over; waiting for {required} judged {unit}, {count} so far")
    })
}
