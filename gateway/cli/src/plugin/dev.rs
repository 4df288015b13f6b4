//! `evenkeel plugin dev`.

mod sources;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel_author::case::{self as cases, count_noun};
use evenkeel_author::{AuthorError, BuiltPlugin, Project, conformance};
use evenkeel_contract::policies::{Policy, PolicyList, RolloutAnswer, RolloutStatus, ShadowCounts};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::sources::Sources;
use super::file::{TestedArgs, folder_of, read};
use crate::command::{ApiArgs, CommandError, runtime, say, say_lines, settings_of, typed};
use crate::policy::{RevisionParts, print_rollout};
use crate::progress::report_progress;
use crate::recording::{TrialOutcome, kept_calls};

/// Interval at which files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which answers in shadow are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// Interval at which differing answers are shown. A recording of all calls is read for each.
const EXAMPLES_INTERVAL: Duration = Duration::from_secs(10);

/// Build and test a plugin whenever its source changes, and show how its answers differ from those of a gateway
///
/// Each build is tested as by `evenkeel plugin test`. With --push and --shadow a build that passes is pushed in shadow: the
/// gateway asks it what it asks the active revision, and its answers have no effect. They are counted, and some that
/// differ are shown. Ctrl-C ends the command and removes the revision from the gateway.
///
/// With --json: an object of `plugin test` for each build, with `plugin` and `digest`; the rollout; objects with `shadow`, the
/// counted answers; and objects with `differences`.
#[derive(Args)]
pub(super) struct DevArgs {
    #[command(flatten)]
    tested: TestedArgs,
    /// File with settings, JSON or TOML; default: the plugin's own, and the active ones at the gateway
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    /// Number of random inputs for each build
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    worlds: u32,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Push builds that pass to this policy
    #[arg(long, value_name = "SET/HOOK", requires = "shadow", value_parser = policy)]
    push: Option<PolicyTarget>,
    /// Push in shadow
    #[arg(long, requires = "push")]
    shadow: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A policy at the gateway.
#[derive(Clone)]
struct PolicyTarget {
    set: String,
    hook: String,
}

impl PolicyTarget {
    fn name(&self) -> String {
        format!("{}/{}", self.set, self.hook)
    }
}

fn policy(text: &str) -> Result<PolicyTarget, String> {
    let (set, hook) = text
        .split_once('/')
        .ok_or_else(|| format!("found `{text}`, expected <set>/<hook>, such as call/routing"))?;
    Ok(PolicyTarget { set: set.to_owned(), hook: hook.to_owned() })
}

/// The output of `evenkeel plugin dev --json` after each build.
#[derive(Serialize)]
struct TestedOutput<'a> {
    #[serde(flatten)]
    report: Value,
    plugin: &'a Path,
    digest: String,
    passed: bool,
    cases: Value,
}

impl DevArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let sources = self.sources()?;
        let mut signals = EndSignals::listen()?;
        let mut shadow = None;
        loop {
            let state = sources.state();
            self.report(self.tested().and_then(|built| self.push(built, &mut shadow)));
            while sources.state() == state {
                if signals.wait(LOOK_INTERVAL) {
                    return self.withdraw(&mut shadow);
                }
                self.report(self.compare(&mut shadow));
            }
        }
    }

    fn sources(&self) -> Result<Sources, CommandError> {
        let beside = [&self.settings, &self.tested.cases].into_iter().flatten().cloned();
        let sources = match &self.tested.plugin {
            Some(plugin) => vec![plugin.clone(), folder_of(plugin).join("tests")],
            None => vec![Project::at(&self.tested.path)?.folder],
        };
        Ok(Sources::new(sources.into_iter().chain(beside).chain(self.tested.data.files().cloned())))
    }

    /// Errors are shown, and the command goes on.
    fn report(&self, outcome: Result<(), CommandError>) {
        let Err(error) = outcome else { return };
        let (_, code, words) = error.parts();
        match (words.is_empty(), self.json) {
            (true, _) => {}
            (false, true) => say(&json!({"error": {"code": code, "message": words}})),
            (false, false) => eprintln!("evenkeel: {}", evenkeel_process::escape_lines(&words)),
        }
    }

    fn settings(&self) -> Result<Option<Value>, CommandError> {
        self.settings.as_deref().map(settings_of).transpose()
    }

    fn built(&self) -> Result<(BuiltPlugin, PathBuf), CommandError> {
        if let Some(plugin) = &self.tested.plugin {
            return Ok((read(plugin)?, plugin.clone()));
        }
        let project = Project::at(&self.tested.path)?;
        project.test(true)?;
        let built = BuiltPlugin::of(&project)?;
        let path = built.write(&project.folder)?;
        Ok((built, path))
    }

    /// Builds and tests the plugin, and shows the outcome.
    fn tested(&self) -> Result<BuiltPlugin, CommandError> {
        let (mut built, path) = self.built()?;
        built.documents = self.tested.data.read()?;
        let settings = self.settings()?.unwrap_or_default();
        let options =
            conformance::ConformanceOptions { seed: self.seed, worlds: self.worlds, settings };
        let report = report_progress("testing", || conformance::run(&built, &options));
        let report = report.map_err(AuthorError::from)?;
        let cases = self.tested.cases()?;
        let case_report = cases::run(&built, &cases, &options.settings)?;
        let is_passed = report.is_passed() && case_report.is_passed();
        if self.json {
            say(&json!(TestedOutput {
                report: report.json(),
                plugin: &path,
                digest: built.digest(),
                passed: is_passed,
                cases: case_report.json(),
            }));
        } else if is_passed {
            let (bytes, worlds, cases) =
                (built.bytes.len(), self.worlds, count_noun(cases.len() as u64, "case"));
            let path = path.display();
            say(&format!("{path}: {bytes} bytes; {worlds} random inputs and {cases} passed"));
        } else {
            say_lines(&report);
            say_lines(&case_report);
        }
        match (is_passed, self.json) {
            (true, _) => Ok(built),
            (false, true) => Err(CommandError::Failed(String::new())),
            (false, false) => {
                Err(CommandError::Failed("the plugin failed a check; see above".to_owned()))
            }
        }
    }
}

/// A revision of the plugin in shadow at the gateway.
struct ShadowRevision {
    revision: String,
    built: BuiltPlugin,
    settings: Option<Value>,
    /// The numbers of answers that were shown last.
    counts: Option<ShadowCounts>,
    counted_at: Option<Instant>,
    examples_at: Option<Instant>,
}

impl DevArgs {
    fn target(&self) -> Option<&PolicyTarget> {
        self.push.as_ref().filter(|_| self.shadow)
    }

    /// Replaces the revision in shadow by this build, if it differs.
    fn push(
        &self,
        built: BuiltPlugin,
        shadow: &mut Option<ShadowRevision>,
    ) -> Result<(), CommandError> {
        let Some(target) = self.target() else { return Ok(()) };
        let settings = self.settings()?;
        if let Some(shadow) = shadow
            && shadow.built.digest() == built.digest()
            && shadow.built.documents == built.documents
            && shadow.settings == settings
        {
            return Ok(());
        }
        self.withdraw(shadow)?;
        let parts = RevisionParts {
            plugin: Some(built.bytes.clone()),
            settings: settings.clone(),
            documents: built.documents.clone(),
        };
        let query = vec![("shadow", "true".to_owned())];
        let rollout = parts.push(&self.api, &target.set, &target.hook, query)?;
        let printed = print_rollout(&rollout, self.json);
        let RolloutAnswer { rollout, .. } = typed(&rollout)?;
        if rollout.stage.is_some_and(|staged| staged.stage == "shadow") {
            let revision = rollout.revision.as_deref().unwrap_or_default().to_owned();
            let (counts, counted_at, examples_at) = (None, None, None);
            *shadow =
                Some(ShadowRevision { revision, built, settings, counts, counted_at, examples_at });
        }
        printed
    }

    /// The policy's status at the gateway.
    fn status(&self, target: &PolicyTarget) -> Result<Policy, CommandError> {
        let PolicyList::<Policy> { policies } = self.api.get("/v1/policies")?;
        let found = policies.into_iter().find(|policy| policy.policy == target.name());
        Ok(found.unwrap_or_default())
    }

    /// Removes the revision from the gateway, if it is still in shadow there.
    fn withdraw(&self, shadow: &mut Option<ShadowRevision>) -> Result<(), CommandError> {
        let (Some(target), Some(ended)) = (self.target(), shadow.take()) else { return Ok(()) };
        let rollout = self.status(target)?.rollout.unwrap_or_default();
        if *rollout.revision == *ended.revision && rollout.stage == "shadow" {
            let PolicyTarget { set, hook } = target;
            self.api.post(&format!("/v1/policies/{set}/{hook}:abort"), &())?;
        }
        Ok(())
    }

    /// Shows the answers in shadow if there are new ones.
    fn compare(&self, shadow: &mut Option<ShadowRevision>) -> Result<(), CommandError> {
        let (Some(target), Some(running)) = (self.target(), shadow.as_mut()) else {
            return Ok(());
        };
        if !is_due(running.counted_at, COUNT_INTERVAL) {
            return Ok(());
        }
        running.counted_at = Some(Instant::now());
        let status = self.status(target).inspect_err(|_| *shadow = None)?;
        let Some(running) = shadow.as_mut() else { return Ok(()) };
        let (rollout, name) = (status.rollout.unwrap_or_default(), target.name());
        if *rollout.revision != *running.revision {
            let last = status.last_rollout.unwrap_or_default().rollout;
            let (outcome, reason) = (last.outcome, last.reason.unwrap_or_default());
            let words = format!("{name}: {} is {outcome}: {reason}", running.revision);
            *shadow = None;
            return Err(CommandError::Failed(words));
        }
        let counts = rollout.shadow;
        if running.counts == Some(counts) {
            return Ok(());
        }
        let before = running.counts.replace(counts).unwrap_or_default();
        let has_more = counts.different > before.different;
        if self.json {
            let fault = &rollout.last_fault;
            say(&json!({"policy": name, "shadow": counts, "last_fault": fault}));
        } else {
            say(&counts_line(&name, &rollout));
        }
        if has_more && is_due(running.examples_at, EXAMPLES_INTERVAL) {
            running.examples_at = Some(Instant::now());
            self.show_differences(&name, running)?;
        }
        Ok(())
    }

    /// Asks the build what the gateway has asked other revisions lately.
    fn show_differences(&self, name: &str, shadow: &ShadowRevision) -> Result<(), CommandError> {
        let bytes = self.api.operate(async |admin| kept_calls(admin, name).await)?;
        let settings = shadow.settings.clone();
        let is_other = |revision: &str| revision != shadow.revision;
        let place = Path::new("the gateway");
        let tried = TrialOutcome::of(place, &bytes, &shadow.built, settings, is_other)?;
        if self.json {
            say(&tried.json);
        } else {
            say_lines(&tried.lines);
        }
        Ok(())
    }
}

fn is_due(last: Option<Instant>, interval: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= interval)
}

/// `call/routing: 120 answers are those of the active revision, 3 differ, 0 failed`.
fn counts_line(policy: &str, rollout: &RolloutStatus) -> String {
    let ShadowCounts { same, different, faulted } = rollout.shadow;
    let fault = rollout.last_fault.as_ref();
    let fault = fault.map_or(String::new(), |fault| format!("; last fault: {fault}"));
    format!(
        "{policy}: {same} answers are those of the active revision, {different} differ, {faulted} failed{fault}"
    )
}

/// Signals that end the command, also those that come between two waits.
struct EndSignals {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    fn listen() -> Result<EndSignals, CommandError> {
        let runtime = runtime()?;
        let signals = {
            let _inside = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
        };
        let [interrupt, terminate] = signals;
        let failed = |error: std::io::Error| CommandError::Failed(error.to_string());
        let (interrupt, terminate) = (interrupt.map_err(failed)?, terminate.map_err(failed)?);
        Ok(EndSignals { runtime, interrupt, terminate })
    }

    /// Waits this long; returns true if a signal ends the wait.
    fn wait(&mut self, time: Duration) -> bool {
        let EndSignals { runtime, interrupt, terminate } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = tokio::time::sleep(time) => false,
            }
        })
    }
}
