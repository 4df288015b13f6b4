//! Accepted plugins, and the errors of refused ones.

use std::time::Duration;

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal};
use evenkeel_model::{CatalogEntry, EntryKind, Hook, Metric, Op, PluginFault, PolicyQuestion};
use serde_json::{Value, json};

use crate::plugin::{bare, dressed, guest, labels, manifest, roomy, tick, with_section};

fn refusal(bytes: &[u8]) -> PluginRefusal {
    match Component::vet(roomy(), bytes) {
        Ok(_) => panic!("taken"),
        Err(refused) => refused,
    }
}

fn install(
    component: &Component,
    hook: Hook,
    settings: Value,
) -> Result<BoundPlugin, PluginRefusal> {
    BoundPlugin::install(roomy(), component, hook, settings, Vec::new(), 0)
}

fn why_not(settings: Value) -> PluginRefusal {
    match install(guest(), Hook::Degradation, settings) {
        Ok(_) => panic!("taken"),
        Err(refused) => refused,
    }
}

#[test]
fn core_module_is_accepted_with_its_manifest() {
    let manifest = guest().manifest();
    assert_eq!(&*manifest.name, "guest");
    assert_eq!(manifest.hooks, Hook::ALL);
    assert_eq!(manifest.state_schema, 2);
    assert_eq!(manifest.subject_metrics, [Metric::LossUp, Metric::Cap]);
    assert_eq!(manifest.ops, [Op::Cap]);
    assert_eq!(manifest.settings.json["type"], "object");
}

#[test]
fn component_is_accepted_with_its_manifest() {
    let module = dressed(&manifest());
    let encoder = wit_component::ComponentEncoder::default().module(&module).unwrap();
    let bytes = encoder.validate(true).encode().unwrap();
    let component = Component::vet(roomy(), &bytes).unwrap();
    assert_eq!(component.manifest(), guest().manifest());
    assert_ne!(component.digest(), guest().digest());
    for hook in Hook::ALL {
        assert!(install(&component, hook, Value::Null).is_ok(), "{hook:?} is found by name");
    }
    let mut policy = install(&component, Hook::Degradation, Value::Null).unwrap();
    assert!(policy.ask(&tick(&[1, 2]), 0).is_ok());
    let resolve = PolicyQuestion::Resolve { scenario: "call".into(), labels: labels() };
    assert_eq!(
        policy.ask(&resolve, 0).err(),
        Some(PluginFault::Absent),
        "it is bound to one of them"
    );
    assert!(install(&component, Hook::Scenario, Value::Null).unwrap().ask(&resolve, 0).is_ok());
}

#[test]
fn module_without_types_has_the_contracts() {
    let module = wat::parse_str("(module (memory (export \"memory\") 1))").unwrap();
    let mut lean = manifest();
    lean["hooks"] = json!(["scenario"]);
    let nameless = with_section(&module, "evenkeel:manifest", lean.to_string().as_bytes());
    let said = refusal(&nameless).to_string();
    assert!(said.contains("guest@0.1.0"), "names the missing export: {said}");
}

#[test]
fn missing_function_is_named() {
    let mut lean = manifest();
    lean["hooks"] = json!(["routing"]);
    let refused = |functions: &[&str]| {
        let export = |name: &&str| format!(r#"(func (export "evenkeel:policy/{name}"))"#);
        let exports: String = functions.iter().map(export).collect();
        let module = wat::parse_str(format!("(module {exports})")).unwrap();
        refusal(&with_section(&module, "evenkeel:manifest", lean.to_string().as_bytes()))
    };
    let guest = ["init", "catalog", "migrate", "migrate-memo"];
    let guest = guest.map(|name| format!("guest@0.1.0#{name}"));
    let guest: Vec<&str> = guest.iter().map(String::as_str).collect();
    let missing =
        |name: &str| PluginRefusal::ExportMissing(format!("evenkeel:policy/{name}").into());
    assert_eq!(refused(&guest[..3]), missing("guest@0.1.0#migrate-memo"));
    let hookless = refused(&guest);
    assert_eq!(hookless, PluginRefusal::HookMissing(Hook::Routing));
    assert!(
        hookless.to_string().contains("in C, define EK_ROUTING before the header"),
        "{hookless}"
    );
    let placing = [&guest[..], &["routing@0.1.0#place"]].concat();
    assert_eq!(refused(&placing), missing("routing@0.1.0#open"));
}

#[test]
fn wasi_import_is_refused_with_build_advice() {
    let module = wat::parse_str(
        r#"(module (import "wasi_snapshot_preview1" "clock_time_get"
             (func (param i32 i64 i32) (result i32))))"#,
    );
    let refused = refusal(&module.unwrap());
    assert!(matches!(&refused, PluginRefusal::Import { found, .. }
        if &**found == "wasi_snapshot_preview1::clock_time_get"));
    assert!(refused.to_string().contains("cargo build --release --target wasm32-unknown-unknown"));

    let component =
        wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#);
    assert!(matches!(refusal(&component.unwrap()), PluginRefusal::Import { found, .. }
        if &*found == "wasi:cli/environment@0.2.0"));
}

#[test]
fn other_contract_version_is_refused_with_both() {
    let module = wat::parse_str(r#"(module (import "evenkeel:policy/diag@0.2.0" "log" (func)))"#);
    let refused = refusal(&module.unwrap());
    assert_eq!(refused, PluginRefusal::Contract { found: "0.2.0".into(), spoken: "0.1.1" });
}

#[test]
fn missing_manifest_is_refused() {
    assert_eq!(refusal(bare()), PluginRefusal::NoManifest);
}

#[test]
fn invalid_manifest_is_refused_with_the_field() {
    let mut bad = manifest();
    bad["settings"]["properties"]["mode"]["pattern"] = json!("x");
    assert!(matches!(refusal(&dressed(&bad)), PluginRefusal::Manifest { field, .. }
        if &*field == "settings.properties.mode.pattern"));
    let cut = with_section(bare(), "evenkeel:manifest", b"{\"name\":");
    assert!(matches!(refusal(&cut), PluginRefusal::Manifest { .. }));
}

#[test]
fn non_plugin_bytes_are_refused() {
    assert!(matches!(refusal(b"#!/bin/sh"), PluginRefusal::NotWasm(_)));
    assert!(matches!(refusal(b""), PluginRefusal::NotWasm(_)));
    let whole = dressed(&manifest());
    assert!(matches!(refusal(&whole[..whole.len() / 2]), PluginRefusal::NotWasm(_)));
    let empty = wat::parse_str("(module)").unwrap();
    let empty = with_section(&empty, "evenkeel:manifest", manifest().to_string().as_bytes());
    assert!(matches!(refusal(&empty), PluginRefusal::NotAPlugin(..)));
}

#[test]
fn plugin_above_16_mib_is_refused_unread() {
    let max = 16 << 20;
    assert!(
        matches!(refusal(&vec![0; max + 1]), PluginRefusal::TooLarge { bytes, .. } if bytes == max + 1)
    );
    assert!(matches!(refusal(&vec![0; max]), PluginRefusal::NotWasm(_)));
}

#[test]
fn plugin_binds_only_to_its_hooks() {
    let mut routing = manifest();
    routing["hooks"] = json!(["routing"]);
    let component = Component::vet(roomy(), &dressed(&routing)).unwrap();
    assert!(install(&component, Hook::Routing, Value::Null).is_ok());
    let refused = install(&component, Hook::Scenario, Value::Null).err();
    let hook = Hook::Scenario;
    assert_eq!(refused, Some(PluginRefusal::HookUnanswered { plugin: "guest".into(), hook }));
}

#[test]
fn invalid_settings_name_path_and_expected() {
    let refused = why_not(json!({"mode": 3}));
    assert_eq!(refused.to_string(), "setting `$.mode` should be a text, found 3");
    assert!(
        matches!(why_not(json!({"mood": "x"})), PluginRefusal::Setting { path, .. } if &*path == "$.mood")
    );
}

#[test]
fn plugin_may_refuse_its_settings() {
    assert_eq!(why_not(json!({"mode": "refuse"})), PluginRefusal::Settings("no such tier".into()));
}

#[test]
fn plugin_that_fails_at_start_is_refused() {
    assert!(matches!(
        why_not(json!({"mode": "trap-in-init"})),
        PluginRefusal::Faulted { call: "init", fault: PluginFault::Trap(_) }
    ));
    let trap = CatalogEntry {
        kind: EntryKind::Node,
        id: 1,
        parent: 0,
        name: "trap".into(),
        labels: vec![("rack".into(), "7".into())],
    };
    let installed =
        BoundPlugin::install(roomy(), guest(), Hook::Routing, Value::Null, vec![trap], 0).err();
    assert!(matches!(
        installed,
        Some(PluginRefusal::Faulted { call: "catalog", fault: PluginFault::Trap(_) })
    ));
}

/// 16 sets of four hooks, each policy with an active revision, a candidate and the last good one.
#[test]
fn three_revisions_of_64_policies_fit() {
    let long = Duration::from_secs(600);
    let budgets = CallBudgets { init: long, catalog: long, ..CallBudgets::default() };
    let engine = Engine::with_budgets(budgets);
    let component = Component::vet(&engine, &dressed(&manifest())).unwrap();
    let install =
        |seed| BoundPlugin::install(&engine, &component, Hook::Routing, Value::Null, vec![], seed);
    let all: Result<Vec<_>, _> = (0..3 * 64).map(install).collect();
    assert_eq!(all.err(), None);
}

#[test]
fn endless_init_is_stopped() {
    let engine = Engine::new();
    let component = Component::vet(&engine, &dressed(&manifest())).unwrap();
    let settings = json!({"mode": "loop-in-init"});
    let installed =
        BoundPlugin::install(&engine, &component, Hook::Routing, settings, vec![], 0).err();
    assert_eq!(
        installed,
        Some(PluginRefusal::Faulted { call: "init", fault: PluginFault::Deadline })
    );
}

#[test]
fn revision_depends_on_plugin_and_settings() {
    let with =
        |settings| install(guest(), Hook::Degradation, settings).unwrap().revision().to_owned();
    let revision = with(json!({"mode": "count"}));
    assert_eq!(revision.len(), 12);
    assert!(revision.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(with(Value::Null), revision, "an explicit default changes nothing");
    assert_ne!(with(json!({"mode": "still"})), revision);
}
