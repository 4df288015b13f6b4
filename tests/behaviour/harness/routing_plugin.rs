//! Routing plugins that follow the contract except for one behaviour.

use evenkeel_guests::module::{Module, SCRATCH, answer, list, word_at};
use evenkeel_model::Hook;
use serde_json::json;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behaviour {
    /// Places each room on this node.
    Places(u32),
    /// Places each room on the node of the first value, with that of the second as its standby.
    PlacesBeside(u32, u32),
    /// Leaves each room to the native default; plugins with other numbers are other revisions.
    Numbered(u32),
    /// Places rooms with a number below the second value on the node of the first value, and traps on other rooms of the
    /// gateway, though not on those of a trial.
    TrapsFromRoom(u32, u64),
    Traps,
    NeverEnds,
    /// Grows its memory until that fails.
    EatsMemory,
    /// Places each room on the node of the first value; starts only with a catalog of at most the second value's size.
    StartsWithin(u32, u32),
}

pub(crate) fn routing_plugin(behaviour: Behaviour) -> Vec<u8> {
    let module = Module::honest(Hook::Routing).manifest_key("name", json!("by-hand"));
    let place = |node| answer(&[word_at(SCRATCH, node), list(0, SCRATCH, 1)]);
    let fails = |body: &str| {
        let functions = ["place", "reroute", "migrate", "migrate-memo"];
        functions.into_iter().fold(module.clone(), |module, function| module.body(function, body))
    };
    let module = match behaviour {
        Behaviour::Places(node) => module.body("place", place(node)),
        Behaviour::PlacesBeside(node, standby) => {
            let hops = [word_at(SCRATCH, node), word_at(SCRATCH + 4, standby), list(0, SCRATCH, 2)];
            module.body("place", answer(&hops))
        }
        Behaviour::Numbered(number) => {
            module.item(&format!("(global $number i32 (i32.const {number}))"))
        }
        Behaviour::TrapsFromRoom(node, room) => {
            let trap = format!(
                "(if (i64.lt_u (i64.sub (local.get 1) (i64.const {room})) (i64.const 1000000))
                    (then unreachable))"
            );
            module.body("place", trap + &place(node))
        }
        Behaviour::Traps => fails("unreachable"),
        Behaviour::NeverEnds => fails("(loop $again br $again) unreachable"),
        Behaviour::EatsMemory => fails(
            "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
             unreachable",
        ),
        Behaviour::StartsWithin(node, most) => {
            let trap =
                format!("(if (i32.gt_u (local.get 1) (i32.const {most})) (then unreachable))");
            module.body("place", place(node)).body("catalog", trap)
        }
    };
    module.build()
}
