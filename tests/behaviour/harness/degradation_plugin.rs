//! A degradation plugin in WAT: caps every session, gives its reason, and faults on one session or on large batches.

use serde_json::json;
use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::routing_plugin::section;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Traps when the batch contains this session.
    TrapsOnSession(u64),
    /// Runs out of memory when the batch has more rows than this.
    MemoryForRows(u32),
}

impl Fault {
    /// The code that runs before the answer. A row is a session id of eight bytes.
    fn prologue(self) -> String {
        match self {
            Fault::TrapsOnSession(session) => format!(
                "(local.set $at (local.get $ids))
                (loop $next
                    (if (i32.lt_u (local.get $row) (local.get $rows)) (then
                        (if (i64.eq (i64.const {session}) (i64.load (local.get $at))) (then unreachable))
                        (local.set $at (i32.add (local.get $at) (i32.const 8)))
                        (local.set $row (i32.add (local.get $row) (i32.const 1)))
                        (br $next))))
                (local.set $row (i32.const 0))"
            ),
            Fault::MemoryForRows(rows) => format!(
                "(if (i32.gt_u (local.get $rows) (i32.const {rows})) (then
                    (loop $again
                        (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                    unreachable))"
            ),
        }
    }
}

/// A degradation plugin that caps every session at 100 kbit/s with the reason `thrifty`, and has this fault.
pub(crate) fn capping_plugin(fault: Fault) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk/wit/policy.wit");
    let package = resolve.push_file(contract).unwrap();
    let world = resolve.select_world(&[package], Some("degradation-policy")).unwrap();
    let mut module = wat::parse_str(text(fault)).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .unwrap();
    let manifest = json!({
        "name": "thrifty-by-hand",
        "version": "1.0.0",
        "contract": "0.1.0",
        "hooks": ["degradation"],
        "settings": {"type": "object"},
        "ops": [1],
        "reasons": [{"number": 5, "name": "thrifty"}],
    });
    section(&mut module, b"evenkeel:manifest", manifest.to_string().as_bytes());
    module
}

/// Arguments are allocated from 65536 on. The answer starts at 2048: actions at 8192, offsets (all 0) at 32768. Unwritten
/// memory is zero, which encodes success and no retained state.
fn text(fault: Fault) -> String {
    let prologue = fault.prologue();
    format!(
        r#"(module
        (import "evenkeel:policy/diag@0.1.0" "note" (func $note (param i32 i32 i32 i64)))
        (memory (export "memory") 4)
        (data (i32.const 1024) "sessions")
        (global $top (mut i32) (i32.const 65536))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "evenkeel:policy/guest@0.1.0#init")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32)
            (global.set $top (i32.const 65536)) (i32.const 3072))
        (func (export "evenkeel:policy/guest@0.1.0#catalog") (param i32 i32)
            (global.set $top (i32.const 65536)))
        (func (export "evenkeel:policy/guest@0.1.0#migrate")
            (param i32 i32 i32 i32 i32) (result i32) unreachable)
        (func (export "evenkeel:policy/guest@0.1.0#migrate-memo")
            (param i32 i32 i32) (result i32) unreachable)
        (func (export "evenkeel:policy/degradation@0.1.0#open") (param i32 i32) (result i32)
            (global.set $top (i32.const 65536))
            (i32.store (i32.const 2048) (i32.const 32768))
            (i32.store (i32.const 2052) (i32.add (local.get 1) (i32.const 1)))
            (i32.store (i32.const 2056) (i32.const 32768))
            (i32.store (i32.const 2060) (i32.const 0))
            (i32.const 2048))
        (func (export "evenkeel:policy/degradation@0.1.0#tick")
            (param $now i64) (param $ids i32) (param $rows i32)
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (local $row i32) (local $at i32)
            (global.set $top (i32.const 65536))
            {prologue}
            (block $end (loop $next
                (br_if $end (i32.eq (local.get $row) (local.get $rows)))
                (local.set $at
                    (i32.add (i32.const 8192) (i32.mul (local.get $row) (i32.const 24))))
                (i32.store (local.get $at) (local.get $row))
                (i32.store offset=4 (local.get $at) (i32.const 1))
                (i64.store offset=8 (local.get $at) (i64.const 100))
                (i32.store offset=16 (local.get $at) (i32.const 5))
                (call $note (local.get $row) (i32.const 1024) (i32.const 8)
                    (i64.extend_i32_u (local.get $rows)))
                (local.set $row (i32.add (local.get $row) (i32.const 1)))
                (br $next)))
            (i32.store (i32.const 2112) (i32.const 8192))
            (i32.store (i32.const 2116) (local.get $rows))
            (i32.const 2112)))"#
    )
}
