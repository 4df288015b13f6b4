use evenkeel_guests::module::{FREE_ARGUMENTS, Module, answer};
use evenkeel_host::{Component, Engine};
use evenkeel_model::{Hook, Measures, RoomId, Row, SessionRow};
use serde_json::json;

use super::*;

/// A scenario plugin that counts its calls in `$asked`, and then runs this code.
fn counting(code: &str) -> BoundPlugin {
    let count = "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))".to_owned();
    let module = Module::honest(Hook::Scenario)
        .item("(global $asked (mut i32) (i32.const 0))")
        .body("resolve", answer(&[count, code.to_owned()]));
    installed(Hook::Scenario, &module)
}

fn installed(hook: Hook, module: &Module) -> BoundPlugin {
    let engine = Engine::new();
    let component = Component::vet(&engine, &module.build()).unwrap();
    BoundPlugin::install(&engine, &component, hook, json!({}), Vec::new(), 7).unwrap()
}

fn questions() -> Vec<AskedQuestion> {
    let question =
        |scenario: &str| PolicyQuestion::Resolve { scenario: scenario.into(), labels: [].into() };
    ["call", "stream"].map(|scenario| (Arc::new(question(scenario)), 5)).into()
}

fn repeated(code: &str) -> Result<(), ProofFailure> {
    repeat(&counting(code), &questions(), Duration::MAX)
}

/// Runs code in each call whose number divides by this one.
fn each(number: u32, code: &str) -> String {
    format!("(if (i32.eqz (i32.rem_u (global.get $asked) (i32.const {number}))) (then {code}))")
}

#[test]
fn sound_plugin_passes() {
    repeated("").unwrap();
    repeat(&counting(""), &[], Duration::MAX).unwrap();
    replay(&mut counting(""), &questions()).unwrap();
}

#[test]
fn trap_in_a_later_call_is_found() {
    let failure = repeated(&each(61, "unreachable")).unwrap_err();
    assert!(matches!(failure, ProofFailure::Repeated { call: 61, .. }), "{failure}");
    assert_eq!(failure.code(), "proof-failed");
    let failure = replay(&mut counting(&each(2, "unreachable")), &questions()).unwrap_err();
    assert!(matches!(failure, ProofFailure::Replay { questions: 2, .. }), "{failure}");
}

#[test]
fn hidden_counter_is_found() {
    let note = "(call $note (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 7))";
    let failure = repeated(&each(300, note)).unwrap_err();
    let right = matches!(failure, ProofFailure::HiddenState { call: 300, differs: "its notes" });
    assert!(right, "{failure}");
}

#[test]
fn leak_is_found_and_growth_at_first_is_not() {
    let grow = "(drop (memory.grow (i32.const 1)))";
    let failure = repeated(&each(8, grow)).unwrap_err();
    assert!(matches!(failure, ProofFailure::Leaks { .. }), "{failure}");
    let at_first = format!("(if (i32.lt_u (global.get $asked) (i32.const 100)) (then {grow}))");
    repeated(&at_first).unwrap();
}

/// A fresh instance would answer the question.
#[test]
fn leak_of_all_memory_is_found() {
    let leak = "(if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))";
    let failure = repeated(leak).unwrap_err();
    let said = "`resolve` wanted more than 16 MiB of memory";
    assert!(failure.to_string().ends_with(said), "{failure}");
}

/// The gateway asks such a plugin in smaller batches.
#[test]
fn batch_beyond_the_memory_is_no_fault() {
    let body = format!(
        "{FREE_ARGUMENTS}
        (if (i32.gt_u (local.get 2) (i32.const 2)) (then
            (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            unreachable))
        (i32.const 3072)"
    );
    let module = Module::honest(Hook::Degradation).reading_arguments().body("tick", body);
    let row = |id| SessionRow {
        row: Row { id, measures: Measures::default() },
        room: RoomId(1),
        scenario: "call".into(),
        labels: [].into(),
        state: None,
    };
    let question = PolicyQuestion::Tick { sessions: (1..=4).map(row).collect(), memo: None };
    let questions = [(Arc::new(question), 5)];
    repeat(&installed(Hook::Degradation, &module), &questions, Duration::MAX).unwrap();
}

#[test]
fn loop_is_named() {
    let failure = repeated(&each(20, "(loop $on (br $on))")).unwrap_err();
    let said = "in call 20 of an instance that answers the same questions in turn, `resolve` did not return within 2 ms; is there an endless loop?";
    assert_eq!(failure.to_string(), said);
}
