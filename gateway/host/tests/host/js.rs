//! A policy in JavaScript: contains a whole interpreter and imports nothing but `diag`.

use std::process::Command;
use std::time::Duration;

use evenkeel_host::{BoundPlugin, Component};
use evenkeel_model::{Hook, HookAnswer, PolicyQuestion};
use evenkeel_testkit::need::policy_packages;
use evenkeel_testkit::required;
use serde_json::json;

use crate::calm::{decides, session};
use crate::contract::sdk;
use crate::plugin::roomy;

/// The policy of `plugin-sdk/js`, built as an author builds it.
fn build() -> Vec<u8> {
    let js = policy_packages().join("js");
    // The build folder is beside the installed packages, so that node finds them.
    for folder in ["js", "wit"] {
        let to = policy_packages().join(folder);
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(sdk().join(folder)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    let node = Command::new("node")
        .args(["build.mjs", "calm.js", "calm.json", "degradation-policy", "calm.wasm"])
        .current_dir(&js)
        .status();
    assert!(node.unwrap().success(), "the policy in JavaScript is built");
    std::fs::read(js.join("calm.wasm")).unwrap()
}

#[required(Componentize)]
#[test]
fn javascript_policy_decides_as_documented() {
    let bytes = build();
    // Validation fails if the component imports anything but `diag`.
    let component = Component::vet(roomy(), &bytes).unwrap();
    assert_eq!(&*component.manifest().name, "calm-js");
    decides(&component);
    answers_about_thousands(&component);
}

/// Asks about thousands of sessions. The batch is reduced if the plugin's memory is too small.
fn answers_about_thousands(component: &Component) {
    let settings = json!({"jitter": 25});
    let policy = BoundPlugin::install(roomy(), component, Hook::Degradation, settings, vec![], 1);
    let mut policy = policy.unwrap();
    let mut sessions: Vec<_> = (0..4_096).map(|id| session(id, Some(25_000), 0)).collect();
    for capped in [0, 0, 4_096] {
        let question = PolicyQuestion::Tick { sessions: sessions.clone(), memo: None };
        let answered = policy.ask_of_all(&question, 0, Duration::MAX).unwrap().unwrap();
        let HookAnswer::Actions { actions, states, .. } = answered.answer else { panic!() };
        assert_eq!((actions.len(), states.len()), (capped, 4_096));
        for (row, state) in states {
            sessions[row as usize].state = Some(state);
        }
    }
}
