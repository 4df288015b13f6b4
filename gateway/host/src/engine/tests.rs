use evenkeel_model::Hook;
use serde_json::Value;

use super::*;
use crate::native::{Cache, Cached};
use crate::policy::BoundPlugin;
use crate::shipped;

/// An engine of a process that cannot reserve more address space.
fn narrow() -> Engine {
    Engine::of(
        |reach| match reach {
            // More than any processor can address.
            MemoryReach::Wide => {
                let mut config = config(reach);
                config.memory_reservation(1 << 46);
                config
            }
            MemoryReach::Narrow => config(reach),
        },
        EngineUse::default(),
    )
}

#[test]
fn policies_run_with_little_address_space() {
    let engine = narrow();
    assert!(engine.checks_accesses());
    let plugin = shipped().iter().find(|plugin| plugin.name == "scenario-call").unwrap();
    let component = Component::vet(&engine, plugin.bytes).unwrap();
    let policy =
        BoundPlugin::install(&engine, &component, Hook::Scenario, Value::Null, Vec::new(), 1);
    assert!(policy.is_ok());
    assert!(!Engine::new().checks_accesses(), "enough address space here");
}

#[test]
fn code_is_compiled_for_the_engines_reach() {
    let plugin = shipped()[0].bytes;
    for engine in [Engine::new(), narrow()] {
        let order = crate::CompileOrder::new(&engine, plugin);
        let output = crate::CompilerOutput(crate::compile_order(&order.words().concat()));
        let code = order.accept(output).unwrap();
        assert!(Component::vet_native(&engine, plugin, &code).is_ok());
        let code = crate::compile_here(&engine, plugin).unwrap();
        assert!(Component::vet_native(&engine, plugin, &code).is_ok());
    }
}

#[test]
fn cached_code_of_another_reach_is_ignored() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("cache");
    let (wide, narrow, plugin) = (Engine::new(), narrow(), shipped()[0].bytes);
    let kept = Cache::open(&folder, &wide).unwrap();
    kept.put(plugin, &crate::compile_here(&wide, plugin).unwrap()).unwrap();
    assert!(matches!(kept.get(plugin), Cached::Code(_)));
    let other = Cache::open(&folder, &narrow).unwrap();
    assert!(matches!(other.get(plugin), Cached::Nothing));
}

#[test]
fn call_has_its_whole_budget_at_any_tick_phase() {
    assert_eq!(ticks(Duration::ZERO), 1);
    assert_eq!(ticks(Duration::from_micros(1)), 2);
    assert_eq!(ticks(Duration::from_millis(5)), 6);
    assert_eq!(ticks(Duration::from_micros(5_001)), 7);
    assert!(ticks(Duration::MAX) <= u64::MAX >> 1);
}

#[test]
fn plugin_in_use_is_not_compiled_again() {
    let engine = Engine::new();
    let [first, second, ..] = shipped() else { panic!("plugins are shipped") };
    let held = Component::vet(&engine, first.bytes).unwrap();
    let again = Component::vet(&engine, first.bytes).unwrap();
    assert!(Arc::ptr_eq(&held.0, &again.0));
    assert!(!Arc::ptr_eq(&held.0, &Component::vet(&engine, second.bytes).unwrap().0));
    let digest = *held.digest();
    drop((held, again));
    assert!(engine.recall(&digest).is_none(), "unused plugins are dropped");
}
