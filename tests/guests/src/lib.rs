//! Plugins that mean harm, each with what is to become of it; made here, nothing of them lies on disk.
//!
//! [`hostile`] is the whole list. Tests of the host, of a gateway with calls on it, and whoever measures what an attack
//! costs, all go through the same one.

mod answers;
mod asked;
mod heavy;
mod liars;
mod loops;
mod migrations;
mod module;

pub use asked::questions;
pub use heavy::slow_to_compile;

use evenkeel_core::{Hook, Question};

/// A plugin that means harm.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What it does.
    pub name: String,
    /// The hook it is bound to.
    pub hook: Hook,
    /// Itself.
    pub bytes: Vec<u8>,
    /// The revision that it comes after and that means no harm, where it does harm to what that one leaves behind.
    pub before: Option<Vec<u8>>,
    /// What is to become of it.
    pub expected: Expected,
}

impl Guest {
    /// What it is asked, with what the one before it left behind.
    pub fn questions(&self) -> Vec<Question> {
        let questions = questions(self.hook);
        match self.before {
            Some(_) => questions.into_iter().map(asked::of_older).collect(),
            None => questions,
        }
    }
}

/// What is to become of a plugin that means harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// It never answers; the word for why, as the host has it.
    Refused(&'static str),
    /// It costs one fault each time it is asked; the word for the fault.
    Fault(&'static str),
    /// It is answered for: what is against the rules in its answer is dropped, and the rest is what anybody may say.
    Curbed,
}

/// All of them, each with a name of its own, but for those that only cost time: see [`slow_to_compile`].
pub fn hostile() -> Vec<Guest> {
    [liars::all(), heavy::all(), loops::all(), migrations::all(), answers::all()].concat()
}

/// A guest by its parts.
fn guest(name: impl Into<String>, hook: Hook, bytes: Vec<u8>, expected: Expected) -> Guest {
    Guest { name: name.into(), hook, bytes, before: None, expected }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_every_hook_has_some_that_it_lets_in() {
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
