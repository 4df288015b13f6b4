//! A degradation plugin that caps every session, and faults on one session or on large batches.

use evenkeel_guests::module::{FREE_ARGUMENTS, Module};
use evenkeel_model::Hook;
use serde_json::json;

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
                "(local.set $at (local.get 1))
                (loop $next
                    (if (i32.lt_u (local.get $row) (local.get 2)) (then
                        (if (i64.eq (i64.const {session}) (i64.load (local.get $at))) (then unreachable))
                        (local.set $at (i32.add (local.get $at) (i32.const 8)))
                        (local.set $row (i32.add (local.get $row) (i32.const 1)))
                        (br $next))))
                (local.set $row (i32.const 0))"
            ),
            Fault::MemoryForRows(rows) => format!(
                "(if (i32.gt_u (local.get 2) (i32.const {rows})) (then
                    (loop $again
                        (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                    unreachable))"
            ),
        }
    }
}

/// A degradation plugin that caps every session at 100 kbit/s with the reason `thrifty`, and has this fault.
///
/// Parameters 1 and 2 of `tick` are the list of session ids. The answer is at 2112, its actions at 8192.
pub(crate) fn capping_plugin(fault: Fault) -> Vec<u8> {
    let prologue = fault.prologue();
    let tick = format!(
        "(local $row i32) (local $at i32)
        {FREE_ARGUMENTS}
        {prologue}
        (block $end (loop $next
            (br_if $end (i32.eq (local.get $row) (local.get 2)))
            (local.set $at (i32.add (i32.const 8192) (i32.mul (local.get $row) (i32.const 24))))
            (i32.store (local.get $at) (local.get $row))
            (i32.store offset=4 (local.get $at) (i32.const 1))
            (i64.store offset=8 (local.get $at) (i64.const 100))
            (i32.store offset=16 (local.get $at) (i32.const 5))
            (call $note (local.get $row) (i32.const 1024) (i32.const 8)
                (i64.extend_i32_u (local.get 2)))
            (local.set $row (i32.add (local.get $row) (i32.const 1)))
            (br $next)))
        (i32.store (i32.const 2112) (i32.const 8192))
        (i32.store (i32.const 2116) (local.get 2))
        (i32.const 2112)"
    );
    Module::honest(Hook::Degradation)
        .reading_arguments()
        .manifest_key("name", json!("thrifty-by-hand"))
        .manifest_key("reasons", json!([{"number": 5, "name": "thrifty"}]))
        .item("(data (i32.const 1024) \"sessions\")")
        .body("tick", tick)
        .build()
}
