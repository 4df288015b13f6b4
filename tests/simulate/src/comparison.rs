//! What if another plugin had answered: the same world twice, with what came of it side by side.

use std::fmt;

use evenkeel_core::{Hook, PolicyName};
use serde_json::Value;

use crate::outcome::{Outcome, Spread};
use crate::policies::Library;
use crate::script::Script;
use crate::world::World;

/// A policy that is to be answered by another plugin, or with other settings.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Which.
    pub policy: PolicyName,
    /// The plugin's bytes; `None`: the one that ships.
    pub plugin: Option<Vec<u8>>,
    /// Its settings; `None`: those that ship where it is the plugin that ships, else its own defaults.
    pub settings: Option<Value>,
}

/// The name of a policy: `call/routing`.
///
/// # Errors
/// What was found, and what would be right.
pub fn policy_name(text: &str) -> Result<PolicyName, String> {
    let parts = text.split_once('/');
    let found = parts.and_then(|(set, hook)| {
        let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
        Some(PolicyName { set: set.into(), hook })
    });
    found.ok_or_else(|| format!("found {text:?}, expected <set>/<hook>, such as call/routing"))
}

/// One world as it ships, and the same one changed. What clients do, what breaks and how links behave is the same in both;
/// what follows from decisions is not.
#[derive(Clone, PartialEq, Debug)]
pub struct WhatIf {
    /// As it ships.
    pub before: Outcome,
    /// With the changes.
    pub after: Outcome,
}

impl WhatIf {
    /// Plays the world of this seed twice.
    ///
    /// # Errors
    /// Why a plugin does not run where it is to.
    pub fn play(seed: u64, changes: Vec<Change>) -> Result<WhatIf, String> {
        let mut library = Library::new();
        let before = World::new(Script::from_seed(seed), &library).play();
        for Change { policy, plugin, settings } in changes {
            library.replace(&policy, plugin.as_deref(), settings)?;
        }
        let after = World::new(Script::from_seed(seed), &library).play();
        Ok(WhatIf { before, after })
    }
}

/// A line of the comparison: what, and how to read it off.
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
    ("promises broken", |outcome| outcome.violations.len() as f64),
];

fn gaps(outcome: &Outcome) -> Spread {
    let all: Vec<_> = outcome.gaps.values().flatten().copied().collect();
    Spread::of(&all)
}

impl fmt::Display for WhatIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>12} {:>12} {:>12}", "", "as it ships", "changed", "difference")?;
        for (what, of) in LINES {
            let (before, after) = (of(&self.before), of(&self.after));
            writeln!(f, "{what:<24} {before:>12} {after:>12} {:>+12}", round(after - before))?;
        }
        write!(f, "moves by cause: {:?}; changed: {:?}", self.before.moves, self.after.moves)
    }
}

/// To a hundredth, as times are.
fn round(difference: f64) -> f64 {
    (difference * 100.0).round() / 100.0
}
