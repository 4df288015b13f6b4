//! The hostile plugins of `evenkeel demo`, which are checked in so that the command carries no WebAssembly compiler.

use evenkeel_core::Hook;
use serde_json::json;

use crate::module::Module;

/// File names and the bodies of all functions that answer a question.
const PLUGINS: [(&str, &str); 3] = [
    ("trapping", "unreachable"),
    ("endless", "(loop $again br $again) unreachable"),
    (
        "memory-hungry",
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    ),
];

fn plugin(name: &str, body: &str) -> Vec<u8> {
    let module =
        Module::honest(Hook::Routing).manifest_key("name", json!(format!("unruly-{name}")));
    let functions = ["place", "reroute", "migrate", "migrate-memo"];
    functions.into_iter().fold(module, |module, function| module.body(function, body)).build()
}

#[test]
fn demo_plugins_are_up_to_date() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../gateway/lab/src/demo/hostile");
    for (name, body) in PLUGINS {
        let path = format!("{folder}/{name}.wasm");
        let bytes = plugin(name, body);
        if std::env::var_os("EVENKEEL_RENEW").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let checked_in = std::fs::read(&path).unwrap_or_default();
        assert!(
            checked_in == bytes,
            "{path}: write it with `EVENKEEL_RENEW=1 cargo test -p evenkeel-guests demo`"
        );
    }
}
