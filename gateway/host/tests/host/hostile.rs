//! Hand-written modules that violate the rules beneath the contract's types.

use evenkeel_host::{BoundPlugin, Component, PluginRefusal};
use evenkeel_model::{Hook, PluginFault, PolicyQuestion};
use serde_json::{Value, json};
use wit_component::StringEncoding;
use wit_parser::Resolve;

use crate::plugin::{labels, roomy, with_section};

/// A scenario policy with this many pages of memory and these bodies of `init` and `resolve`.
fn scenario(pages: u32, init: &str, resolve: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") {pages})
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "evenkeel:policy/guest@0.1.1#init")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) {init} i32.const 0)
            (func (export "evenkeel:policy/guest@0.1.1#catalog") (param i32 i32))
            (func (export "evenkeel:policy/guest@0.1.1#migrate")
                (param i32 i32 i32 i32 i32) (result i32) unreachable)
            (func (export "evenkeel:policy/guest@0.1.1#migrate-memo")
                (param i32 i32 i32) (result i32) unreachable)
            (func $resolve (export "evenkeel:policy/scenario@0.1.1#resolve")
                (param i32 i32 i32 i32) (result i32) {resolve}))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let mut wit = Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugin-sdk/wit/policy.wit");
    let package = wit.push_file(contract).unwrap();
    let world = wit.select_world(&[package], Some("scenario-policy")).unwrap();
    wit_component::embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8)
        .unwrap();
    let manifest = json!({
        "name": "by-hand", "version": "1", "contract": "0.1.1", "hooks": ["scenario"],
        "settings": {"type": "object"}
    });
    with_section(&module, "evenkeel:manifest", manifest.to_string().as_bytes())
}

fn install(module: &[u8]) -> Result<BoundPlugin, PluginRefusal> {
    let component = Component::vet(roomy(), module)?;
    BoundPlugin::install(roomy(), &component, Hook::Scenario, Value::Null, Vec::new(), 0)
}

fn resolve(body: &str) -> Result<usize, PluginFault> {
    let mut policy = install(&scenario(1, "", body)).unwrap();
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: labels() };
    policy.ask(&question, 0).map(|answered| match answered.answer {
        evenkeel_model::HookAnswer::Params(params) => params.len(),
        other => panic!("{other:?}"),
    })
}

/// Writes the list `(pointer, length)` at 2048 and returns that address.
fn list(pointer: u32, length: u32) -> String {
    format!(
        "(i32.store (i32.const 2048) (i32.const {pointer}))
         (i32.store (i32.const 2052) (i32.const {length}))
         (i32.const 2048)"
    )
}

#[test]
fn valid_handwritten_module_is_answered() {
    assert_eq!(resolve(&list(4096, 0)), Ok(0));
}

#[test]
fn list_outside_memory_is_malformed() {
    for body in [list(60_000, 1_000), list(0, u32::MAX), list(u32::MAX - 7, 1), list(4_097, 1)] {
        assert!(matches!(resolve(&body), Err(PluginFault::Malformed(_))), "{body}");
    }
    assert!(matches!(resolve("i32.const -4"), Err(PluginFault::Malformed(_))));
}

#[test]
fn invalid_utf8_is_malformed() {
    let text =
        "(i32.store (i32.const 4096) (i32.const 3000)) (i32.store (i32.const 4100) (i32.const 1))
                (i32.store8 (i32.const 3000) (i32.const 255))";
    let fault = resolve(&format!("{text} {}", list(4096, 1)));
    assert!(matches!(fault, Err(PluginFault::Malformed(_))), "{fault:?}");
}

#[test]
fn access_outside_memory_is_a_trap() {
    let fault = resolve("(i32.load (i32.const -4))").unwrap_err();
    assert_eq!(fault, PluginFault::Trap("wasm trap: out of bounds memory access".into()));
}

#[test]
fn initial_memory_is_limited_to_16_mib() {
    assert!(install(&scenario(256, "", &list(4096, 0))).is_ok());
    let refused = install(&scenario(257, "", &list(4096, 0))).err();
    assert!(matches!(refused, Some(PluginRefusal::Engine(_))), "{refused:?}");
}

#[test]
fn disabled_feature_is_refused() {
    let tail_call = "local.get 0 local.get 1 local.get 2 local.get 3 return_call $resolve";
    match install(&scenario(1, "", tail_call)).err() {
        Some(PluginRefusal::Engine(said)) => assert!(said.contains("tail calls"), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn growing_within_the_bounds_is_allowed() {
    let refused =
        install(&scenario(1, "(drop (memory.grow (i32.const 255)))", &list(4096, 0))).err();
    assert_eq!(refused, None);
    let grown = "(if (i32.ne (memory.grow (i32.const 255)) (i32.const 1)) (then unreachable))";
    assert_eq!(resolve(&format!("{grown} {}", list(4096, 0))), Ok(0));
    let too_far = "(if (i32.ne (memory.grow (i32.const 256)) (i32.const -1)) (then unreachable))";
    assert_eq!(
        resolve(&format!("{too_far} {}", list(4096, 0))),
        Ok(0),
        "refused, and handled by the plugin"
    );
}

#[test]
fn nan_bits_are_canonical() {
    let nan = "(i64.reinterpret_f64 (f64.div (f64.const 0) (f64.const 0)))";
    let canonical = "(i64.const 0x7ff8000000000000)";
    let differs = format!("(if (i64.ne {nan} {canonical}) (then unreachable))");
    assert_eq!(resolve(&format!("{differs} {}", list(4096, 0))), Ok(0));
}

#[test]
fn later_trap_after_refused_memory_is_a_trap() {
    let once = "(if (i32.ne (memory.grow (i32.const 256)) (i32.const -1)) (then unreachable))";
    let module = scenario(1, once, "unreachable");
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: labels() };
    let fault = install(&module).unwrap().ask(&question, 0).unwrap_err();
    assert!(matches!(fault, PluginFault::Trap(_)), "the refusal was in another call: {fault:?}");
}
