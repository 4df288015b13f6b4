//! Those that do not end, or take all there is: in each hook, and before the first question.

use evenkeel_core::Hook;

use crate::module::{Module, nothing};
use crate::{Expected, Guest, guest};

/// What one does, and what that costs.
const DEEDS: [(&str, &str, &str); 8] = [
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
    ("division-by-nothing", "(drop (i32.div_u (i32.const 1) (i32.const 0))) unreachable", "trap"),
    ("access-outside", "(drop (i32.load (i32.const -4))) unreachable", "trap"),
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

/// A function that calls itself, with too much in hand to do so for ever.
const DEEPER: &str = "(func $deeper (result i64) (i64.add (call $deeper) (i64.const 1)))";

const TABLE: &str = "(table $t 1 funcref)";

/// The functions that answer the questions of a hook.
pub(crate) fn answering(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Admission => &["admit"],
        Hook::Routing => &["place", "reroute"],
        Hook::Degradation => &["tick"],
        Hook::Scenario => &["resolve"],
    }
}

fn capable(hook: Hook) -> Module {
    Module::honest(hook).with(DEEPER).with(TABLE)
}

pub(crate) fn all() -> Vec<Guest> {
    let mut guests = Vec::new();
    for (name, body, fault) in DEEDS {
        for hook in Hook::ALL {
            let mut module = capable(hook);
            for function in answering(hook) {
                module = module.doing(function, body);
            }
            let expected = Expected::Fault(fault);
            guests.push(guest(
                format!("{name} in {}", hook.name()),
                hook,
                module.build(),
                expected,
            ));
        }
        let module = capable(Hook::Routing).doing("init", body).build();
        let expected = Expected::Refused(fault);
        guests.push(guest(format!("{name} in init"), Hook::Routing, module, expected));
        let module = capable(Hook::Routing).doing("catalog", body).build();
        guests.push(guest(format!("{name} in catalog"), Hook::Routing, module, expected));
    }
    let module = capable(Hook::Degradation).doing("open", "(loop $again br $again) unreachable");
    let (name, expected) = ("endless-loop in open", Expected::Fault("deadline"));
    guests.push(guest(name, Hook::Degradation, module.build(), expected));
    let start = "(func $begin (loop $again br $again)) (start $begin)";
    let module = Module::honest(Hook::Scenario).with(start).doing("resolve", nothing()).build();
    let expected = Expected::Refused("deadline");
    guests.push(guest("endless-loop at its start", Hook::Scenario, module, expected));
    guests
}
