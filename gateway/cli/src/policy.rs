//! `evenkeel policy`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use evenkeel_client::{ApiClient, ClientError, escape};
use evenkeel_host::{DataDocument, DataDocuments};
use serde_json::{Map, Value, json};

use crate::command::{
    ApiArgs, CommandError, UNCONFIRMED, documents_of, list, named_file, number, read_file, rows,
    say, settings_of, text,
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
        of: OfPolicy,
        /// Activate the revision without further steps
        #[arg(long)]
        all: bool,
    },
    /// Pause the running rollout at its step
    Pause(OfPolicy),
    /// Resume a paused rollout
    Resume(OfPolicy),
    /// Cancel the running rollout; the active revision stays
    Abort(OfPolicy),
    Record(recording::RecordArgs),
    Replay(recording::Replay),
    Diff(recording::Diff),
    /// Cancel the running rollout or, without one, reactivate the previous revision
    Rollback {
        #[command(flatten)]
        of: OfPolicy,
        /// Reactivate the previous revision even if it is quarantined
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
struct OfPolicy {
    /// The policy as `<set>/<hook>`, or the hook alone if only one set binds it
    policy: String,
}

#[derive(Args)]
struct RevisionArgs {
    #[command(flatten)]
    of: OfPolicy,
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
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match &self.verb {
            PolicyCommand::List => {
                list(self.json, &self.api.read("/v1/policies")?, "policies", line);
                Ok(())
            }
            PolicyCommand::Push { revision, steps } => self.push(revision, steps),
            PolicyCommand::Record(record) => record.act(&self.api, self.json),
            PolicyCommand::Replay(replay) => replay.act(self.json),
            PolicyCommand::Diff(diff) => diff.act(self.json),
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

    fn tell(&self, of: &OfPolicy, verb: &str) -> Result<(), CommandError> {
        let (set, hook) = self.name(&of.policy)?;
        let path = format!("/v1/policies/{set}/{hook}:{verb}");
        let rollout = self.api.post(&path, &Value::Null)?;
        print_rollout(&rollout, self.json)
    }

    fn status(&self, policy: Option<&str>) -> Result<(), CommandError> {
        let wanted = policy.map(|policy| self.name(policy)).transpose()?;
        let wanted = wanted.map(|(set, hook)| format!("{set}/{hook}"));
        let mut all = self.api.read("/v1/policies")?;
        if let (Some(wanted), Some(list)) = (&wanted, all["policies"].as_array_mut()) {
            list.retain(|row| text(row, "policy") == wanted);
            if list.is_empty() {
                let words = format!("unknown policy {wanted}; see `evenkeel policy list`");
                return Err(CommandError::Wrong(words));
            }
        }
        if self.json {
            say(&all);
        } else {
            rows(&all, "policies").iter().for_each(show);
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
            None => admin.push_parts(set, &target, &self.json()).await,
        })
    }

    fn json(&self) -> Value {
        let mut parts = Map::new();
        let plugin = self.plugin.as_deref().map(|plugin| json!(BASE64.encode(plugin)));
        parts.extend(plugin.map(|plugin| ("plugin".to_owned(), plugin)));
        parts.extend(self.settings.clone().map(|settings| ("settings".to_owned(), settings)));
        let document = |(name, document): (&Arc<str>, &DataDocument)| {
            // Its text was made of a value.
            let value: Value = serde_json::from_slice(document.text()).unwrap_or_default();
            (name.to_string(), value)
        };
        let documents: Map<String, Value> = self.documents.iter().map(document).collect();
        if !documents.is_empty() {
            parts.insert("documents".to_owned(), Value::Object(documents));
        }
        Value::Object(parts)
    }
}

async fn named(admin: &mut ApiClient, policy: &str) -> Result<Vec<String>, ClientError> {
    if policy.contains('/') {
        return Ok(vec![policy.to_owned()]);
    }
    let policies = admin.read("/v1/policies").await?;
    let names = rows(&policies, "policies").iter().map(|row| text(row, "policy").to_owned());
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

fn line(policy: &Value) -> String {
    format!(
        "{:<20} {:<13} {:<26} {:>8} calls {:>5} faults {:>5} late  {}{}",
        text(policy, "policy"),
        policy["revision"].as_str().unwrap_or("(native)"),
        text(policy, "plugin"),
        number(policy, "calls"),
        number(policy, "faults"),
        number(policy, "late"),
        text(policy, "origin"),
        failing(policy)
    )
}

/// Prints the outcome of a rollout. A refusal fails the command, and an outcome that may be forgotten has an exit code of its own.
pub(crate) fn print_rollout(rollout: &Value, json: bool) -> Result<(), CommandError> {
    let error = text(&rollout["error"], "message");
    let unconfirmed = text(&rollout["error"], "code") == "unconfirmed";
    let refused = || {
        let reason = if error.is_empty() { text(rollout, "reason") } else { error };
        format!("nothing changed: {reason}")
    };
    // An unknown policy is a wrong command line; a refused plugin is a failure.
    let failed = |words| match text(&rollout["error"], "code") {
        "bad-request" | "not-found" => CommandError::Wrong(words),
        _ => CommandError::Failed(words),
    };
    if json {
        say(rollout);
    }
    let outcome = text(rollout, "outcome");
    let unconfirmed = match unconfirmed {
        true => Err(CommandError::Refused {
            exit: UNCONFIRMED,
            code: "unconfirmed".to_owned(),
            words: if json { String::new() } else { error.to_owned() },
        }),
        false => Ok(()),
    };
    match (outcome, json) {
        ("", _) if unconfirmed.is_err() => return unconfirmed,
        ("" | "refused", true) => return Err(failed(String::new())),
        ("" | "refused", false) => return Err(failed(refused())),
        (_, true) => return unconfirmed,
        (_, false) => {}
    }
    let state = match outcome {
        "activated" | "unchanged" | "rolled-back" => "is active".to_owned(),
        _ => stage(rollout) + &next(rollout),
    };
    let revision = rollout["revision"].as_str().unwrap_or("?");
    say(&format!("{}: {outcome}, revision {revision} {state}", text(rollout, "policy")));
    if let ("activated" | "unchanged" | "started", Some(reason)) =
        (outcome, rollout["reason"].as_str())
    {
        say(&format!("  {reason}"));
    }
    unconfirmed
}

fn show(policy: &Value) {
    say(&format!(
        "{}: {} ({}, {}), {} calls, {} faults{}{}",
        text(policy, "policy"),
        policy["revision"].as_str().unwrap_or("(native)"),
        text(policy, "plugin"),
        text(policy, "origin"),
        number(policy, "calls"),
        number(policy, "faults"),
        last_fault(policy),
        late_text(policy)
    ));
    show_documents(policy, "  ");
    if let Some(previous) = policy["previous"].as_str() {
        let left = policy["rollback_window_ms"].as_u64().map(Duration::from_millis);
        let left = left.map_or(String::new(), |left| format!(", for {} s more", left.as_secs()));
        say(&format!("  previous: {previous}, available for rollback{left}"));
    }
    if let Some(ms) = policy["preparing_ms"].as_u64() {
        say(&format!(
            "  preparing: a new revision has been compiled and proved for {} s",
            ms / 1_000
        ));
    }
    let rollout = &policy["rollout"];
    if rollout.is_object() {
        show_rollout(rollout);
    }
    let last = &policy["last_rollout"];
    if last.is_object() {
        let reason = last["reason"].as_str().map_or(String::new(), |why| format!(": {why}"));
        say(&format!("  last: {} by {}{reason}", text(last, "outcome"), text(last, "by")));
    }
    for one in rows(policy, "quarantined_revisions") {
        let (revision, reason) = (text(one, "revision"), text(one, "reason"));
        let since = period(age(number(one, "since_us")));
        say(&format!("  quarantined {since} ago, until a push with --force: {revision}: {reason}"));
    }
    for one in rows(policy, "revoked_revisions") {
        say(&format!("  revoked: {}: {}", text(one, "revision"), text(one, "reason")));
    }
}

fn show_documents(revision: &Value, indent: &str) {
    for document in rows(revision, "documents") {
        let (name, digest) = (text(document, "name"), text(document, "sha256"));
        let digest = digest.get(..12).unwrap_or(digest);
        let bytes = number(document, "bytes");
        say(&format!("{indent}data: {name}, {bytes} bytes, SHA-256 {digest}…"));
    }
}

fn last_fault(policy: &Value) -> String {
    match policy["last_fault"].as_str() {
        Some(fault) if policy["failing"].is_null() => format!(", last fault: {fault}"),
        Some(_) | None => failing(policy),
    }
}

fn late_text(policy: &Value) -> String {
    match number(policy, "late") {
        0 => String::new(),
        late => {
            format!("; {late} questions were not answered in time: on_fault decided")
        }
    }
}

fn show_rollout(rollout: &Value) {
    let steps: Vec<String> = rows(rollout, "steps").iter().map(Value::to_string).collect();
    let pace = match text(rollout, "stage") {
        "canary" => format!(" of at least {} s", number(rollout, "pace_ms") / 1_000),
        _ => String::new(),
    };
    say(&format!(
        "  rollout: {} ({}, {}), {} for {} s{}; steps {} %{}",
        text(rollout, "revision"),
        text(rollout, "plugin"),
        text(rollout, "origin"),
        stage(rollout),
        number(rollout, "lasted_ms") / 1_000,
        pace,
        if steps.is_empty() { "100".to_owned() } else { steps.join(", ") },
        next(rollout)
    ));
    show_documents(rollout, "    ");
    let shadow = &rollout["shadow"];
    let (same, different) = (number(shadow, "same"), number(shadow, "different"));
    if same + different + number(shadow, "faulted") > 0 {
        let faulted = number(shadow, "faulted");
        say(&format!("    shadow answers: {same} equal, {different} different, {faulted} failed"));
    }
    let (calls, faults) = (number(rollout, "calls"), number(rollout, "faults"));
    if calls > 0 {
        say(&format!("    canary: {calls} calls, {faults} faults"));
    }
    if let Some(fault) = rollout["last_fault"].as_str() {
        say(&format!("    last fault: {fault}"));
    }
    for name in ["canary", "active"] {
        let cohort = &rollout["cohorts"][name];
        if cohort.is_object() {
            let shown = |key: &str, unit: &str| {
                cohort[key].as_f64().map_or("unknown".to_owned(), |it| format!("{it:.1}{unit}"))
            };
            say(&format!(
                "    {name}: {} sessions, {} rooms; loss {}, R {}, rung {}{}",
                number(cohort, "sessions"),
                number(cohort, "rooms"),
                shown("loss_percent", " %"),
                shown("r_factor", ""),
                shown("rung", ""),
                worse(cohort)
            ));
        }
    }
}

fn worse(cohort: &Value) -> String {
    let all = cohort["worse"].as_object();
    let some = all.into_iter().flatten().filter(|(_, it)| number(it, "worse") > 0);
    let words: Vec<String> = some
        .map(|(figure, it)| format!("{figure} {} of {}", number(it, "worse"), number(it, "of")))
        .collect();
    if words.is_empty() { String::new() } else { format!("; worse: {}", words.join(", ")) }
}

fn stage(rollout: &Value) -> String {
    let paused = if rollout["paused"] == Value::Bool(true) { ", paused" } else { "" };
    match text(rollout, "stage") {
        "canary" => format!("canary at {} %{paused}", number(rollout, "percent")),
        "shadow" => format!("in shadow{paused}"),
        _ => "starting".to_owned(),
    }
}

fn next(rollout: &Value) -> String {
    let Some(percent) = rollout["next_percent"].as_u64() else {
        return String::new();
    };
    if let Some(waits) = waits_for(rollout) {
        return waits;
    }
    let then = if percent < 100 { ", and so on to 100 %" } else { "" };
    match rollout["next_in_ms"].as_u64() {
        Some(ms) => {
            let seconds = ms.div_ceil(1_000);
            format!("; {percent} % in {seconds} s or later unless it regresses{then}")
        }
        None if rollout["paused"] == Value::Bool(true) => String::new(),
        None => "; waits for `evenkeel policy promote`".to_owned(),
    }
}

/// The judgement that the next step of a canary waits for once its time is over.
fn waits_for(rollout: &Value) -> Option<String> {
    let (judged, over) = (&rollout["judged"], number(rollout, "pace_ms") / 1_000);
    let (count, required) = (number(judged, "count"), number(judged, "required"));
    let is_over = rollout["next_in_ms"].as_u64() == Some(0);
    (is_over && judged.is_object() && count < required).then(|| {
        let unit = text(judged, "of");
        format!("; {over} s are over; waiting for {required} judged {unit}, {count} so far")
    })
}
