use evenkeel_config::GatewayConfig;
use evenkeel_guests::module::{ANSWER, Module, SCRATCH, answer, list, word_at};
use evenkeel_host::{Component, Engine};
use evenkeel_model::{CoreSettings, Figure, Hook, NodeProbing, NodeSettings, Op, Zone, ZoneId};
use evenkeel_revisions::samples;
use serde_json::json;

use super::*;

/// Three nodes in two zones.
fn settings() -> CoreSettings {
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap().core();
    let region = settings.home;
    settings.zones = ["a", "b"].map(|name| Zone { name: name.into(), region }).into();
    let node = |number: u32| NodeSettings {
        probed: NodeProbing::No,
        ..NodeSettings::new(format!("n{number}"), ZoneId(number % 2), 10_000_000)
    };
    settings.nodes = (0..3).map(node).collect();
    settings
}

fn plugin(hook: Hook, module: &Module) -> BoundPlugin {
    let engine = Engine::new();
    let component = Component::vet(&engine, &module.build()).unwrap();
    BoundPlugin::install(&engine, &component, hook, json!({}), Vec::new(), 7).unwrap()
}

fn played(hook: Hook, module: &Module) -> Result<Vec<AskedQuestion>, ProofFailure> {
    played_with(hook, module, Vec::new())
}

fn played_with(
    hook: Hook,
    module: &Module,
    labels: Vec<Labels>,
) -> Result<Vec<AskedQuestion>, ProofFailure> {
    let mut plugin = plugin(hook, module);
    let copy = Gateway::new(settings(), Instant::now()).records().copy_nodes();
    let policy = PolicyName { set: "call".into(), hook };
    let revision = samples::revision(plugin.revision(), "hostile", 1);
    let of = (&policy, &revision);
    Trial::begin(&mut plugin, &copy, of, Judging::default(), labels).unwrap().play()
}

/// A degradation policy that takes this action on its first session.
fn acts(op: u32, argument: u32) -> Module {
    let action = [
        word_at(SCRATCH, 0),
        word_at(SCRATCH + 4, op),
        word_at(SCRATCH + 8, argument),
        word_at(SCRATCH + 12, 0),
        word_at(SCRATCH + 16, 0),
        list(0, SCRATCH, 1),
    ];
    Module::honest(Hook::Degradation).body("tick", answer(&action))
}

#[test]
fn honest_policy_is_asked_about_well_and_impaired_sessions() {
    for hook in [Hook::Admission, Hook::Routing, Hook::Scenario] {
        assert!(!played(hook, &Module::honest(hook)).unwrap().is_empty(), "{hook:?}");
    }
    let asked = played(Hook::Degradation, &Module::honest(Hook::Degradation)).unwrap();
    let PolicyQuestion::Tick { sessions, .. } = &*asked.last().unwrap().0 else {
        panic!("{asked:?}")
    };
    let is_impaired = |loss| loss == Some(120_000);
    let impaired = sessions.iter().map(|row| row.row.measures.measured(Metric::LossUp));
    let impaired = impaired.filter(|loss| is_impaired(*loss)).count();
    assert!(sessions.len() == 64 && (16..48).contains(&impaired), "{impaired}");
    let first = evenkeel_model::RoomId(1 << 48);
    assert!(sessions.iter().all(|row| row.room >= first), "no number of the gateway");
}

#[test]
fn broken_rules_of_each_hook_are_found() {
    let to_nowhere = [word_at(SCRATCH, 4_000_000), list(0, SCRATCH, 1)];
    let uncapped = [word_at(ANSWER, 2), word_at(ANSWER + 8, 0), word_at(ANSWER + 12, 0)];
    for (hook, module) in [
        (Hook::Routing, Module::honest(Hook::Routing).body("place", answer(&to_nowhere))),
        (Hook::Admission, Module::honest(Hook::Admission).body("admit", answer(&uncapped))),
        (Hook::Degradation, acts(1, 1)),
    ] {
        let failure = played(hook, &module).unwrap_err();
        let ProofFailure::Broke(breach) = failure else { panic!("{hook:?}: {failure}") };
        assert_eq!(breach.figure, Figure::Guarded);
    }
    played(Hook::Degradation, &acts(1, 300)).unwrap();
}

#[test]
fn moves_of_other_rooms_are_found() {
    let step = [
        word_at(SCRATCH, 1_000),
        word_at(SCRATCH + 4, SCRATCH + 64),
        word_at(SCRATCH + 8, 1),
        word_at(SCRATCH + 12, 0),
        word_at(SCRATCH + 16, 0),
        word_at(SCRATCH + 64, 0),
        list(0, SCRATCH, 1),
    ];
    let module = Module::honest(Hook::Routing).body("reroute", answer(&step));
    let failure = played(Hook::Routing, &module).unwrap_err();
    let ProofFailure::Broke(breach) = failure else { panic!("{failure}") };
    assert_eq!(breach.figure, Figure::Guarded);
}

#[test]
fn policy_that_caps_and_lifts_in_turns_is_found() {
    let next = "(global.set $cap (i32.sub (i32.const 300) (global.get $cap)))";
    for op in [Op::Cap, Op::CapUp, Op::CapDown] {
        let cap = format!("(i32.store (i32.const {}) (global.get $cap))", SCRATCH + 8);
        let writes = [
            next.to_owned(),
            word_at(SCRATCH, 0),
            word_at(SCRATCH + 4, op as u32),
            cap,
            word_at(SCRATCH + 12, 0),
            word_at(SCRATCH + 16, 0),
            list(0, SCRATCH, 1),
        ];
        let module = Module::honest(Hook::Degradation)
            .manifest_key("ops", json!([op as u32]))
            .item("(global $cap (mut i32) (i32.const 0))")
            .body("tick", answer(&writes));
        let failure = played(Hook::Degradation, &module).unwrap_err();
        assert!(matches!(failure, ProofFailure::Flaps { .. }), "{op:?}: {failure}");
    }
}

/// Isolating rows would take up to 64 calls for each question.
#[test]
fn loop_ends_a_trial_at_its_first_call() {
    let module =
        Module::honest(Hook::Degradation).body("tick", "(loop $on (br $on)) (i32.const 0)");
    let failure = played(Hook::Degradation, &module).unwrap_err();
    let said = "in call 1 of a trial on copies of the nodes, `tick` did not return within 5 ms; is there an endless loop?";
    assert_eq!(failure.to_string(), said);
}

#[test]
fn fault_in_a_trial_is_found() {
    let body = "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        (if (i32.eq (global.get $asked) (i32.const 40)) (then unreachable))";
    let module = Module::honest(Hook::Degradation)
        .item("(global $asked (mut i32) (i32.const 0))")
        .body("tick", answer(&[body.to_owned(), list(0, SCRATCH, 0)]));
    let failure = played(Hook::Degradation, &module).unwrap_err();
    assert!(matches!(failure, ProofFailure::Trial { call: 40, .. }), "{failure}");
}

#[test]
fn sessions_have_the_labels_of_recorded_questions() {
    let label: (Box<str>, Box<str>) = ("tenant".into(), "gold".into());
    let labels: Labels = [label].into();
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: labels.clone() };
    let recorded = super::labels(&question);
    assert_eq!(recorded, std::slice::from_ref(&labels));
    let scenario = Module::honest(Hook::Scenario);
    let asked = played_with(Hook::Scenario, &scenario, recorded).unwrap();
    assert!(asked.iter().any(|(question, _)| super::labels(question) == [labels.clone()]));
}
