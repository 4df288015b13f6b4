//! Guests with hostile answers: malformed, oversized, or with extreme values.

use evenkeel_model::Hook;

use crate::module::{ANSWER, Module, SCRATCH, answer, list, long_at, nothing, word_at};
use crate::{Expected, Guest, guest};

/// The largest batch of a question, whatever the number of sessions and rooms.
const ROWS_MAX: u32 = 4_096;

const MALFORMED: Expected = Expected::Fault("malformed");

pub(crate) fn all() -> Vec<Guest> {
    [scenario(), admission(), routing(), degradation(), diagnostics()].concat()
}

/// A guest with these function bodies.
fn body_guest(
    name: &str,
    hook: Hook,
    bodies: &[(&'static str, String)],
    expected: Expected,
) -> Guest {
    let module = Module::honest(hook);
    let with_body = |module: Module, (function, body): &(&'static str, String)| {
        module.body(function, body.clone())
    };
    guest(name, hook, bodies.iter().fold(module, with_body).build(), expected)
}

fn scenario() -> Vec<Guest> {
    let resolve = |name: &str, body: String, expected| {
        body_guest(name, Hook::Scenario, &[("resolve", body)], expected)
    };
    // One parameter: its key and a number.
    let param = |key: (u32, u32), value: u64| {
        let (pointer, length) = key;
        [
            word_at(SCRATCH, pointer),
            word_at(SCRATCH + 4, length),
            long_at(SCRATCH + 8, value),
            list(0, SCRATCH, 1),
        ]
    };
    let spares = [
        long_at(SCRATCH + 64, u64::from_le_bytes(*b"spares\0\0")),
        param((SCRATCH + 64, 6), u64::MAX >> 1).concat(),
    ];
    let not_utf8 = [word_at(SCRATCH + 64, 0xff), param((SCRATCH + 64, 1), 0).concat()];
    vec![
        resolve("parameters outside its memory", answer(&[list(0, u32::MAX - 7, 1)]), MALFORMED),
        resolve("parameters without end", answer(&[list(0, 0, u32::MAX)]), MALFORMED),
        resolve("a million parameters", answer(&[list(0, 65_536, 1_000_000 / 16)]), MALFORMED),
        resolve("a key that is not UTF-8", answer(&not_utf8), MALFORMED),
        resolve("a key of a megabyte", answer(&param((65_536, 1 << 20), 0)), MALFORMED),
        resolve("an answer outside its memory", "(i32.const -16)".to_owned(), MALFORMED),
        resolve("the largest number of spares", answer(&spares), Expected::Curbed),
        resolve("an unknown key", answer(&param((SCRATCH, 0), u64::MAX)), Expected::Curbed),
    ]
}

fn admission() -> Vec<Guest> {
    let admit = |name: &str, verdict: u32, argument: u64, expected| {
        let body = answer(&[
            word_at(ANSWER, verdict),
            long_at(ANSWER + 8, argument),
            word_at(ANSWER + 16, u32::MAX),
        ]);
        body_guest(name, Hook::Admission, &[("admit", body)], expected)
    };
    vec![
        admit("an invalid verdict", 5, 0, MALFORMED),
        admit("a verdict of 255", 255, 0, MALFORMED),
        admit("redirect to region 2^64 - 1", 3, u64::MAX, MALFORMED),
        admit("redirect to an unknown region", 3, u64::from(u32::MAX), Expected::Curbed),
        admit("a cap of 0", 2, 0, Expected::Curbed),
        admit("the largest cap", 2, u64::from(u32::MAX), Expected::Curbed),
        admit("retry after 49 days", 4, u64::from(u32::MAX), Expected::Curbed),
    ]
}

fn routing() -> Vec<Guest> {
    let place = |name: &str, writes: &[String], expected| {
        let reroute = ("reroute", answer(&[list(0, 0, u32::MAX)]));
        body_guest(name, Hook::Routing, &[("place", answer(writes)), reroute], expected)
    };
    let curbed = |name: &str, function, writes: &[String]| {
        body_guest(name, Hook::Routing, &[(function, answer(writes))], Expected::Curbed)
    };
    let fault = |name: &str, writes: &[String]| {
        let bodies = [("place", answer(&[list(0, 0, u32::MAX)])), ("reroute", answer(writes))];
        body_guest(name, Hook::Routing, &bodies, MALFORMED)
    };
    let unknown = [word_at(SCRATCH, u32::MAX), list(0, SCRATCH, 1)];
    let late = [
        word_at(SCRATCH, u32::MAX - 1),
        list(0, SCRATCH, 1),
        word_at(ANSWER + 8, u32::MAX),
        word_at(ANSWER + 12, u32::MAX),
    ];
    // Moves row 2^32 - 1 to node 2^32 - 1.
    let far = [
        word_at(SCRATCH, u32::MAX),
        word_at(SCRATCH + 4, SCRATCH + 64),
        word_at(SCRATCH + 8, 1),
        word_at(SCRATCH + 12, u32::MAX),
        word_at(SCRATCH + 16, u32::MAX),
        word_at(SCRATCH + 64, u32::MAX),
        list(0, SCRATCH, 1),
    ];
    let one_node_often = [word_at(SCRATCH, 0), word_at(SCRATCH + 4, 0), list(0, SCRATCH, 2)];
    vec![
        place("a million hops", &[list(0, 65_536, 250_000)], MALFORMED),
        place("hops outside its memory", &[list(0, 0, u32::MAX)], MALFORMED),
        place("a first state of a megabyte", &[list(16, 65_536, 1 << 20)], MALFORMED),
        place("a first state one byte too long", &[list(16, 65_536, 4_097)], MALFORMED),
        fault("a million moves", &[list(0, 65_536, 1_000_000 / 16)]),
        fault("a state for a row out of range", &retained(ROWS_MAX, &[0, 0])),
        fault("offsets that go back", &retained(0, &[0, 9, 3])),
        curbed("an unknown node", "place", &unknown),
        curbed("a placement of maximum numbers", "place", &late),
        curbed("one node twice", "place", &one_node_often),
        curbed("a move of a row out of range", "reroute", &far),
    ]
}

/// Retained state for one row, with these offsets.
fn retained(row: u32, offsets: &[u32]) -> Vec<String> {
    let offset = |(at, &offset): (u32, &u32)| word_at(SCRATCH + 64 + 4 * at, offset);
    let rows = [word_at(SCRATCH, row), list(8, SCRATCH, 1)];
    let states = [list(16, SCRATCH + 64, offsets.len() as u32), list(24, 65_536, 0)];
    rows.into_iter().chain((0..).zip(offsets).map(offset)).chain(states).collect()
}

fn degradation() -> Vec<Guest> {
    let tick = |name: &str, writes: &[String], expected| {
        body_guest(name, Hook::Degradation, &[("tick", answer(writes))], expected)
    };
    // Row, action, argument, reason.
    let action = |row: u32, op: u32, argument: u64, reason: u32| {
        [
            word_at(SCRATCH, row),
            word_at(SCRATCH + 4, op),
            long_at(SCRATCH + 8, argument),
            word_at(SCRATCH + 16, reason),
            list(0, SCRATCH, 1),
        ]
    };
    let most = u32::MAX;
    let memo = [word_at(ANSWER + 32, 1), list(36, 65_536, (64 << 10) + 1)];
    let foreign = format!(
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) {} {}",
        action(0, 1, 0, 0).concat(),
        "(i64.store (i32.const 4104) (global.get $n)) (i32.const 2048)"
    );
    let hidden = Module::honest(Hook::Degradation)
        .item("(global $n (mut i64) (i64.const 100))")
        .body("tick", foreign);
    let nan =
        "(i64.store (i32.const 4104) (i64.reinterpret_f64 (f64.div (f64.const 0) (f64.const 0))))";
    let mut not_a_number = action(0, 1, 0, 0).to_vec();
    not_a_number.push(nan.to_owned());
    vec![
        tick("a million actions", &[list(0, 65_536, 1_000_000 / 24)], MALFORMED),
        tick("actions outside its memory", &[list(0, most - 23, 1)], MALFORMED),
        tick("a memo one byte too long", &memo, MALFORMED),
        tick("a session's state for a row out of range", &retained(ROWS_MAX, &[0, 0]), MALFORMED),
        tick("a session's offsets that go back", &retained(0, &[0, 9, 3]), MALFORMED),
        tick("an action on a row out of range", &action(most, 1, 300, 1), Expected::Curbed),
        tick("an unknown action", &action(0, most, 1, 1), Expected::Curbed),
        tick("an action without permission", &action(0, 2, 1, 1), Expected::Curbed),
        tick("a cap of 2^64 - 1", &action(0, 1, u64::MAX, most), Expected::Curbed),
        tick("a cap that is not a number", &not_a_number, Expected::Curbed),
        guest("hidden state", Hook::Degradation, hidden.build(), Expected::Curbed),
    ]
}

/// Guests with hostile log lines, notes and errors.
fn diagnostics() -> Vec<Guest> {
    let diagnostic = |name: &str, call: &str, expected| {
        let body = format!("{call} {}", nothing());
        body_guest(name, Hook::Degradation, &[("tick", body)], expected)
    };
    let log = |level: u32, pointer: u32, length: u32| {
        format!(
            "(call $log (i32.const {level}) (i32.const {}) (i32.const {length}))",
            pointer as i32
        )
    };
    let note = |row: u32, length: u32, value: i64| {
        let row = row as i32;
        format!(
            "(call $note (i32.const {row}) (i32.const 65536) (i32.const {length}) (i64.const {value}))"
        )
    };
    let error = |body: String| {
        Module::honest(Hook::Routing).body("init", format!("{body} (i32.const {ANSWER})")).build()
    };
    let no = word_at(ANSWER, 1);
    let long = error(format!("{no} {}", list(4, 65_536, 1 << 20)));
    let outside = error(format!("{no} {}", list(4, 0, u32::MAX)));
    let neither = error(word_at(ANSWER, 7));
    let refused =
        |name: &str, bytes| guest(name, Hook::Routing, bytes, Expected::Refused("malformed"));
    vec![
        diagnostic("a line of a megabyte", &log(2, 65_536, 1 << 20), MALFORMED),
        diagnostic("a line outside its memory", &log(2, u32::MAX - 3, 8), MALFORMED),
        diagnostic(
            "a line of 60 KB with an invalid level",
            &log(u32::MAX, 65_536, 60_000),
            Expected::Curbed,
        ),
        diagnostic("a key of a note of a megabyte", &note(0, 1 << 20, 0), MALFORMED),
        diagnostic(
            "a note on a row out of range",
            &note(u32::MAX, 60_000, i64::MIN),
            Expected::Curbed,
        ),
        refused("a settings error of a megabyte", long),
        refused("a settings error outside its memory", outside),
        refused("an invalid result of init", neither),
    ]
}
