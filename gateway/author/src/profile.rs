//! Profile of a plugin: the functions in which it spends its time.
//!
//! A sampler notes the stack of the plugin each millisecond while it answers the questions of cases, or those of
//! [`measure`](crate::measure::measure).

mod flames;
pub(crate) mod question;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use evenkeel_host::{BoundPlugin, Component, Engine, PluginRefusal};
use serde_json::{Value, json};

use self::question::ProfiledQuestion;
use crate::built::BuiltPlugin;
use crate::case::{Case, CaseRunner};
use crate::failed::AuthorError;
use crate::measure::usual_questions;

/// Functions shown as text; JSON has all.
const FUNCTIONS_SHOWN: usize = 20;

/// The longest time for the samples. A plugin may be so short that the sampler rarely meets it.
const AT_MOST: Duration = Duration::from_secs(60);

/// Questions between two looks at the clock.
const ROUNDS: usize = 64;

/// The functions of a plugin by the time spent in them. As text for people; see [`json`](ProfileReport::json) for tools.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProfileReport {
    /// Call stacks, the outermost function first, and in how many samples each was seen.
    stacks: BTreeMap<Vec<String>, u64>,
}

/// Samples a plugin until there are so many samples. It answers the questions of the cases, or usual ones if there are none.
///
/// # Errors
/// A case does not fit the plugin, the plugin refuses the settings, or it runs past a budget of the gateway.
pub fn profile(
    built: &BuiltPlugin,
    cases: &[Case],
    settings: &Value,
    samples: u64,
) -> Result<ProfileReport, AuthorError> {
    // Each question is asked once by an engine that stops endless loops.
    let questions = match cases {
        [] => usual_questions(built, settings)?,
        cases => questions_of(built, cases, settings)?,
    };
    let (engine, seen) = Engine::sampling();
    let component = Component::vet(&engine, &built.bytes)?;
    let mut asked = Vec::new();
    for ProfiledQuestion { question, catalog, now_us, settings } in questions {
        let settings: Value = serde_json::from_str(&settings).unwrap_or_default();
        let inputs = built.inputs(&settings);
        let hook = question.hook();
        let policy = BoundPlugin::install(&engine, &component, hook, inputs, catalog, 1)?;
        asked.push((policy, question, now_us));
    }
    let began = Instant::now();
    while !asked.is_empty() && seen.count() < samples && began.elapsed() < AT_MOST {
        for (policy, question, now_us) in &mut asked {
            for _ in 0..ROUNDS {
                if let Err(fault) = policy.ask(question, *now_us) {
                    return Err(PluginRefusal::Faulted { call: policy.calling(), fault }.into());
                }
            }
        }
    }
    let mut report = ProfileReport::default();
    for (stack, count) in seen.stacks() {
        let plain = stack.iter().map(|name| format!("{:#}", rustc_demangle::demangle(name)));
        *report.stacks.entry(plain.collect()).or_default() += count;
    }
    Ok(report)
}

/// The questions of cases that the plugin answers without a failure.
fn questions_of(
    built: &BuiltPlugin,
    cases: &[Case],
    settings: &Value,
) -> Result<Vec<ProfiledQuestion>, AuthorError> {
    let mut questions = Vec::new();
    let mut respondent = CaseRunner::new(&built.engine, &built.component, built.inputs(settings));
    for case in cases {
        case.ask(&mut respondent, |policy, answer| {
            questions.extend(answer.into_profiled(policy.settings()));
            Ok(())
        })?;
    }
    Ok(questions)
}

impl ProfileReport {
    fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// By function: samples in it, and samples in it or in functions that it called.
    fn functions(&self) -> BTreeMap<&str, (u64, u64)> {
        let mut functions: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (stack, count) in &self.stacks {
            if let Some(innermost) = stack.last() {
                functions.entry(innermost).or_default().0 += count;
            }
            // A function that calls itself counts once.
            for name in stack.iter().collect::<BTreeSet<_>>() {
                functions.entry(name).or_default().1 += count;
            }
        }
        functions
    }

    /// Stacks in the form of other tools for flame graphs: functions separated by semicolons, and a count, per line.
    pub fn folded(&self) -> String {
        let line = |(stack, count): (&Vec<String>, &u64)| {
            let plain: Vec<String> =
                stack.iter().map(|name| name.replace([';', '\n'], " ")).collect();
            format!("{} {count}\n", plain.join(";"))
        };
        self.stacks.iter().map(line).collect()
    }

    /// A flame graph in SVG: callers below, width by time.
    pub fn flame_graph(&self) -> String {
        flames::draw(&self.stacks)
    }

    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let function = |(name, (own, total)): (&str, (u64, u64))| json!({"name": name, "own": own, "total": total});
        let stack =
            |(stack, samples): (&Vec<String>, &u64)| json!({"stack": stack, "samples": samples});
        json!({
            "samples": self.samples(),
            "functions": self.functions().into_iter().map(function).collect::<Vec<_>>(),
            "stacks": self.stacks.iter().map(stack).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for ProfileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = self.samples();
        write!(
            f,
            "{samples} samples, one per millisecond in the plugin\n  own %  total %  function"
        )?;
        let mut functions: Vec<_> = self.functions().into_iter().collect();
        functions.sort_by_key(|(_, (own, total))| std::cmp::Reverse((*own, *total)));
        let percent = |count: u64| 100.0 * count as f64 / samples.max(1) as f64;
        for (name, (own, total)) in functions.into_iter().take(FUNCTIONS_SHOWN) {
            write!(f, "\n  {:>5.1}  {:>7.1}  {name}", percent(own), percent(total))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
