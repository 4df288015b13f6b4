//! Compares a seed with shipped policies and with changed ones.

use std::fmt;

use evenkeel_model::{Hook, PolicyName};
use serde_json::Value;

use crate::outcome::{Outcome, Spread};
use crate::policies::Library;
use crate::script::Script;
use crate::world::World;

#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    pub policy: PolicyName,
    /// The plugin's bytes; `None` is the shipped plugin.
    pub plugin: Option<Vec<u8>>,
    /// The settings; `None` is the shipped settings for the shipped plugin, otherwise the plugin's defaults.
    pub settings: Option<Value>,
}

/// Parses a policy name such as `call/routing`.
///
/// # Errors
/// The text is not a policy name; the error contains the found and the expected text.
pub fn policy_name(text: &str) -> Result<PolicyName, String> {
    let parts = text.split_once('/');
    let found = parts.and_then(|(set, hook)| {
        let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
        Some(PolicyName { set: set.into(), hook })
    });
    found.ok_or_else(|| format!("found {text:?}, expected <set>/<hook>, such as call/routing"))
}

/// Two outcomes of one seed. Clients, faults and links are equal; effects of decisions differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    pub before: Outcome,
    pub after: Outcome,
}

impl Comparison {
    /// Plays the seed twice.
    ///
    /// # Errors
    /// A plugin does not run.
    pub fn play(seed: u64, changes: Vec<Change>) -> Result<Comparison, String> {
        let mut library = Library::new();
        let before = World::new(Script::from_seed(seed), &library).play();
        for Change { policy, plugin, settings } in changes {
            library.replace(&policy, plugin.as_deref(), settings)?;
        }
        let after = World::new(Script::from_seed(seed), &library).play();
        Ok(Comparison { before, after })
    }
}

/// The label of a line and its value.
type Line = (&'static str, fn(&Outcome) -> f64);

const LINES: [Line; 13] = [
    ("sessions admitted", |outcome| outcome.admitted as f64),
    ("offers refused", |outcome| outcome.refused as f64),
    ("packets sent", |outcome| outcome.packets as f64),
    ("packets delivered", |outcome| outcome.delivered as f64),
    ("packets without a hop", |outcome| outcome.dropped as f64),
    ("lost at faults", |outcome| outcome.lost.values().sum::<u64>() as f64),
    ("gaps noticed", |outcome| outcome.noticed as f64),
    ("gap p50, ms", |outcome| gaps(outcome).p50),
    ("gap p99, ms", |outcome| gaps(outcome).p99),
    ("longest gap, ms", |outcome| gaps(outcome).max),
    ("moves of sessions", |outcome| outcome.session_moves as f64),
    ("most moves in a minute", |outcome| outcome.worst_minute() as f64),
    ("violations", |outcome| outcome.violations.len() as f64),
];

fn gaps(outcome: &Outcome) -> Spread {
    let all: Vec<_> = outcome.gaps.values().flatten().copied().collect();
    Spread::of(&all)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>12} {:>12} {:>12}", "", "shipped", "changed", "difference")?;
        for (what, of) in LINES {
            let (before, after) = (of(&self.before), of(&self.after));
            writeln!(f, "{what:<24} {before:>12} {after:>12} {:>+12}", round(after - before))?;
        }
        write!(f, "moves by cause: {:?}; changed: {:?}", self.before.moves, self.after.moves)
    }
}

/// Rounds to hundredths, like times.
fn round(difference: f64) -> f64 {
    (difference * 100.0).round() / 100.0
}
