//! Guests that never return or exhaust a resource, in each hook and before the first question.

use evenkeel_model::Hook;

use crate::module::{Module, nothing};
use crate::{Expected, Guest, guest};

/// Name, body and fault.
const ATTACKS: [(&str, &str, &str); 8] = [
    ("endless-loop", "(loop $again br $again) unreachable", "deadline"),
    ("deep-recursion", "(drop (call $deeper)) unreachable", "trap"),
    (
        "memory-bomb",
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
        "out-of-memory",
    ),
    (
        "table-bomb",
        "(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
         unreachable",
        "out-of-memory",
    ),
    ("division-by-zero", "(drop (i32.div_u (i32.const 1) (i32.const 0))) unreachable", "trap"),
    ("access-out-of-bounds", "(drop (i32.load (i32.const -4))) unreachable", "trap"),
    (
        "log-flood",
        "(loop $again (call $log (i32.const 4) (i32.const 4096) (i32.const 8)) br $again) unreachable",
        "trap",
    ),
    (
        "note-flood",
        "(loop $again (call $note (i32.const 0) (i32.const 4096) (i32.const 8) (i64.const 1)) br $again) unreachable",
        "trap",
    ),
];

/// Recursion that is not a tail call.
const DEEPER: &str = "(func $deeper (result i64) (i64.add (call $deeper) (i64.const 1)))";

const TABLE: &str = "(table $t 1 funcref)";

/// The functions that answer a hook's questions.
pub(crate) fn answering(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Admission => &["admit"],
        Hook::Routing => &["place", "reroute"],
        Hook::Degradation => &["tick"],
        Hook::Scenario => &["resolve"],
    }
}

fn with_functions(hook: Hook) -> Module {
    Module::honest(hook).item(DEEPER).item(TABLE)
}

pub(crate) fn all() -> Vec<Guest> {
    let mut guests = Vec::new();
    for (name, body, fault) in ATTACKS {
        for hook in Hook::ALL {
            let mut module = with_functions(hook);
            for function in answering(hook) {
                module = module.body(function, body);
            }
            let expected = Expected::Fault(fault);
            guests.push(guest(
                format!("{name} in {}", hook.name()),
                hook,
                module.build(),
                expected,
            ));
        }
        let module = with_functions(Hook::Routing).body("init", body).build();
        let expected = Expected::Refused(fault);
        guests.push(guest(format!("{name} in init"), Hook::Routing, module, expected));
        let module = with_functions(Hook::Routing).body("catalog", body).build();
        guests.push(guest(format!("{name} in catalog"), Hook::Routing, module, expected));
    }
    let module =
        with_functions(Hook::Degradation).body("open", "(loop $again br $again) unreachable");
    let (name, expected) = ("endless-loop in open", Expected::Fault("deadline"));
    guests.push(guest(name, Hook::Degradation, module.build(), expected));
    let start = "(func $begin (loop $again br $again)) (start $begin)";
    let module = Module::honest(Hook::Scenario).item(start).body("resolve", nothing()).build();
    let expected = Expected::Refused("deadline");
    guests.push(guest("endless-loop in the start function", Hook::Scenario, module, expected));
    guests
}
