//! Those that are not what they say, or want what nobody gets: refused before anything of them runs.

use evenkeel_core::Hook;
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
        refused("import of what the contract has not", text(more), "import"),
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
    // Each of a list's items has the defaults of all lists inside it: 4 to the power of 24.
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
    let saying = |key: &str, value: Value| honest().saying(key, value).build();
    let hooks = json!(["routing", "admission", "degradation", "scenario"]);
    let mut unsigned = honest().build();
    section(&mut unsigned, "evenkeel:signature", &[1; 97]);
    let mut twice = unsigned.clone();
    section(&mut twice, "evenkeel:signature", &[1; 97]);
    let mut short = honest().build();
    section(&mut short, "evenkeel:signature", &[]);
    vec![
        refused("no manifest", honest().without_manifest(), "no-manifest"),
        refused("a manifest as deep as a well", too_deep, "manifest"),
        refused("a schema deeper than what is read", saying("settings", schema), "manifest"),
        refused("hooks that it does not export", saying("hooks", hooks), "hook-missing"),
        refused("no hook at all", saying("hooks", json!(["recording"])), "manifest"),
        refused("a name that is a path", saying("name", json!("../../etc/passwd")), "manifest"),
        refused("a name without end", saying("name", json!("a".repeat(1 << 20))), "manifest"),
        refused(
            "a manifest of 15 MB",
            saying("x-words", json!("a".repeat(15_000_000))),
            "manifest",
        ),
        refused("defaults that multiply", saying("settings", defaults), "manifest"),
        refused("100,000 reasons", saying("reasons", reasons(100_000)), "manifest"),
        refused("a reason too many", saying("reasons", reasons(257)), "manifest"),
        refused("a reason that colours terminals", saying("reasons", red), "manifest"),
        refused(
            "a version that colours terminals",
            saying("version", json!("1.0.0\u{1b}[31m\n2")),
            "manifest",
        ),
        refused("a version without end", saying("version", json!("1".repeat(65))), "manifest"),
        refused(
            "metrics that are no numbers",
            saying("subject_metrics", json!(["loss"])),
            "manifest",
        ),
        refused("another contract in its manifest", saying("contract", json!("1.0.0")), "contract"),
        refused("a signature that is none", unsigned, "signature"),
        refused("two signatures", twice, "signature"),
        refused("a signature without a signature", short, "signature"),
    ]
}

fn shapes() -> Vec<Guest> {
    let half = { honest().build()[..400].to_vec() };
    let memory = |pages: u64| format!("(memory (export \"memory\") {pages})");
    let with = |besides: &str| honest().with(besides).build();
    let tail = with("(func $tail (result i32) (return_call $tail))");
    let vast = with("(table 10000000 funcref)");
    let mut without = wat::parse_str("(module)").expect("it is WebAssembly");
    section(&mut without, "evenkeel:manifest", honest_manifest().to_string().as_bytes());
    vec![
        refused("a script", b"#!/bin/sh\nrm -rf /\n".to_vec(), "not-wasm"),
        refused("half of a module", half, "not-wasm"),
        refused("a module that is no policy", without, "not-a-plugin"),
        refused("more memory than is there", honest().with_memory(&memory(257)).build(), "engine"),
        refused("all memory that can be", honest().with_memory(&memory(65_536)).build(), "engine"),
        refused("a second memory", with("(memory 1)"), "engine"),
        refused("a table for a city", vast, "engine"),
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
