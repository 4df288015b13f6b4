//! Policies in C.

use std::path::Path;
use std::process::Command;

use evenkeel_host::{BoundPlugin, Component};
use evenkeel_model::{Hook, HookAnswer, PolicyQuestion};
use evenkeel_testkit::required;
use serde_json::json;

use crate::calm::{answers_for_thousands, decides, session};
use crate::contract::sdk;
use crate::plugin::roomy;

/// Compiles a policy in C with warnings as errors.
pub(crate) fn compile(source: &Path, optimise: &str) -> Vec<u8> {
    let (folder, name) = (source.parent().unwrap(), source.file_name().unwrap());
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("wasm");
    let clang = Command::new("clang")
        .args(["--target=wasm32", "-ffreestanding", "-nostdlib", optimise, "-std=c11"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wl,--no-entry", "-Wl,--strip-all", "-o"])
        .arg(&out)
        .arg(name)
        .current_dir(folder)
        .status();
    assert!(clang.unwrap().success(), "{} compiles", source.display());
    std::fs::read(out).unwrap()
}

/// The policy of `plugin-sdk/c`.
fn calm(optimise: &str) -> Component {
    let module = compile(&sdk().join("c/calm.c"), optimise);
    Component::vet(roomy(), &module).unwrap()
}

#[required(Clang)]
#[test]
fn c_policy_decides_as_documented() {
    let component = calm("-O2");
    assert_eq!(&*component.manifest().name, "calm-c");
    decides(&component);
}

#[required(Clang)]
#[test]
fn c_policy_answers_for_thousands_of_sessions() {
    // A debug build: nothing may depend on the optimiser.
    let component = calm("-O0");
    answers_for_thousands(&component);
}

#[required(Clang)]
#[test]
fn c_policy_refuses_states_of_unknown_schema() {
    let component = calm("-O2");
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

/// A scenario policy whose parameters are its settings.
const SETTINGS: &str = r#"
#define EK_SCENARIO
#include "HEADER"
EK_MANIFEST("settings.json");

static double share;
static int64_t count;
static char name[8];
static size_t length;

const char *ek_init(ek_text settings, uint64_t seed) {
    (void)seed;
    share = ek_fraction(settings, "share", -1);
    count = ek_whole(settings, "count", -1);
    length = ek_setting_text(settings, "name", name, sizeof name);
    return NULL;
}

void ek_catalog(const ek_entry *entries, size_t count) { (void)entries, (void)count; }

void ek_resolve(ek_text scenario, ek_labels labels, ek_params *out) {
    (void)scenario, (void)labels;
    ek_set(out, "share", (int64_t)(share * 1e6));
    ek_set(out, "count", count);
    ek_set(out, "length", (int64_t)length);
    ek_set(out, "last", length > 0 ? name[length - 1] : 0);
}
"#;

#[required(Clang)]
#[test]
fn c_policy_reads_texts_and_fractions() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-settings");
    std::fs::create_dir_all(&folder).unwrap();
    let header = sdk().join("c/evenkeel_policy.h").display().to_string();
    let source = folder.join("settings.c");
    std::fs::write(&source, SETTINGS.replace("HEADER", &header)).unwrap();
    let manifest = json!({
        "name": "settings-c", "version": "1.0.0", "contract": "0.1.1", "hooks": ["scenario"],
        "settings": {"type": "object"},
    });
    std::fs::write(folder.join("settings.json"), manifest.to_string()).unwrap();
    let module = compile(&source, "-O2");
    let component = Component::vet(roomy(), &module).unwrap();
    let read = |settings: serde_json::Value| {
        let hook = Hook::Scenario;
        let mut policy =
            BoundPlugin::install(roomy(), &component, hook, settings, vec![], 1).unwrap();
        let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: [].into() };
        let HookAnswer::Params(params) = policy.ask(&question, 0).unwrap().answer else { panic!() };
        params.iter().map(|(_, value)| *value).collect::<Vec<i64>>()
    };
    let odd = json!({"list": [{"share": 9, "name": "no"}, "share"], "share": 0.25, "count": -7, "name": "a\"}"});
    assert_eq!(read(odd), [250_000, -7, 3, i64::from(b'}')]);
    let exponent = json!({"share": 1.5e-3, "count": 12, "name": "a\nb\u{1f}"});
    assert_eq!(read(exponent), [1_500, 12, 4, 0x1f]);
    assert_eq!(read(json!({"share": -2, "name": "1234567"})), [-2_000_000, -1, 7, i64::from(b'7')]);
    assert_eq!(
        read(json!({"name": "12345678"})),
        [-1_000_000, -1, 0, 0],
        "too long for the buffer"
    );
}
