//! Guests that are too large, or too slow to compile.

use evenkeel_model::Hook;

use crate::module::{Module, number, section};
use crate::{Expected, Guest, guest};

pub(crate) fn all() -> Vec<Guest> {
    let too_large = Expected::Refused("too-large");
    vec![
        guest("a function of 20 MB", Hook::Routing, one_function(20 << 20), too_large),
        // Below the size limit of plugins, above the engine's limit for functions.
        guest(
            "a function of 15 MB",
            Hook::Routing,
            one_function(15 << 20),
            Expected::Refused("not-a-plugin"),
        ),
    ]
}

/// A module with one function of about this many bytes of no-ops.
fn one_function(bytes: usize) -> Vec<u8> {
    // `i32.const 0`, `drop`.
    const NOTHING: [u8; 3] = [0x41, 0x00, 0x1a];
    let mut body = vec![0];
    body.extend(NOTHING.iter().cycle().take(bytes / 3 * 3));
    body.push(0x0b);
    let mut code = Vec::new();
    number(1, &mut code);
    number(body.len(), &mut code);
    code.append(&mut body);
    // One type (no parameters, no results), one function of it, its code (core specification, 5.5).
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
    module.push(10);
    number(code.len(), &mut module);
    module.append(&mut code);
    let empty = serde_json::json!({
        "name": "hostile", "version": "1.0.0", "contract": "0.1.0", "hooks": ["routing"],
        "settings": {"type": "object"}
    });
    section(&mut module, "evenkeel:manifest", empty.to_string().as_bytes());
    module
}

/// A valid plugin of less than a megabyte that takes minutes to compile.
///
/// Its functions nest loops that all change all locals, so the compiler follows each value through each loop.
pub fn slow_to_compile() -> Guest {
    /// Nested loops, and locals that each of them changes.
    const DEPTH: usize = 400;
    /// Each function takes most of a second to compile.
    const FUNCTIONS: usize = 300;
    let locals = "i64 ".repeat(DEPTH);
    let changes: String = (0..DEPTH)
        .map(|local| {
            let next = (local + 1) % DEPTH;
            format!("(local.set {local} (i64.add (local.get {local}) (local.get {next})))")
        })
        .collect();
    let opens = "(loop ".repeat(DEPTH);
    let closes: String =
        (0..DEPTH).map(|local| format!("(br_if 0 (i64.eqz (local.get {local}))))")).collect();
    let function = format!("(func (local {locals}) {opens} {changes} {closes})");
    let module = Module::honest(Hook::Routing).item(&function.repeat(FUNCTIONS));
    let expected = Expected::Refused("compile-limit");
    guest("code that takes minutes to compile", Hook::Routing, module.build(), expected)
}
