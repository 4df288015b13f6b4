mod states;

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::manifest::GrantLimits;
use crate::shipped;

const BUDGET: Duration = Duration::from_millis(250);

fn parameters(engine: &Engine) -> InstanceParameters {
    let plugin = shipped().iter().find(|plugin| plugin.name == "route-nearest").unwrap();
    let component = Component::vet(engine, plugin.bytes).unwrap();
    let grant = PluginGrant::of(component.manifest(), &GrantLimits::default());
    let (hook, settings, catalog) = (Hook::Routing, "{}".to_owned(), Vec::new());
    let (data, documents) = Default::default();
    InstanceParameters {
        engine: engine.clone(),
        component,
        hook,
        settings,
        data,
        documents,
        seed: 7,
        catalog,
        grant,
        on_processor_time: false,
    }
}

fn guest(engine: &Engine) -> Guest {
    Guest::start(&parameters(engine), &mut PluginLog::default()).unwrap()
}

#[test]
fn shipped_plugin_is_called_flat() {
    assert!(matches!(guest(&Engine::new()).component.0.code, LinkedCode::Flat(_)));
}

#[test]
fn instance_is_prepared_without_a_processor() {
    let engine = Engine::new();
    let prepared = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !prepared.load(Ordering::Relaxed) {
                engine.0.wasm.increment_epoch();
            }
        });
        let prepare = || guest(&engine).catalog(&[]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(prepare));
        prepared.store(true, Ordering::Relaxed);
        assert!(matches!(result, Ok(Ok(()))), "{result:?}");
    });
}

/// Calls the plugin after `elapsed` on the wall clock, which take no processor time.
fn call_after(elapsed: Duration, budget: CallBudget) -> Result<(), PluginFault> {
    let engine = Engine::new();
    let mut guest = guest(&engine);
    let Guest { store, calls, .. } = &mut guest;
    run(&engine, store, budget, 0, |store| {
        (0..ticks(elapsed)).for_each(|_| store.engine().increment_epoch());
        calls.catalog(store, &[])
    })
}

#[test]
fn preparing_call_may_wait_for_a_processor() {
    assert_eq!(call_after(10 * BUDGET, CallBudget::Processor(BUDGET)), Ok(()));
}

#[test]
fn question_on_processor_time_may_wait_for_a_processor() {
    let engine = Engine::new();
    let asked = |on_processor_time| {
        let parameters = InstanceParameters { on_processor_time, ..parameters(&engine) };
        let mut guest = Guest::start(&parameters, &mut PluginLog::default()).unwrap();
        guest.call("place", BUDGET, 0, |calls, store| {
            (0..ticks(10 * BUDGET)).for_each(|_| store.engine().increment_epoch());
            calls.catalog(store, &[])
        })
    };
    assert_eq!((asked(true), asked(false)), (Ok(()), Err(PluginFault::Deadline)));
}

#[test]
fn question_is_stopped_on_the_wall_clock() {
    assert_eq!(call_after(10 * BUDGET, CallBudget::Elapsed(BUDGET)), Err(PluginFault::Deadline));
}

#[test]
fn patient_call_has_its_budget_in_processor_time_too() {
    assert_eq!(call_after(10 * BUDGET, CallBudget::Patient(BUDGET)), Ok(()));
    let spent = CallBudget::Patient(Duration::ZERO);
    assert_eq!(call_after(BUDGET, spent), Err(PluginFault::Deadline));
}

#[test]
fn preparing_call_is_stopped_after_its_processor_time() {
    let spun = CallBudget::Processor(Duration::ZERO);
    assert_eq!(call_after(BUDGET, spun), Err(PluginFault::Deadline));
}

#[test]
fn pauses_grow_from_100_ms_to_30_s_with_jitter() {
    let mut restarts = Restarts::new(7);
    assert!(restarts.is_due(0), "the first restart is immediate");
    let pauses: Vec<Duration> = (0..12).map(|_| restarts.note_failed(0)).collect();
    for (tries, pause) in pauses.iter().enumerate() {
        let most = Duration::from_millis(100 << tries).min(Duration::from_secs(30));
        assert!(*pause <= most && *pause >= most * 3 / 4, "{pause:?} of {most:?}");
    }
    let mut other = Restarts::new(8);
    let others: Vec<Duration> = (0..12).map(|_| other.note_failed(0)).collect();
    assert_ne!(pauses, others, "pauses have jitter");
}

#[test]
fn restart_waits_for_its_pause() {
    let mut restarts = Restarts::new(7);
    let pause = restarts.note_failed(1_000).as_micros() as u64;
    assert!(!restarts.is_due(1_000 + pause - 1));
    assert!(restarts.is_due(1_000 + pause));
    restarts.note_failed(1_000 + pause);
    assert!(!restarts.is_due(1_000 + pause));
    restarts.end_pause();
    assert!(restarts.is_due(1_000 + pause));
}

#[test]
fn third_failure_in_a_row_gives_up() {
    let mut restarts = Restarts::new(7);
    restarts.note_failed(0);
    restarts.note_failed(0);
    assert!(!restarts.is_hopeless());
    restarts.failed = 0;
    restarts.note_failed(0);
    restarts.note_failed(0);
    assert!(!restarts.is_hopeless(), "a success resets the count");
    restarts.note_failed(0);
    assert!(restarts.is_hopeless());
}
