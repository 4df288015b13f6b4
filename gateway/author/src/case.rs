//! Cases: questions to a plugin in any language, with the answers that its author expects.
//!
//! A case is a file of TOML or JSON; `docs/policies.md` describes it. Its questions are asked in order, as a gateway asks
//! them, and the states that the plugin writes pass from one to the next.

mod document;
mod error;
mod expectation;
mod from_recording;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use evenkeel_host::{BoundPlugin, Component, Engine, GuestLogLine, PluginInputs, PluginRefusal};
use evenkeel_model::{Hook, PluginFault, PolicyName, PolicyQuestion, RevisionAnswer};
use evenkeel_recording::ReplayState;
use serde_json::{Map, Value, json};

use self::document::{AskText, CaseQuestion, CaseText};
pub use self::error::CaseError;
use self::expectation::differences;
pub use self::from_recording::{CaseSubject, RecordedCase, case_of};
use crate::built::BuiltPlugin;
use crate::conformance::name;
use crate::decision::{ComparisonSide, decisions};
use crate::failed::AuthorError;
use crate::profile::question::ProfiledQuestion;
use crate::verdict::{Violation, examine};

/// Seed of a plugin in a case.
const SEED: u64 = 1;

/// A case that was read from a file.
#[derive(Clone, Debug)]
pub struct Case {
    file: PathBuf,
    text: CaseText,
}

impl Case {
    /// Reads a file of TOML or JSON.
    ///
    /// # Errors
    /// The file cannot be read, or its text is no case.
    pub fn read(file: &Path) -> Result<Case, AuthorError> {
        let text = fs::read_to_string(file).map_err(AuthorError::file(file))?;
        let text = CaseText::read(&text).map_err(AuthorError::case(file))?;
        Ok(Case { file: file.to_owned(), text })
    }

    /// The cases of a folder by name; none if there is no such folder.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn all_in(folder: &Path) -> Result<Vec<Case>, AuthorError> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
        let is_case = |path: &PathBuf| {
            path.extension().is_some_and(|ending| ending == "toml" || ending == "json")
        };
        let mut files: Vec<PathBuf> =
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_case).collect();
        files.sort();
        files.iter().map(|file| Case::read(file)).collect()
    }

    /// Asks a plugin the questions in order, and passes each answer on.
    ///
    /// # Errors
    /// A question does not fit the plugin, the plugin refuses the settings, or it runs past a budget of the gateway.
    pub(crate) fn ask(
        &self,
        respondent: &mut CaseRunner<'_>,
        mut each: impl FnMut(&mut BoundPlugin, CaseAnswer<'_>) -> Result<(), PluginRefusal>,
    ) -> Result<(), AuthorError> {
        let manifest = respondent.component.manifest();
        let questions = self.text.questions(manifest).map_err(AuthorError::case(&self.file))?;
        respondent.begin(self.text.settings.as_ref());
        for (text, asked) in questions {
            let (policy, answer) = respondent.ask(text, asked)?;
            each(policy, answer)?;
        }
        Ok(())
    }
}

/// A plugin that answers the questions of cases, and the states that it wrote.
pub(crate) struct CaseRunner<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) component: &'a Component,
    /// Settings of cases that have none, and data documents of all cases.
    inputs: PluginInputs,
    in_force: PluginInputs,
    policies: BTreeMap<Hook, BoundPlugin>,
    states: ReplayState,
}

impl<'a> CaseRunner<'a> {
    pub(crate) fn new(engine: &'a Engine, component: &'a Component, inputs: PluginInputs) -> Self {
        let (policies, states) = Default::default();
        CaseRunner { engine, component, in_force: inputs.clone(), inputs, policies, states }
    }

    /// Begins a case: forgets the states of the one before.
    fn begin(&mut self, settings: Option<&Value>) {
        self.in_force.settings = settings.unwrap_or(&self.inputs.settings).clone();
        (self.policies, self.states) = Default::default();
    }

    fn ask<'t>(
        &mut self,
        text: &'t AskText,
        mut asked: CaseQuestion,
    ) -> Result<(&mut BoundPlugin, CaseAnswer<'t>), PluginRefusal> {
        let hook = asked.question.hook();
        let policy_name = PolicyName { set: "case".into(), hook };
        asked.question = self.states.completed(&policy_name, asked.question);
        let CaseQuestion { question, catalog, now_us } = &asked;
        let (engine, component, inputs) = (self.engine, self.component, &self.in_force);
        let start = || {
            let (inputs, catalog) = (inputs.clone(), catalog.clone());
            BoundPlugin::install(engine, component, hook, inputs, catalog, SEED)
        };
        let policy = match self.policies.entry(hook) {
            Entry::Occupied(started) => started.into_mut(),
            Entry::Vacant(none) => none.insert(start()?),
        };
        if policy.known_catalog() != catalog {
            // A plugin that fails here fails in the question.
            let _ = policy.catalog(catalog.clone());
        }
        let (result, broken) = examine(policy, question, *now_us, start)?;
        if let Ok(answered) = &result {
            self.states.update(&policy_name, question, &answered.answer);
        }
        Ok((policy, CaseAnswer { text, asked, result, broken }))
    }
}

/// An answer to a question of a case.
pub(crate) struct CaseAnswer<'a> {
    text: &'a AskText,
    asked: CaseQuestion,
    result: Result<RevisionAnswer, PluginFault>,
    broken: Vec<Violation>,
}

impl CaseAnswer<'_> {
    pub(crate) fn question(&self) -> (&PolicyQuestion, u64) {
        (&self.asked.question, self.asked.now_us)
    }

    /// The question for a profile, if it was answered.
    pub(crate) fn into_profiled(self, settings: &str) -> Option<ProfiledQuestion> {
        let CaseQuestion { question, catalog, now_us } = self.asked;
        let settings = settings.to_owned();
        self.result.ok().map(|_| ProfiledQuestion { question, catalog, now_us, settings })
    }

    /// The decision as JSON with names for numbers; of a batch, the decisions by session or room.
    fn decision(&self, component: &Component) -> Value {
        let (catalog, result) = (&self.asked.catalog, &self.result);
        let side = ComparisonSide { component: Some(component), catalog, result };
        let all = decisions(&self.asked.question, &self.result);
        if self.asked.question.batch().is_none() || self.result.is_err() {
            return side.shown(all.values().next());
        }
        let shown =
            all.iter().map(|(subject, decision)| (subject.to_string(), side.shown(Some(decision))));
        Value::Object(shown.collect::<Map<_, _>>())
    }

    /// The ways in which the answer is not as expected.
    fn failures(&self, component: &Component) -> Vec<String> {
        let mut failures: Vec<String> = self
            .broken
            .iter()
            .filter(|violation| !self.text.guards.contains(violation.name()))
            .map(|violation| format!("{}: {violation}", violation.name()))
            .collect();
        let found: Vec<&str> = self.broken.iter().map(Violation::name).collect();
        let missing = self.text.guards.iter().filter(|name| !found.contains(&name.as_str()));
        failures.extend(missing.map(|name| format!("expected the guard `{name}`")));
        let Some(expected) = &self.text.expect else { return failures };
        let decision = self.decision(component);
        match (self.asked.question.batch(), expected) {
            (Some(_), Value::Object(subjects)) => {
                failures.extend(subjects.iter().flat_map(|(subject, expected)| {
                    differences(subject, expected, decision.get(subject))
                }));
            }
            _ => failures.extend(differences("answer", expected, Some(&decision))),
        }
        failures
    }
}

/// The outcome of cases. As text for people; see [`json`](CaseReport::json) for tools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CaseReport {
    cases: usize,
    asked: u64,
    failures: Vec<CaseFailure>,
}

/// An answer that is not as expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseFailure {
    pub file: PathBuf,
    /// Number of the question in the file, from 1.
    pub question: u64,
    /// The difference.
    pub said: String,
}

/// Asks a plugin the questions of all cases; `settings` hold in cases without settings.
///
/// # Errors
/// A case does not fit the plugin, the plugin refuses its settings, or it runs past a budget of the gateway.
pub fn run(
    built: &BuiltPlugin,
    cases: &[Case],
    settings: &Value,
) -> Result<CaseReport, AuthorError> {
    let mut report = CaseReport { cases: cases.len(), ..CaseReport::default() };
    let mut respondent = CaseRunner::new(&built.engine, &built.component, built.inputs(settings));
    for case in cases {
        let mut question = 0;
        case.ask(&mut respondent, |_, answer| {
            question += 1;
            report.asked += 1;
            let failures = answer.failures(&built.component).into_iter();
            report.failures.extend(failures.map(|said| CaseFailure {
                file: case.file.clone(),
                question,
                said,
            }));
            Ok(())
        })?;
    }
    Ok(report)
}

impl CaseReport {
    /// True if every answer is as expected.
    pub fn is_passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let failure = |CaseFailure { file, question, said }: &CaseFailure| json!({"case": file, "question": question, "said": said});
        json!({
            "passed": self.is_passed(),
            "cases": self.cases,
            "questions": self.asked,
            "failures": self.failures.iter().map(failure).collect::<Vec<_>>(),
        })
    }
}

/// `1 case`, `2 cases`.
pub fn count_noun(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CaseReport { cases, asked, failures } = self;
        let (cases, asked) = (count_noun(*cases as u64, "case"), count_noun(*asked, "question"));
        write!(f, "{cases}, {asked}: {} differ", count_noun(failures.len() as u64, "answer"))?;
        for CaseFailure { file, question, said } in failures {
            let said = said.replace(|c: char| c.is_control(), " ");
            write!(f, "\n  wrong    {}, question {question}: {said}", file.display())?;
        }
        Ok(())
    }
}

/// The answers to the questions of one file, with their cost. As text for people; see [`json`](AskReport::json) for
/// tools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AskReport(Vec<AskedAnswer>);

#[derive(Clone, PartialEq, Debug)]
struct AskedAnswer {
    call: &'static str,
    now_us: u64,
    decision: Value,
    /// Names and sentences of the rules that the answer breaks.
    broken: Vec<Violation>,
    notes: Vec<Value>,
    log: Vec<String>,
    ns: u64,
    instructions: u64,
}

/// Asks a plugin the questions of one file.
///
/// # Errors
/// As [`run`].
pub fn ask(built: &BuiltPlugin, case: &Case, settings: &Value) -> Result<AskReport, AuthorError> {
    let counting = crate::measure::counting_engine();
    let counted = Component::vet(&counting, &built.bytes)?;
    let mut respondent = CaseRunner::new(&built.engine, &built.component, built.inputs(settings));
    let mut counter = CaseRunner::new(&counting, &counted, built.inputs(settings));
    let (mut report, mut instructions) = (AskReport::default(), Vec::new());
    case.ask(&mut respondent, |policy, answer| {
        let (question, now_us) = answer.question();
        let is_answered = answer.result.is_ok();
        let ns =
            if is_answered { crate::measure::time(policy, question, now_us)?.median } else { 0 };
        let log = std::iter::from_fn(|| policy.poll_line());
        let log = log.map(|GuestLogLine { level, words }| format!("{level:?}: {words}")).collect();
        let notes = answer.result.iter().flat_map(|answered| &answered.notes);
        let notes =
            notes.map(|note| json!({"row": note.row, "key": note.key, "value": note.value}));
        report.0.push(AskedAnswer {
            call: name(question),
            now_us,
            decision: answer.decision(&built.component),
            notes: notes.collect(),
            log,
            ns,
            instructions: 0,
            broken: answer.broken,
        });
        Ok(())
    })?;
    case.ask(&mut counter, |policy, answer| {
        let (question, now_us) = answer.question();
        let is_answered = answer.result.is_ok();
        let mut count = || crate::measure::count(policy, question, now_us);
        instructions.push(if is_answered { count()? } else { 0 });
        Ok(())
    })?;
    for (answer, instructions) in report.0.iter_mut().zip(instructions) {
        answer.instructions = instructions;
    }
    Ok(report)
}

impl AskReport {
    /// True if no answer breaks a rule of the contract; answers that the gateway would guard do not count.
    pub fn is_passed(&self) -> bool {
        self.0.iter().flat_map(|answer| &answer.broken).all(Violation::is_guarded)
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let answers = self.0.iter().map(|answer| {
            let (guarded, wrong): (Vec<&Violation>, Vec<&Violation>) =
                answer.broken.iter().partition(|violation| violation.is_guarded());
            let named = |all: &[&Violation]| {
                let named =
                    all.iter().map(|one| json!({"name": one.name(), "said": one.to_string()}));
                named.collect::<Vec<_>>()
            };
            json!({
                "call": answer.call,
                "now_us": answer.now_us,
                "answer": answer.decision,
                "guarded": named(&guarded),
                "breaches": named(&wrong),
                "notes": answer.notes,
                "log": answer.log,
                "ns": answer.ns,
                "instructions": answer.instructions,
            })
        });
        json!({"passed": self.is_passed(), "answers": answers.collect::<Vec<_>>()})
    }
}

impl fmt::Display for AskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, answer) in self.0.iter().enumerate() {
            let AskedAnswer { call, now_us, decision, broken, notes: _, log, ns, instructions } =
                answer;
            let separator = if at > 0 { "\n" } else { "" };
            let ns = crate::inspection::thousands(ns);
            let instructions = crate::inspection::thousands(instructions);
            write!(f, "{separator}{call} at {now_us} µs, {ns} ns, {instructions} instructions")?;
            match decision {
                Value::Object(subjects) if matches!(*call, "tick" | "reroute") => {
                    for (subject, decision) in subjects {
                        write!(f, "\n  {subject:<8} {decision}")?;
                    }
                    if subjects.is_empty() {
                        write!(f, "\n  answer   all unchanged")?;
                    }
                }
                decision => write!(f, "\n  answer   {decision}")?,
            }
            for violation in broken {
                let word = if violation.is_guarded() { "guarded" } else { "wrong" };
                write!(f, "\n  {word:<8} {}: {violation}", violation.name())?;
            }
            for line in log {
                write!(f, "\n  log      {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
