//! A plugin answers recorded questions of `degrade-ladder` and is checked against the contract and
//! its declared costs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_author::BuiltPlugin;
use evenkeel_author::case::{self, Case, CaseSubject, case_of};
use evenkeel_author::recorded::Recorded;
use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginFile, shipped};
use evenkeel_model::{
    AskId, Hook, HookAnswer, Measures, Metric, PluginState, PolicyName, PolicyQuestion, RoomId,
    Row, SessionId, SessionRow,
};
use evenkeel_recording::{RecordedCall, RecordedCatalog, RecordedGrant, RecordedRevision};
use serde_json::{Value, json};

fn bytes(name: &str) -> Vec<u8> {
    shipped().iter().find(|plugin| plugin.name == name).unwrap().bytes.to_vec()
}

/// The plugin with `cost` in its manifest.
fn promising(name: &str, cost: &Value) -> BuiltPlugin {
    const SECTION: &[u8] = b"\x11evenkeel:manifest";
    let module = bytes(name);
    let mut manifest: Value =
        serde_json::from_slice(&PluginFile::parse(&module).manifest.unwrap()).unwrap();
    manifest["cost"] = cost.clone();
    let (mut promising, mut at) = (module[..8].to_vec(), 8);
    while at < module.len() {
        let (size, digits) = unleb(&module[at + 1..]);
        let end = at + 1 + digits + size;
        if !(module[at] == 0 && module[at + 1 + digits..].starts_with(SECTION)) {
            promising.extend(&module[at..end]);
        }
        at = end;
    }
    let content = [SECTION, manifest.to_string().as_bytes()].concat();
    promising.push(0);
    promising.extend(leb(content.len()));
    promising.extend(content);
    BuiltPlugin::from_bytes(promising).unwrap()
}

/// A LEB128 number, and its length.
fn unleb(bytes: &[u8]) -> (usize, usize) {
    let digits = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value =
        bytes[..digits].iter().rev().fold(0, |value, byte| (value << 7) | usize::from(byte & 0x7f));
    (value, digits)
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Questions to a shipped plugin with its answers, for 40 sessions of which every third has high
/// loss.
fn ticks(turns: u64) -> Vec<RecordedCall> {
    let engine = Engine::with_budgets(CallBudgets::default());
    let component = Component::vet(&engine, &bytes("degrade-ladder")).unwrap();
    let hook = Hook::Degradation;
    let mut policy =
        BoundPlugin::install(&engine, &component, hook, Value::Null, vec![], 5).unwrap();
    let manifest = component.manifest();
    let revision = Arc::new(RecordedRevision {
        policy: PolicyName { set: "call".into(), hook },
        revision: policy.revision().into(),
        plugin: manifest.name.clone(),
        version: manifest.version.clone(),
        digest: *component.digest(),
        settings: policy.settings().into(),
        seed: 5,
        grant: RecordedGrant {
            subject_metrics: manifest.subject_metrics.clone(),
            node_metrics: manifest.node_metrics.clone(),
            ops: manifest.ops.clone(),
        },
        documents: Vec::new(),
        redacted: false,
    });
    let catalog = Arc::new(RecordedCatalog::default());
    let (mut states, mut memo): (BTreeMap<u32, PluginState>, Option<PluginState>) =
        (BTreeMap::new(), None);
    let call = |turn: u64| {
        let sessions = (0..40).map(|id| {
            let mut measures = Measures::default();
            let loss = if id % 3 == 0 { 90_000 } else { 900 };
            measures
                .set(Metric::LossUp, loss)
                .set(Metric::LossDown, loss)
                .set(Metric::BitrateUp, 900)
                .set(Metric::Age, turn * 200)
                .set(Metric::Video, 1)
                .set(Metric::Floor, 24)
                .set(Metric::Ceiling, 2_000);
            let state = states.get(&id).cloned();
            let row = Row { id: id.into(), measures };
            let (room, scenario, labels) = (RoomId(id.into()), "call".into(), Arc::new([]));
            SessionRow { row, room, scenario, labels, state }
        });
        let question = PolicyQuestion::Tick { sessions: sessions.collect(), memo: memo.clone() };
        let now_us = 1_000_000 + turn * 200_000;
        let result = policy.ask(&question, now_us);
        let HookAnswer::Actions { states: new, memo: newer, .. } = &result.as_ref().unwrap().answer
        else {
            panic!("{result:?}")
        };
        states.extend(new.iter().cloned());
        memo = newer.clone().or(memo.take());
        let (revision, catalog) = (Arc::clone(&revision), Arc::clone(&catalog));
        let (ask, question) = (AskId(turn), Arc::new(question));
        RecordedCall { revision, catalog, ask, now_us, question, result, redacted: false }
    };
    (0..turns).map(call).collect()
}

fn asked(built: &BuiltPlugin, calls: &[RecordedCall]) -> Recorded {
    let mut recorded = Recorded::new(built, None).unwrap();
    for call in calls {
        assert!(recorded.ask(call).unwrap().is_some());
    }
    recorded
}

#[test]
fn recorded_plugin_repeats_its_answers() {
    let calls = ticks(6);
    let mut recorded =
        Recorded::new(&BuiltPlugin::from_bytes(bytes("degrade-ladder")).unwrap(), None).unwrap();
    for call in &calls {
        let again = recorded.ask(call).unwrap().unwrap().unwrap();
        assert_eq!(again.answer, call.result.as_ref().unwrap().answer);
    }
    let report = recorded.report;
    assert!(report.violations.is_empty() && report.unmeasured.is_empty(), "{report}");
    assert_eq!((report.calls, report.judged, report.policies.len()), (6, 0, 1));
}

#[test]
fn costs_are_checked_if_all_rows_are_known() {
    let calls = ticks(6);
    let generous = json!({"tick": {"call": 1_000_000, "row": 100_000}});
    let report = asked(&promising("degrade-ladder", &generous), &calls).report;
    let (judged, asked_in_all) = (report.judged, report.calls);
    assert!(report.is_passed(), "{report}");
    assert!(judged > 0 && judged < asked_in_all, "{judged}: all rows of the first are new");

    let mean = json!({"tick": {"call": 1, "row": 1}});
    let report = asked(&promising("degrade-ladder", &mean), &calls).report;
    assert!(!report.is_passed());
    let (count, _, exceeded) = &report.exceeded["tick"];
    assert_eq!(*count, judged);
    assert_eq!((exceeded.rows, exceeded.promised), (40, 41));
    assert!(exceeded.found > exceeded.promised);
    assert!(report.to_string().contains("cost exceeded"), "{report}");
}

#[test]
fn unrecorded_metrics_are_named() {
    let mut calls = ticks(2);
    for call in &mut calls {
        Arc::make_mut(&mut call.revision)
            .grant
            .subject_metrics
            .retain(|&one| one != Metric::LossDown);
    }
    let report = asked(&BuiltPlugin::from_bytes(bytes("degrade-ladder")).unwrap(), &calls).report;
    assert_eq!(report.unmeasured.into_iter().collect::<Vec<_>>(), [Metric::LossDown]);
}

#[test]
fn other_hooks_are_skipped() {
    let built = BuiltPlugin::from_bytes(bytes("route-nearest")).unwrap();
    let mut recorded = Recorded::new(&built, None).unwrap();
    assert!(recorded.ask(&ticks(1)[0]).unwrap().is_none());
    assert!(recorded.report.calls == 0 && !recorded.report.is_passed());
}

#[test]
fn own_states_replace_recorded_ones() {
    let calls = ticks(40);
    let actions = |answer: &HookAnswer| match answer {
        HookAnswer::Actions { actions, .. } => actions.clone(),
        other => panic!("{other:?}"),
    };
    let then = |call: &RecordedCall| actions(&call.result.as_ref().unwrap().answer);
    let acts = (1..calls.len()).find(|&at| !then(&calls[at]).is_empty());
    let acts = acts.expect("40 ticks of loss cause an action");
    let mut recorded =
        asked(&BuiltPlugin::from_bytes(bytes("degrade-ladder")).unwrap(), &calls[..acts]);
    // Without recorded states, these sessions are still known to the plugin.
    let mut next = calls[acts].clone();
    let PolicyQuestion::Tick { sessions, memo } = Arc::make_mut(&mut next.question) else {
        panic!()
    };
    assert!(sessions.iter().all(|session| session.state.is_some()));
    sessions.iter_mut().for_each(|session| session.state = None);
    *memo = None;
    let again = recorded.ask(&next).unwrap().unwrap().unwrap();
    assert_eq!(actions(&again.answer), then(&calls[acts]));
}

#[test]
fn recorded_decisions_become_a_case() {
    let calls = || ticks(40);
    let built = BuiltPlugin::from_bytes(bytes("degrade-ladder")).unwrap();
    let subject = CaseSubject::Session(SessionId(3));
    let made = case_of(subject, calls(), Some(&built.component), 5).unwrap().unwrap();
    assert!((2..=5).contains(&made.questions), "{}", made.text);
    let folder = tempfile::tempdir().unwrap();
    let tried = |text: &str| {
        std::fs::write(folder.path().join("incident.toml"), text).unwrap();
        let cases = Case::all_in(folder.path()).unwrap();
        case::run(&built, &cases, &Value::Null).unwrap()
    };
    let report = tried(&made.text);
    assert!(report.is_passed(), "{report}\n{}", made.text);
    assert_eq!(report.json()["questions"], made.questions);
    let other = made.text.replace("\"loss\"", "\"queue\"");
    assert_ne!(other, made.text, "reasons of a known plugin are expected");
    assert!(!tried(&other).is_passed());

    let nameless = case_of(subject, calls(), None, 5).unwrap().unwrap();
    assert!(!nameless.text.contains("reason"), "{}", nameless.text);
    let quiet = CaseSubject::Session(SessionId(4));
    assert_eq!(case_of(quiet, calls(), None, 5).unwrap(), None, "nothing was decided about it");
}
