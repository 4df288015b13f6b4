//! Hostile plugins: each has the expected outcome, and other plugins are not affected.

use std::time::Duration;

use evenkeel_guests::{Expected, Guest, hostile, questions};
use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal, shipped};
use evenkeel_model::{Hook, HookAnswer, PolicyQuestion};
use serde_json::Value;

/// An engine with budgets for a busy machine.
fn patient() -> Engine {
    let long = Duration::from_millis(400);
    Engine::with_budgets(CallBudgets::all(long))
}

fn install(engine: &Engine, guest: &Guest) -> Result<BoundPlugin, PluginRefusal> {
    let component = Component::vet(engine, &guest.bytes)?;
    BoundPlugin::install(engine, &component, guest.hook, Value::Null, Vec::new(), 0)
}

/// The outcome of each question to this guest.
fn outcomes(policy: &mut BoundPlugin, guest: &Guest) -> Vec<Result<HookAnswer, String>> {
    let asked = guest.questions();
    let ask = |question: &PolicyQuestion| match policy.ask(question, 0) {
        Ok(answered) => Ok(answered.answer),
        Err(fault) => Err(fault.name().to_owned()),
    };
    asked.iter().map(ask).collect()
}

/// Compares the outcome with the expected one.
fn met(engine: &Engine, guest: &Guest) -> Result<(), String> {
    let mut policy = match (install(engine, guest), guest.expected) {
        (Err(refused), Expected::Refused(code)) if refused.code() == code => return Ok(()),
        (Err(refused), expected) => {
            return Err(format!("{}: {refused}, not {expected:?}", refused.code()));
        }
        (Ok(_), Expected::Refused(code)) => return Err(format!("taken, not refused for {code}")),
        (Ok(policy), Expected::Fault(_) | Expected::Curbed) => policy,
    };
    // Asks twice, since a failed guest restarts.
    for _ in 0..2 {
        for outcome in outcomes(&mut policy, guest) {
            match (&outcome, guest.expected) {
                (Err(fault), Expected::Fault(expected)) if fault == expected => {}
                (Ok(_), Expected::Curbed) => {}
                (outcome, expected) => return Err(format!("{outcome:?}, not {expected:?}")),
            }
        }
    }
    Ok(())
}

#[test]
fn hostile_guests_meet_their_expected_outcome() {
    let engine = patient();
    let neighbour = shipped().iter().find(|shipped| shipped.name == "route-nearest").unwrap();
    let neighbour = Component::vet(&engine, neighbour.bytes).unwrap();
    let mut neighbour =
        BoundPlugin::install(&engine, &neighbour, Hook::Routing, Value::Null, Vec::new(), 7)
            .unwrap();
    let place = &questions(Hook::Routing)[0];
    let before = neighbour.ask(place, 0).unwrap().answer;
    let mut unmet = Vec::new();
    for guest in hostile() {
        // Signatures are checked separately.
        if guest.expected == Expected::Refused("signature") {
            let seen = evenkeel_host::signer(&guest.bytes).unwrap_err();
            assert_eq!(seen.code(), "signature", "{}", guest.name);
            continue;
        }
        unmet.extend(met(&engine, &guest).err().map(|said| format!("{}: {said}", guest.name)));
        assert_eq!(neighbour.ask(place, 0).unwrap().answer, before, "after {}", guest.name);
    }
    assert!(unmet.is_empty(), "{}", unmet.join("\n"));
}

#[test]
fn guests_get_state_and_memo_of_the_question_before() {
    let engine = patient();
    let all = hostile();
    let after: Vec<_> = all.iter().filter(|guest| guest.before.is_some()).collect();
    assert!(after.len() >= 4, "{after:?}");
    for guest in after {
        let before = Guest { bytes: guest.before.clone().unwrap(), before: None, ..guest.clone() };
        let mut policy = install(&engine, &before).unwrap();
        let Ok(HookAnswer::Actions { states, memo: Some(memo), .. }) =
            outcomes(&mut policy, &before).remove(0)
        else {
            panic!("{}: it leaves no memo", guest.name)
        };
        let [PolicyQuestion::Tick { sessions, memo: Some(asked) }] = &guest.questions()[..] else {
            panic!("{}: it is asked about no memo", guest.name)
        };
        assert_eq!(states.len(), sessions.len());
        let left = states.iter().map(|(_, state)| state).chain([&memo]);
        for state in left {
            assert_eq!((&state.plugin, state.schema), (&asked.plugin, asked.schema));
        }
    }
}

#[test]
fn failing_call_is_named() {
    let engine = patient();
    for (name, call) in [("endless-loop in open", "open"), ("endless-loop in degradation", "tick")]
    {
        let all = hostile();
        let guest = all.iter().find(|guest| guest.name == name).unwrap();
        let mut policy = install(&engine, guest).unwrap();
        assert!(outcomes(&mut policy, guest).iter().all(Result::is_err));
        assert_eq!(policy.calling(), call);
    }
}

#[test]
fn extreme_numbers_pass_unchanged() {
    // The core validates answers. The host only must not wrap or lose anything.
    let all = hostile();
    let of = |name: &str| all.iter().find(|guest| guest.name == name).unwrap();
    let answer = |name: &str| {
        let guest = of(name);
        let engine = patient();
        outcomes(&mut install(&engine, guest).unwrap(), guest).remove(0).unwrap()
    };
    match answer("a cap of 2^64 - 1") {
        HookAnswer::Actions { actions, .. } => {
            assert_eq!((actions[0].arg, actions[0].reason), (u64::MAX, u32::MAX));
        }
        other => panic!("{other:?}"),
    }
    match answer("a placement of maximum numbers") {
        HookAnswer::Placed { hops, ttl_ms, reason, .. } => {
            assert_eq!((hops[0].0, ttl_ms, reason), (u32::MAX - 1, u32::MAX, u32::MAX));
        }
        other => panic!("{other:?}"),
    }
    match answer("an action without permission") {
        HookAnswer::Actions { actions, .. } => assert!(actions.is_empty(), "{actions:?}"),
        other => panic!("{other:?}"),
    }
}
