//! Hostile plugins, generated in memory, each with the outcome that is expected.
//!
//! [`hostile`] lists them for the tests of the host and of a gateway with calls, and for the benchmark of their cost.

mod answers;
mod asked;
mod heavy;
mod liars;
mod loops;
mod migrations;
pub mod module;

pub use asked::questions;
use evenkeel_model::{Hook, PolicyQuestion};
pub use heavy::slow_to_compile;

#[derive(Clone, Debug)]
pub struct Guest {
    pub name: String,
    pub hook: Hook,
    pub bytes: Vec<u8>,
    /// The harmless predecessor, if the guest attacks the predecessor's state.
    pub before: Option<Vec<u8>>,
    pub expected: Expected,
}

impl Guest {
    /// The questions for this guest, with the state of its predecessor.
    pub fn questions(&self) -> Vec<PolicyQuestion> {
        let questions = questions(self.hook);
        match self.before {
            Some(_) => questions.into_iter().map(asked::of_older).collect(),
            None => questions,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The host refuses the guest with this error code.
    Refused(&'static str),
    /// Each question ends with the fault of this name.
    Fault(&'static str),
    /// The gateway uses the guest's answer without the parts that break the rules.
    Curbed,
}

/// Returns true if a refusal names the fault of this name. A guest that exhausts something may reach its deadline first.
pub fn names_fault(reason: &str, fault: &str) -> bool {
    let late = "did not return within";
    let words = match fault {
        "deadline" => late,
        "out-of-memory" => "wanted more than",
        _ => "the plugin failed in",
    };
    reason.contains(words) || fault != "malformed" && reason.contains(late)
}

/// All hostile plugins with unique names, except [`slow_to_compile`], which only costs time.
pub fn hostile() -> Vec<Guest> {
    [liars::all(), heavy::all(), loops::all(), migrations::all(), answers::all()].concat()
}

fn guest(name: impl Into<String>, hook: Hook, bytes: Vec<u8>, expected: Expected) -> Guest {
    Guest { name: name.into(), hook, bytes, before: None, expected }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn guests_have_unique_names_and_cover_all_hooks() {
        let all = hostile();
        let names: BTreeSet<_> = all.iter().map(|guest| &guest.name).collect();
        assert_eq!(names.len(), all.len());
        for hook in Hook::ALL {
            let asked = all.iter().filter(|guest| guest.hook == hook);
            assert!(
                asked.filter(|guest| matches!(guest.expected, Expected::Fault(_))).count() >= 6
            );
        }
    }
}
