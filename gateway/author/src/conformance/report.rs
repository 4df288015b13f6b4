//! The result of a run.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_model::PolicyQuestion;
use serde_json::{Value, json};

use super::{SettingMismatch, Violation};
use crate::inspection::thousands;

/// The result of a run. As text for people; see [`json`](ConformanceReport::json) for tools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConformanceReport {
    pub(crate) worlds: u32,
    pub(crate) questions: BTreeMap<&'static str, u64>,
    pub(crate) settings_tried: u32,
    pub(crate) state_bytes_max: usize,
    /// Settings that contradict their schema.
    pub(crate) unfit: Vec<SettingMismatch>,
    /// Violations by kind and question: their number, and the first of each.
    pub violations: BTreeMap<(&'static str, &'static str), (u64, ConformanceFinding, Violation)>,
}

/// A broken rule, with the world that shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConformanceFinding {
    /// The question: `tick`.
    pub(crate) question: &'static str,
    /// Seed of the world, to reproduce it with `--seed` and one world.
    pub(crate) seed: u64,
    /// The setting being tried, if any.
    pub(crate) under: Option<String>,
}

impl ConformanceFinding {
    pub(crate) fn of(
        question: &PolicyQuestion,
        seed: u64,
        under: Option<&str>,
    ) -> ConformanceFinding {
        ConformanceFinding { question: name(question), seed, under: under.map(str::to_owned) }
    }

    /// Before the first question of a world.
    pub(crate) fn before(seed: u64, under: Option<&str>) -> ConformanceFinding {
        ConformanceFinding { question: "catalog", seed, under: under.map(str::to_owned) }
    }
}

impl ConformanceReport {
    /// True if there are no violations; answers that the gateway would reject as guarded do not
    /// count.
    pub fn is_passed(&self) -> bool {
        self.unfit.is_empty()
            && self.violations.values().all(|(.., violation)| violation.is_guarded())
    }

    pub(crate) fn asked(&mut self, question: &PolicyQuestion) {
        *self.questions.entry(name(question)).or_default() += 1;
    }

    pub(crate) fn find(&mut self, finding: ConformanceFinding, violation: Violation) {
        let key = (violation.name(), finding.question);
        self.violations.entry(key).or_insert((0, finding, violation)).0 += 1;
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let violation = |(count, finding, violation): &(u64, ConformanceFinding, Violation)| {
            json!({
                "breach": violation.name(),
                "guarded": violation.is_guarded(),
                "count": count,
                "question": finding.question,
                "seed": finding.seed,
                "under": finding.under,
                "said": violation.to_string(),
            })
        };
        json!({
            "passed": self.is_passed(),
            "worlds": self.worlds,
            "questions": self.questions,
            "settings_tried": self.settings_tried,
            "state_bytes_max": self.state_bytes_max,
            "unfit": self.unfit.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "breaches": self.violations.values().map(violation).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let questions: Vec<String> = self
            .questions
            .iter()
            .map(|(name, count)| format!("{} {name}", thousands(count)))
            .collect();
        write!(
            f,
            "asked in Wasm: {} in {} random worlds, each twice; {} values of settings; largest state {} bytes",
            questions.join(", "),
            self.worlds,
            self.settings_tried,
            self.state_bytes_max
        )?;
        for unfit in &self.unfit {
            write!(f, "\n  wrong    {unfit}")?;
        }
        for (count, ConformanceFinding { question, seed, under }, violation) in
            self.violations.values()
        {
            let word = if violation.is_guarded() { "guarded" } else { "wrong" };
            let said = violation.to_string().replace(|c: char| c.is_control(), " ");
            write!(f, "\n  {word:<8} {question}, {} times: {said}", thousands(count))?;
            let under = under.as_ref().map(|under| format!(", with {under}")).unwrap_or_default();
            write!(f, "\n           first in the world of `--seed {seed} --worlds 1`{under}")?;
        }
        if self.violations.values().any(|(.., violation)| violation.is_guarded()) {
            write!(
                f,
                "\n  What is guarded the gateway does not do; the policy may know better and ask for less."
            )?;
        }
        Ok(())
    }
}

/// The function of the contract: `tick`.
pub(crate) fn name(question: &PolicyQuestion) -> &'static str {
    match question {
        PolicyQuestion::Resolve { .. } => "resolve",
        PolicyQuestion::Admit { .. } => "admit",
        PolicyQuestion::Place { .. } => "place",
        PolicyQuestion::Reroute { .. } => "reroute",
        PolicyQuestion::Tick { .. } => "tick",
    }
}
