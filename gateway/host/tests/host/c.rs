//! A policy in C: the contract is not Rust's.

use std::path::Path;
use std::process::Command;

use evenkeel_core::{
    Action, Answer, Hook, Measures, Metric, Note, Question, RoomId, Row, SessionRow,
};
use evenkeel_host::{Component, Policy};
use serde_json::json;

use crate::contract::sdk;
use crate::plugin::roomy;

/// What `tests/interop` says where real clients must be there: then so must a compiler for C.
const REQUIRED: &str = "EVENKEEL_CLIENTS";

/// Compiles a policy in C, all its warnings errors; `None` where there is no compiler for it.
pub(crate) fn compile(source: &Path, optimise: &str) -> Option<Vec<u8>> {
    if !has("clang") || !has("wasm-ld") {
        return None;
    }
    let out =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.with_extension("wasm").file_name()?);
    let clang = Command::new("clang")
        .args(["--target=wasm32", "-ffreestanding", "-nostdlib", optimise, "-std=c11"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wl,--no-entry", "-Wl,--strip-all", "-o"])
        .arg(&out)
        .arg(source.file_name()?)
        .current_dir(source.parent()?)
        .status();
    assert!(clang.unwrap().success(), "{} compiles", source.display());
    Some(std::fs::read(out).unwrap())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The policy that `plugin-sdk/c` shows, or none with a line that says so.
fn calm(test: &str, optimise: &str) -> Option<Component> {
    let Some(module) = compile(&sdk().join("c/calm.c"), optimise) else {
        assert!(
            std::env::var(REQUIRED).is_err(),
            "{test}: clang and wasm-ld are required: `make clients`"
        );
        println!(
            "skipped: {test}: clang and wasm-ld are not installed; `make clients` installs them"
        );
        return None;
    };
    Some(Component::vet(roomy(), &module).unwrap())
}

fn tick(policy: &mut Policy, rows: &mut [SessionRow]) -> (Vec<Action>, Vec<Note>) {
    let question = Question::Tick { sessions: rows.to_vec(), memo: None };
    let answered = policy.ask(&question, 0).unwrap();
    let Answer::Actions { actions, states, memo } = answered.answer else { panic!() };
    assert_eq!(memo, None);
    for (row, state) in states {
        rows[row as usize].state = Some(state);
    }
    (actions, answered.notes)
}

fn session(id: u64, jitter_us: Option<u64>, cap_kbps: u64) -> SessionRow {
    let mut measures = Measures::default();
    measures.set(Metric::Cap, cap_kbps);
    if let Some(jitter) = jitter_us {
        measures.set(Metric::JitterUp, jitter);
    }
    let (room, labels) = (RoomId(id), [].into());
    SessionRow { row: Row { id, measures }, room, scenario: "call".into(), labels, state: None }
}

#[test]
fn a_policy_in_c_decides_as_its_source_says() {
    let Some(component) = calm("a_policy_in_c_decides_as_its_source_says", "-O2") else { return };
    assert_eq!(&*component.manifest().name, "calm-c");
    let install =
        |settings| Policy::install(roomy(), &component, Hook::Degradation, settings, vec![], 1);
    let refused = install(json!({"jitter": 0})).err().unwrap().to_string();
    assert_eq!(refused, "setting `$.jitter` should be at least 1, found 0");

    let mut policy = install(json!({"jitter": 25})).unwrap();
    let mut rows = [
        session(1, Some(25_000), 0),
        session(2, Some(24_999), 0),
        session(3, None, 0),
        session(4, Some(1), 300),
    ];
    let calm = Action { row: 3, op: 1, arg: 0, reason: 2 };
    assert_eq!(tick(&mut policy, &mut rows).0, [calm]);
    rows[3] = session(4, Some(1), 0);
    assert_eq!(tick(&mut policy, &mut rows).0, []);
    let (actions, notes) = tick(&mut policy, &mut rows);
    assert_eq!(actions, [Action { row: 0, op: 1, arg: 300, reason: 1 }]);
    assert_eq!(notes, [Note { row: 0, key: "jitter_us".into(), value: 25_000 }]);
    assert_eq!(
        &*rows[0].state.as_ref().unwrap().bytes,
        [3],
        "three ticks, and no more are counted"
    );
}

#[test]
fn a_policy_in_c_answers_for_thousands_of_sessions_in_its_memory() {
    let test = "a_policy_in_c_answers_for_thousands_of_sessions_in_its_memory";
    // As a debugger wants it: nothing depends on the optimiser.
    let Some(component) = calm(test, "-O0") else { return };
    let settings = json!({});
    let mut policy =
        Policy::install(roomy(), &component, Hook::Degradation, settings, vec![], 1).unwrap();
    let mut rows: Vec<_> = (0..4096).map(|id| session(id, Some(40_000), 0)).collect();
    for _ in 0..2 {
        assert!(tick(&mut policy, &mut rows).0.is_empty());
    }
    let (actions, notes) = tick(&mut policy, &mut rows);
    assert!((0..4096).eq(actions.iter().map(|action| action.row)));
    assert_eq!(notes.len(), 256, "a few explanations are enough");
    for _ in 0..50 {
        tick(&mut policy, &mut rows);
    }
}

#[test]
fn a_policy_in_c_refuses_states_of_a_form_that_it_never_had() {
    let Some(component) = calm("a_policy_in_c_refuses_states_of_a_form_that_it_never_had", "-O2")
    else {
        return;
    };
    let settings = json!({});
    let mut policy =
        Policy::install(roomy(), &component, Hook::Degradation, settings, vec![], 1).unwrap();
    let mut row = session(1, None, 0);
    row.state = Some(evenkeel_core::State { plugin: "calm-c".into(), schema: 0, bytes: [].into() });
    let fault = policy.ask(&Question::Tick { sessions: vec![row], memo: None }, 0).unwrap_err();
    assert!(fault.to_string().contains("cannot be read by this revision"), "{fault}");
}
