//! Shipped plugins pass, and a misbehaving one does not.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use evenkeel_guests::module::Module;
use evenkeel_host::{DataDocument, shipped};
use serde_json::{Value, json};

use super::*;

fn some(worlds: u32) -> ConformanceOptions {
    ConformanceOptions { seed: 1, worlds, settings: Value::Null }
}

#[test]
fn shipped_plugins_pass() {
    for plugin in shipped() {
        let built = BuiltPlugin::from_bytes(plugin.bytes.to_vec()).unwrap();
        let report = run(&built, &some(12)).unwrap();
        assert!(report.is_passed(), "{}: {report}", plugin.name);
        assert!(report.questions.values().all(|&count| count >= 12 * u64::from(TURNS)), "{report}");
        assert!(report.settings_tried > 1);
    }
}

#[test]
fn run_depends_on_its_seed_only() {
    let plugin = shipped().iter().find(|plugin| plugin.name == "route-nearest").unwrap();
    let built = BuiltPlugin::from_bytes(plugin.bytes.to_vec()).unwrap();
    assert_eq!(run(&built, &some(4)).unwrap(), run(&built, &some(4)).unwrap());
}

/// The host's test guest, which misbehaves as its settings say.
static GUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/tests/guests");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/guests");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked", "--target", "wasm32-unknown-unknown"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(guests)
        .env_remove("RUSTFLAGS")
        .status()
        .unwrap();
    assert!(built.success());
    std::fs::read(target.join("wasm32-unknown-unknown/release/guest.wasm")).unwrap()
});

/// The guest with a manifest of this hook and these settings.
pub(crate) fn guest(hook: &str, settings: &Value) -> BuiltPlugin {
    let manifest = json!({
        "name": "guest", "version": "1.0.0", "contract": "0.1.0", "hooks": [hook], "settings": settings,
        "state_schema": 2, "subject_metrics": [1, 9], "node_metrics": [35], "ops": [1],
    });
    let (name, text) = ("evenkeel:manifest", manifest.to_string());
    let section = [&[name.len() as u8], name.as_bytes(), text.as_bytes()].concat();
    BuiltPlugin::from_bytes([&GUEST[..], &[0], &leb(section.len()), &section].concat()).unwrap()
}

/// The schema of the guest's settings, with its default behaviour.
pub(crate) fn behaving(mode: &str) -> Value {
    let mode = json!({"mode": {"type": "string", "default": mode}});
    json!({"type": "object", "additionalProperties": false, "properties": mode})
}

/// Violations of the guest in this mode and hook.
fn wrong(hook: &str, mode: &str) -> Vec<(&'static str, &'static str)> {
    run(&guest(hook, &behaving(mode)), &some(8)).unwrap().violations.into_keys().collect()
}

#[test]
fn first_overrun_ends_the_run() {
    let refused = run(&guest("degradation", &behaving("loop-in-tick")), &some(100)).unwrap_err();
    let said = "`tick` did not return within 5 ms; is there an endless loop?";
    assert_eq!(refused.to_string(), said);
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[test]
fn violations_are_found() {
    for (hook, mode, violation) in [
        ("degradation", "voice-only", ("ungranted", "tick")),
        ("degradation", "row", ("fault", "tick")),
        ("degradation", "still", ("hidden-state", "tick")),
        ("admission", "", ("redirect-of-room", "admit")),
        ("routing", "", ("too-many-hops", "place")),
        ("routing", "", ("nowhere", "reroute")),
    ] {
        let found = wrong(hook, mode);
        assert!(found.contains(&violation), "{hook} {mode}: {found:?}");
    }
    assert_eq!(wrong("scenario", ""), [], "no violation in this hook");
}

#[test]
fn memory_limit_is_named() {
    let hungry = run(&guest("degradation", &behaving("memory-bomb")), &some(4)).unwrap();
    let said = hungry.to_string();
    assert!(
        said.contains("tick, ") && said.contains("it wanted more than 16 MiB of memory"),
        "{said}"
    );
}

#[test]
fn missing_required_setting_is_reported() {
    let schema =
        json!({"type": "object", "required": ["mode"], "properties": {"mode": {"type": "string"}}});
    let built = guest("scenario", &schema);
    let refused = run(&built, &some(1)).unwrap_err();
    assert_eq!(refused.to_string(), "setting `$.mode` should be a text, found nothing");
    let options = ConformanceOptions { settings: json!({"mode": ""}), ..some(1) };
    let report = run(&built, &options).unwrap();
    let taken = SettingMismatch::Taken { setting: "no_such_setting = 1".into() };
    assert_eq!(report.unfit, [taken], "an open schema accepts misspelt settings");
    assert!(!report.is_passed());
}

#[test]
fn documents_of_a_plugin_are_given_to_it() {
    let data = json!({"tenants": {"type": "object", "required": ["acme"]}});
    let plugin = Module::honest(Hook::Routing).manifest_key("data", data).build();
    let mut built = BuiltPlugin::from_bytes(plugin).unwrap();
    assert_eq!(run(&built, &some(1)).unwrap_err().code(), "document");
    let document = DataDocument::of("tenants", &json!({"acme": {}})).unwrap();
    built.documents = [("tenants".into(), document)].into();
    assert!(run(&built, &some(1)).is_ok());
}
