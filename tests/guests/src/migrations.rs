//! Guests that migrate the state of the revision before them wrongly.

use evenkeel_model::Hook;
use serde_json::json;

use crate::module::{ANSWER, Module, SCHEMA, SCRATCH, ZEROES, answer, list, word_at};
use crate::{Expected, Guest, guest};

const LOOP: &str = "(loop $again br $again) unreachable";

/// One byte above the limits of a state (4 KiB) and of a memo (64 KiB).
const STATE: u32 = (4 << 10) + 1;
const MEMO: u32 = (64 << 10) + 1;

pub(crate) fn all() -> Vec<Guest> {
    let malformed = Expected::Fault("malformed");
    // The third parameter is the number of offsets, one more than states.
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
        after("one migrated state too few", "migrate", answer(&too_few), malformed),
        after("a migrated state one byte too long", "migrate", answer(&too_long), malformed),
        after("a migrated memo one byte too long", "migrate-memo", answer(&long_memo), malformed),
    ]
}

/// A guest that follows [`before`] and has this function body. It keeps no memo itself.
fn after(name: &str, function: &'static str, body: String, expected: Expected) -> Guest {
    let module =
        keeping_memo(0).manifest_key("state_schema", json!(SCHEMA + 1)).body(function, body);
    let guest = guest(name, Hook::Degradation, module.build(), expected);
    Guest { before: Some(before()), ..guest }
}

/// The predecessor: it keeps a memo, and states without bytes.
fn before() -> Vec<u8> {
    keeping_memo(1).build()
}

/// A module that only keeps a memo of this length.
fn keeping_memo(bytes: u32) -> Module {
    let nothing = [list(0, 0, 0), list(8, 0, 0), list(16, 0, 0), list(24, 0, 0)].concat();
    let memo = [nothing, word_at(ANSWER + 32, 1), list(36, ZEROES, bytes)];
    Module::honest(Hook::Degradation).body("tick", answer(&memo))
}
