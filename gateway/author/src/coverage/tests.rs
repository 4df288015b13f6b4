//! Plugins in WebAssembly text; the tests know their branches.

use evenkeel_guests::module::Module;
use evenkeel_model::Hook;

use super::*;

/// A scenario policy that answers with nothing, and has a branch for names of more than `letters` letters.
fn branching(letters: u32) -> BuiltPlugin {
    let body = format!(
        "(if (i32.gt_u (local.get 1) (i32.const {letters}))
            (then (global.set $long (i32.const 1)))
            (else (global.set $long (i32.const 0))))
         (if (i32.eq (local.get 1) (i32.const 999)) (then unreachable))
         (i32.const 3072)"
    );
    let module = Module::honest(Hook::Scenario)
        .item("(global $long (mut i32) (i32.const 0))")
        .body("resolve", body);
    BuiltPlugin::from_bytes(module.build()).unwrap()
}

fn covered(built: &BuiltPlugin) -> CoverageReport {
    let options = ConformanceOptions { seed: 1, worlds: 2, settings: Value::Null };
    cover(built, &options, &[]).unwrap()
}

#[test]
fn each_branch_is_one_place_and_traps_are_marked() {
    let observed = instrument(&branching(3).bytes).unwrap();
    let of = observed.places.iter().find(|place| place.traps).unwrap().function;
    let resolve: Vec<&CodePlace> =
        observed.places.iter().filter(|place| place.function == of).collect();
    let traps: Vec<bool> = resolve.iter().map(|place| place.traps).collect();
    // Beginning, then, else, after the first `if`, trap, after the second `if`.
    assert_eq!(traps, [false, false, false, false, true, false]);
    assert!(resolve.windows(2).all(|pair| pair[0].offset < pair[1].offset), "{resolve:?}");
}

#[test]
fn unreached_branches_are_counted() {
    // `call` has four letters, and `conference` ten.
    let (all, some) = (covered(&branching(4)), covered(&branching(1_000)));
    assert_eq!(all.branches, some.branches);
    assert_eq!(some.reached + 1, all.reached, "{some}");
    assert_eq!(all.unreached, None, "there is no debug information");
    assert!(some.to_string().starts_with(&format!("coverage: {} of ", some.reached)), "{some}");
    assert_eq!(some.json()["reached"], some.reached);
}

#[test]
fn functions_for_memory_have_no_places() {
    let exported = |name: &str| {
        let module = branching(3).bytes;
        let exports = Parser::new(0).parse_all(&module).find_map(|payload| match payload {
            Ok(Payload::ExportSection(section)) => Some(section),
            _ => None,
        });
        let named = |export: &wasmparser::Export<'_>| export.name.contains(name);
        let found = exports.unwrap().into_iter().map(Result::unwrap).find(named);
        found.unwrap().index
    };
    let observed = instrument(&branching(3).bytes).unwrap();
    let has_places = |function: u32| observed.places.iter().any(|place| place.function == function);
    assert!(!has_places(exported("cabi_realloc")) && has_places(exported("resolve")));
}

#[test]
fn component_is_not_covered() {
    assert!(instrument(b"\0asm\x0d\0\x01\0").is_err());
}
