//! Policies in C.

use std::path::Path;
use std::process::Command;

use evenkeel_host::{BoundPlugin, Component};
use evenkeel_model::{Hook, PolicyQuestion};
use serde_json::json;

use crate::calm::{answers_for_thousands, decides, session};
use crate::contract::sdk;
use crate::plugin::roomy;
use crate::tools::skip;

/// Compiles a policy in C with warnings as errors; `None` without a compiler.
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

/// The policy of `plugin-sdk/c`. Without a compiler, `None` and a message.
fn calm(test: &str, optimise: &str) -> Option<Component> {
    let Some(module) = compile(&sdk().join("c/calm.c"), optimise) else {
        skip(test, "clang and wasm-ld");
        return None;
    };
    Some(Component::vet(roomy(), &module).unwrap())
}

#[test]
fn c_policy_decides_as_documented() {
    let Some(component) = calm("a_policy_in_c_decides_as_its_source_says", "-O2") else { return };
    assert_eq!(&*component.manifest().name, "calm-c");
    decides(&component);
}

#[test]
fn c_policy_answers_for_thousands_of_sessions() {
    let test = "a_policy_in_c_answers_for_thousands_of_sessions_in_its_memory";
    // A debug build: nothing may depend on the optimiser.
    let Some(component) = calm(test, "-O0") else { return };
    answers_for_thousands(&component);
}

#[test]
fn c_policy_refuses_states_of_unknown_schema() {
    let Some(component) = calm("a_policy_in_c_refuses_states_of_a_form_that_it_never_had", "-O2")
    else {
        return;
    };
    let settings = json!({});
    let mut policy =
        BoundPlugin::install(roomy(), &component, Hook::Degradation, settings, vec![], 1).unwrap();
    let mut row = session(1, None, 0);
    row.state =
        Some(evenkeel_model::PluginState { plugin: "calm-c".into(), schema: 0, bytes: [].into() });
    let fault =
        policy.ask(&PolicyQuestion::Tick { sessions: vec![row], memo: None }, 0).unwrap_err();
    assert!(fault.to_string().contains("cannot be read by this revision"), "{fault}");
}
