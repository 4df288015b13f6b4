//! Those that do harm to what the revision before them left behind: they ask for it to be rewritten, and lie.

use evenkeel_core::Hook;
use serde_json::json;

use crate::module::{ANSWER, Module, SCHEMA, SCRATCH, ZEROES, answer, list, word_at};
use crate::{Expected, Guest, guest};

const LOOP: &str = "(loop $again br $again) unreachable";

/// The longest state (4 KiB) and the longest memo (64 KiB), and a byte.
const STATE: u32 = (4 << 10) + 1;
const MEMO: u32 = (64 << 10) + 1;

pub(crate) fn all() -> Vec<Guest> {
    let malformed = Expected::Fault("malformed");
    // How many offsets it was given, one more than states, is the third parameter.
    let offsets = format!("(i32.store (i32.const {}) (local.get 2))", ANSWER + 8);
    let fewer =
        format!("(i32.store (i32.const {}) (i32.sub (local.get 2) (i32.const 1)))", ANSWER + 8);
    let last = format!(
        "(i32.store (i32.add (i32.const {}) (i32.mul (local.get 2) (i32.const 4))) (i32.const {STATE}))",
        SCRATCH - 4
    );
    let too_few = [word_at(ANSWER, 0), word_at(ANSWER + 4, ZEROES), fewer, list(12, ZEROES, 0)];
    let too_long =
        [word_at(ANSWER, 0), last, word_at(ANSWER + 4, SCRATCH), offsets, list(12, ZEROES, STATE)];
    let long_memo = [word_at(ANSWER, 0), list(4, ZEROES, MEMO)];
    vec![
        after("endless-loop in migrate", "migrate", LOOP.into(), Expected::Fault("deadline")),
        after(
            "endless-loop in migrate-memo",
            "migrate-memo",
            LOOP.into(),
            Expected::Fault("deadline"),
        ),
        after("a state too few of those it migrated", "migrate", answer(&too_few), malformed),
        after("a migrated state of a byte too many", "migrate", answer(&too_long), malformed),
        after("a migrated memo of a byte too many", "migrate-memo", answer(&long_memo), malformed),
    ]
}

/// One that does this with what [`before`] left behind. It leaves no memo itself, as if there had been none.
fn after(name: &str, function: &'static str, body: String, expected: Expected) -> Guest {
    let module = remembering(0).saying("state_schema", json!(SCHEMA + 1)).doing(function, body);
    let guest = guest(name, Hook::Degradation, module.build(), expected);
    Guest { before: Some(before()), ..guest }
}

/// The revision before: it keeps a memo, and states without bytes.
fn before() -> Vec<u8> {
    remembering(1).build()
}

/// One that does nothing but to leave a memo of so many bytes.
fn remembering(bytes: u32) -> Module {
    let nothing = [list(0, 0, 0), list(8, 0, 0), list(16, 0, 0), list(24, 0, 0)].concat();
    let memo = [nothing, word_at(ANSWER + 32, 1), list(36, ZEROES, bytes)];
    Module::honest(Hook::Degradation).doing("tick", answer(&memo))
}
