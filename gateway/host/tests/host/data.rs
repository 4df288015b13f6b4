//! Lookups in data documents by a plugin, and revisions by their documents.

use std::sync::LazyLock;

use evenkeel_host::{
    BoundPlugin, CallBudgets, Component, DataDocument, DataDocuments, Engine, PluginInputs,
    PluginRefusal,
};
use evenkeel_model::{Hook, HookAnswer, PluginFault, PolicyQuestion};
use serde_json::{Value, json};

use crate::plugin::{labels, roomy, with_section};

/// A scenario policy without types that looks the scenario up in `tenants`. Its one parameter has the name of the JSON that
/// it found, and the value 1; without a value it sets no parameter. The scenario `other` is looked up in `absent`.
const LOOKUP: &str = "(if (i32.eq (i32.load8_u (local.get $name)) (i32.const 0x6f))
    (then (call $lookup (i32.const 32) (i32.const 6) (i32.const 64) (i32.const 1) (i32.const 80)))
    (else (call $lookup (i32.const 16) (i32.const 7) (i32.const 64) (i32.const 1) (i32.const 80))))";

/// Exports by which a module is called flat, with the buffer for arguments at 65,536.
const FLAT: &str = r#"
    (func (export "flat_reserve") (param i32) (result i32) i32.const 65536)
    (func (export "flat_evenkeel:policy/guest@0.1.1#init") (param i32) (result i32) i32.const 0)
    (func (export "flat_evenkeel:policy/guest@0.1.1#catalog") (param i32) (result i32) i32.const 0)
    (func (export "flat_evenkeel:policy/guest@0.1.1#migrate") (param i32) (result i32) unreachable)
    (func (export "flat_evenkeel:policy/guest@0.1.1#migrate-memo") (param i32) (result i32) unreachable)
    (func (export "flat_evenkeel:policy/scenario@0.1.1#resolve") (param i32) (result i32)
        (call $resolve (i32.load (local.get 0)) (i32.load offset=4 (local.get 0)) (i32.const 0) (i32.const 0)))"#;

/// More exports of a module that is called through the component model, and of one that is called flat.
const WAYS: [&str; 2] = ["", FLAT];

/// The policy with these further exports and this lookup.
fn module(exports: &str, lookup: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "evenkeel:policy/data@0.1.1" "lookup"
            (func $lookup (param i32 i32 i32 i32 i32)))
        (memory (export "memory") 8)
        (data (i32.const 16) "tenants") (data (i32.const 32) "absent")
        (data (i32.const 48) "\ff") (data (i32.const 56) "\ff\ff\ff\ff\01")
        (global $top (mut i32) (i32.const 4096))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "evenkeel:policy/guest@0.1.1#init")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) i32.const 0)
        (func (export "evenkeel:policy/guest@0.1.1#catalog") (param i32 i32))
        (func (export "evenkeel:policy/guest@0.1.1#migrate")
            (param i32 i32 i32 i32 i32) (result i32) unreachable)
        (func (export "evenkeel:policy/guest@0.1.1#migrate-memo")
            (param i32 i32 i32) (result i32) unreachable)
        (func $resolve (export "evenkeel:policy/scenario@0.1.1#resolve")
            (param $name i32) (param $size i32) (param i32 i32) (result i32)
            (i32.store (i32.const 64) (local.get $name))
            (i32.store (i32.const 68) (local.get $size))
            {lookup}
            (i32.store (i32.const 96) (i32.load (i32.const 84)))
            (i32.store (i32.const 100) (i32.load (i32.const 88)))
            (i64.store (i32.const 104) (i64.const 1))
            (i32.store (i32.const 128) (i32.const 96))
            (i32.store (i32.const 132) (i32.load8_u (i32.const 80)))
            (i32.const 128))
        {exports})"#
    );
    let manifest = json!({
        "name": "by-tenant", "version": "1", "contract": "0.1.1", "hooks": ["scenario"],
        "settings": {"type": "object"},
        "data": {"tenants": {"type": "object", "additionalProperties": {"type": "string"}}},
    });
    let module = wat::parse_str(text).unwrap();
    with_section(&module, "evenkeel:manifest", manifest.to_string().as_bytes())
}

fn installed(
    engine: &Engine,
    module: &[u8],
    tenants: Option<Value>,
) -> Result<BoundPlugin, PluginRefusal> {
    let component = Component::vet(engine, module)?;
    let document = |value| DataDocument::of("tenants", &value).unwrap();
    let documents: DataDocuments =
        tenants.into_iter().map(|value| ("tenants".into(), document(value))).collect();
    let inputs = PluginInputs { settings: Value::Null, documents };
    BoundPlugin::install(engine, &component, Hook::Scenario, inputs, Vec::new(), 1)
}

fn names(policy: &mut BoundPlugin, scenario: &str) -> Result<Vec<Box<str>>, PluginFault> {
    let question = PolicyQuestion::Resolve { scenario: scenario.into(), labels: labels() };
    let HookAnswer::Params(params) = policy.ask(&question, 0)?.answer else { panic!() };
    Ok(params.into_iter().map(|(name, _)| name).collect())
}

#[test]
fn plugin_looks_up_in_its_documents() {
    for module in WAYS.map(|exports| module(exports, LOOKUP)) {
        let mut policy = installed(roomy(), &module, Some(json!({"acme": "gold"}))).unwrap();
        assert_eq!(names(&mut policy, "acme"), Ok(vec!["\"gold\"".into()]));
        assert_eq!(names(&mut policy, "nobody"), Ok(Vec::new()));
        let fresh = policy.another().unwrap().documents().clone();
        assert_eq!(fresh, *policy.documents());
        let mut without = installed(roomy(), &module, None).unwrap();
        assert_eq!(names(&mut without, "acme"), Ok(Vec::new()), "a document that nobody gave");
    }
}

#[test]
fn lookup_in_an_undeclared_document_is_a_fault() {
    for module in WAYS.map(|exports| module(exports, LOOKUP)) {
        let mut policy = installed(roomy(), &module, None).unwrap();
        let fault = names(&mut policy, "other").unwrap_err();
        let PluginFault::Trap(said) = &fault else { panic!("{fault:?}") };
        assert!(said.contains("`absent`: the plugin's manifest declares no document"), "{said}");
    }
}

#[test]
fn lookup_outside_memory_is_a_fault() {
    // Document, path and answer: address and length, address and length, address.
    for arguments in [
        [-4, 8, 64, 1, 80],
        [48, 1, 64, 1, 80],
        [131_072, 262_145, 64, 1, 80],
        [16, 7, -8, 2, 80],
        [16, 7, 64, -1, 80],
        [16, 7, 56, 1, 80],
        [16, 7, 64, 1, -4],
    ] {
        let constants = arguments.map(|argument| format!("(i32.const {argument})"));
        let lookup = format!("(call $lookup {})", constants.concat());
        for module in WAYS.map(|exports| module(exports, &lookup)) {
            let mut policy = installed(roomy(), &module, Some(json!({"acme": "gold"}))).unwrap();
            let outcome = names(&mut policy, "acme");
            assert!(
                matches!(outcome, Err(PluginFault::Malformed(_) | PluginFault::Trap(_))),
                "{arguments:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn lookup_with_a_long_path_is_a_fault() {
    // Empty parts, of memory that is zero.
    let empty = |count: u32| format!("(i32.const 131072) (i32.const {count})");
    // One part of zeros, whose length stands at 68.
    let long = |bytes: u32| {
        format!(
            "(i32.const 64) (i32.const 1) (i32.store (i32.const 64) (i32.const 131072)) (i32.store (i32.const 68) (i32.const {bytes}))"
        )
    };
    for (path, said) in [
        (empty(128), None),
        (empty(129), Some("a path has 129 parts, expected 128 at most")),
        (empty(40_000), Some("")),
        (long(64 << 10), None),
        (long((64 << 10) + 1), Some("the parts of a path have more than 65536 bytes")),
    ] {
        let (path, store) = match path.split_once(" (i32.store") {
            Some((path, store)) => (path.to_owned(), format!("(i32.store{store}")),
            None => (path, String::new()),
        };
        let lookup =
            format!("{store} (call $lookup (i32.const 16) (i32.const 7) {path} (i32.const 80))");
        for module in WAYS.map(|exports| module(exports, &lookup)) {
            let mut policy = installed(roomy(), &module, Some(json!({"acme": "gold"}))).unwrap();
            let outcome = names(&mut policy, "acme");
            match said {
                None => assert_eq!(outcome, Ok(Vec::new()), "{path}"),
                Some(said) => {
                    let fault = outcome.unwrap_err().to_string();
                    assert!(fault.contains(said), "{path}: {fault}");
                }
            }
        }
    }
}

#[test]
fn document_is_part_of_the_revision() {
    let module = module("", LOOKUP);
    let revision = |tenants| installed(roomy(), &module, tenants).unwrap().revision().to_owned();
    let gold = revision(Some(json!({"acme": "gold"})));
    assert_eq!(gold, revision(Some(json!({"acme": "gold"}))));
    assert_ne!(gold, revision(Some(json!({"acme": "silver"}))));
    assert_ne!(gold, revision(None));
}

#[test]
fn document_that_contradicts_its_schema_is_refused() {
    let refused = installed(roomy(), &module("", LOOKUP), Some(json!({"acme": 7}))).err().unwrap();
    assert_eq!(refused.code(), "document");
    assert_eq!(refused.to_string(), "data document `tenants` at `/acme` should be a text, found 7");
}

#[test]
fn lookup_costs_instructions() {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::counting(CallBudgets::default()));
    for module in WAYS.map(|exports| module(exports, LOOKUP)) {
        let cost = |value: &str| {
            let mut policy = installed(&ENGINE, &module, Some(json!({"acme": value}))).unwrap();
            let before = policy.instructions().unwrap();
            names(&mut policy, "acme").unwrap();
            policy.instructions().unwrap() - before
        };
        let (short, long) = (cost("gold"), cost(&"gold".repeat(100)));
        assert!(short > 1_000, "{short}");
        assert_eq!(long - short, 4 * 99, "a byte costs an instruction");
    }
}
