//! Guests with false manifests, forbidden imports or unsupported features: refused before they run.

use evenkeel_model::Hook;
use serde_json::{Value, json};

use crate::module::{Module, section};
use crate::{Expected, Guest, guest};

fn refused(name: &str, bytes: Vec<u8>, code: &'static str) -> Guest {
    guest(name, Hook::Routing, bytes, Expected::Refused(code))
}

fn honest() -> Module {
    Module::honest(Hook::Routing)
}

pub(crate) fn all() -> Vec<Guest> {
    [imports(), manifests(), shapes()].concat()
}

fn imports() -> Vec<Guest> {
    let text = |text: &str| wat::parse_str(text).expect("it is WebAssembly");
    let wasi = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;
    let sockets = r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#;
    let clock = r#"(module (import "env" "now" (func (result i64))))"#;
    let more = r#"(module (import "evenkeel:policy/diag@0.1.0" "log" (func (param i32 i32 i32)))
                          (import "evenkeel:policy/files@0.1.0" "read" (func)))"#;
    let other =
        r#"(module (import "evenkeel:policy/diag@9.0.0" "log" (func (param i32 i32 i32))))"#;
    vec![
        refused("import of WASI", text(wasi), "import"),
        refused("import of WASI by a component", text(sockets), "import"),
        refused("import of a clock", text(clock), "import"),
        refused("import outside the contract", text(more), "import"),
        refused("import of another contract", text(other), "contract"),
    ]
}

fn manifests() -> Vec<Guest> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut too_deep = honest().without_manifest();
    section(&mut too_deep, "evenkeel:manifest", deep.as_bytes());
    let mut schema = json!({"type": "object"});
    for _ in 0..100 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    // The default of each list contains the defaults of the lists inside it: 4^24 values.
    let mut defaults = json!({"type": "object", "properties": {"a": {"default": 1}}});
    for _ in 0..24 {
        let list = json!({"type": "array", "items": defaults, "default": [{}, {}, {}, {}]});
        defaults = json!({"type": "object", "properties": {"a": list}});
    }
    let reasons = |count: u32| {
        let reason = |number: u32| json!({"number": number, "name": "because"});
        Value::Array((1..=count).map(reason).collect())
    };
    let red = json!([{"number": 1, "name": "\u{1b}[31mred"}]);
    let manifest = |key: &str, value: Value| honest().manifest_key(key, value).build();
    let hooks = json!(["routing", "admission", "degradation", "scenario"]);
    let mut unsigned = honest().build();
    section(&mut unsigned, "evenkeel:signature", &[1; 97]);
    let mut twice = unsigned.clone();
    section(&mut twice, "evenkeel:signature", &[1; 97]);
    let mut short = honest().build();
    section(&mut short, "evenkeel:signature", &[]);
    vec![
        refused("no manifest", honest().without_manifest(), "no-manifest"),
        refused("a manifest of 10,000 nested lists", too_deep, "manifest"),
        refused("a schema nested too deep", manifest("settings", schema), "manifest"),
        refused("hooks without exports", manifest("hooks", hooks), "hook-missing"),
        refused("no hook at all", manifest("hooks", json!(["recording"])), "manifest"),
        refused("a name that is a path", manifest("name", json!("../../etc/passwd")), "manifest"),
        refused("a name of a megabyte", manifest("name", json!("a".repeat(1 << 20))), "manifest"),
        refused(
            "a manifest of 15 MB",
            manifest("x-words", json!("a".repeat(15_000_000))),
            "manifest",
        ),
        refused("defaults that multiply", manifest("settings", defaults), "manifest"),
        refused("100,000 reasons", manifest("reasons", reasons(100_000)), "manifest"),
        refused("one reason too many", manifest("reasons", reasons(257)), "manifest"),
        refused("a reason with escape codes", manifest("reasons", red), "manifest"),
        refused(
            "a version with escape codes",
            manifest("version", json!("1.0.0\u{1b}[31m\n2")),
            "manifest",
        ),
        refused(
            "a version one character too long",
            manifest("version", json!("1".repeat(65))),
            "manifest",
        ),
        refused(
            "metrics that are not numbers",
            manifest("subject_metrics", json!(["loss"])),
            "manifest",
        ),
        refused(
            "another contract in its manifest",
            manifest("contract", json!("1.0.0")),
            "contract",
        ),
        refused("an invalid signature", unsigned, "signature"),
        refused("two signatures", twice, "signature"),
        refused("an empty signature", short, "signature"),
    ]
}

fn shapes() -> Vec<Guest> {
    let half = { honest().build()[..400].to_vec() };
    let memory = |pages: u64| format!("(memory (export \"memory\") {pages})");
    let with = |besides: &str| honest().item(besides).build();
    let tail = with("(func $tail (result i32) (return_call $tail))");
    let vast = with("(table 10000000 funcref)");
    let mut without = wat::parse_str("(module)").expect("it is WebAssembly");
    section(&mut without, "evenkeel:manifest", honest_manifest().to_string().as_bytes());
    vec![
        refused("a script", b"#!/bin/sh\nrm -rf /\n".to_vec(), "not-wasm"),
        refused("half of a module", half, "not-wasm"),
        refused("a module without exports", without, "not-a-plugin"),
        refused("memory above the limit", honest().with_memory(&memory(257)).build(), "engine"),
        refused("the maximum of memory", honest().with_memory(&memory(65_536)).build(), "engine"),
        refused("a second memory", with("(memory 1)"), "engine"),
        refused("a table of 10,000,000 entries", vast, "engine"),
        refused("tail calls", tail, "engine"),
        refused("relaxed arithmetic", with(RELAXED), "engine"),
    ]
}

const RELAXED: &str = "(func (param v128 v128 v128) (result v128)
    (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))";

fn honest_manifest() -> Value {
    json!({
        "name": "hostile", "version": "1.0.0", "contract": "0.1.0", "hooks": ["routing"],
        "settings": {"type": "object"}
    })
}
