//! Revisions with known faults, and sound ones, that try the judge of rollouts. A third of each list is marked as held out, but checks
//! were added for four of those: the revisions of `mutants.rs` are drawn at run time.

use evenkeel_guests::module::{ANSWER, Module, SCRATCH, answer, list, word_at};
use evenkeel_model::Hook;
use serde_json::{Value, json};

use super::calls::Guests;

/// A revision that is rolled out.
#[derive(Clone, Debug)]
pub(crate) struct TrialRevision {
    /// As in the report: `trap.always`.
    pub(crate) id: String,
    pub(crate) hook: Hook,
    pub(crate) bytes: Vec<u8>,
    pub(crate) settings: Value,
    pub(crate) harm: HarmBegins,
    pub(crate) held_out: bool,
}

/// The time at which a revision begins to do harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HarmBegins {
    /// With its first answer.
    Answer,
    /// With its first fault.
    Fault,
}

/// One in this many is held out.
const HELD_OUT: usize = 3;

fn with_held_out(mut revisions: Vec<TrialRevision>) -> Vec<TrialRevision> {
    for (at, revision) in revisions.iter_mut().enumerate() {
        revision.held_out = at % HELD_OUT == HELD_OUT - 1;
    }
    revisions
}

fn revision(
    id: &'static str,
    hook: Hook,
    bytes: &[u8],
    settings: Value,
    harm: HarmBegins,
) -> TrialRevision {
    let (id, bytes) = (id.to_owned(), bytes.to_vec());
    TrialRevision { id, hook, bytes, settings, harm, held_out: false }
}

/// 40 revisions that do harm.
pub(crate) fn bad(guests: &Guests) -> Vec<TrialRevision> {
    use HarmBegins::{Answer, Fault};
    let degrade =
        |id, settings, harm| revision(id, Hook::Degradation, &guests.harm, settings, harm);
    let route = |id, settings, harm| revision(id, Hook::Routing, &guests.misroute, settings, harm);
    let written =
        |id, hook, module: Module, harm| revision(id, hook, &module.build(), json!({}), harm);
    with_held_out(vec![
        degrade("trap.always", json!({"fault": "trap"}), Fault),
        degrade("trap.one-in-61", json!({"fault": "trap", "every": 61}), Fault),
        degrade("trap.one-in-1000", json!({"fault": "trap", "after": 999, "every": 1000}), Fault),
        degrade(
            "trap.one-in-20000",
            json!({"fault": "trap", "after": 19_999, "every": 20_000}),
            Fault,
        ),
        route("trap.one-in-7-rooms", json!({"fault": "trap", "after": 6, "every": 7}), Fault),
        written("trap.one-in-3-offers", Hook::Scenario, traps_on_third(), Fault),
        degrade("loop.always", json!({"fault": "loop"}), Fault),
        degrade("loop.late", json!({"fault": "loop", "after": 2_000}), Fault),
        route("loop.room", json!({"fault": "loop", "after": 20}), Fault),
        degrade("leak.fast", json!({"fault": "leak", "amount": 65_536}), Fault),
        degrade("leak.slow", json!({"fault": "leak", "amount": 1_024}), Fault),
        degrade("leak.drip", json!({"fault": "leak", "amount": 64}), Fault),
        degrade("outside.memory", json!({"fault": "outside"}), Fault),
        degrade("outside.cap-low", json!({"cap": 1}), Answer),
        degrade("outside.cap-high", json!({"cap": 100_000}), Answer),
        route("outside.node", json!({"fault": "unknown-node"}), Answer),
        route("outside.node-late", json!({"fault": "unknown-node", "after": 40}), Answer),
        route("outside.standby", json!({"fault": "unknown-standby"}), Answer),
        written("outside.region", Hook::Admission, admits(3, u32::MAX), Answer),
        route("one-node.all", json!({"fault": "one-node"}), Answer),
        route("one-node.new-rooms", json!({"fault": "one-node", "answers": "placements"}), Answer),
        route("one-node.half", json!({"fault": "one-node", "every": 2}), Answer),
        route("no-standby.all", json!({"fault": "no-standby"}), Answer),
        route("no-standby.moves", json!({"fault": "no-standby", "answers": "moves"}), Answer),
        route(
            "no-standby.new-rooms",
            json!({"fault": "no-standby", "answers": "placements"}),
            Answer,
        ),
        route("no-standby.same", json!({"fault": "same-standby"}), Answer),
        degrade("flap.sessions", json!({"fault": "flap"}), Answer),
        degrade("flap.third", json!({"fault": "flap", "every": 3}), Answer),
        route("flap.rooms", json!({"fault": "flap", "review_interval": "1s"}), Answer),
        degrade("slow.always", json!({"fault": "slow", "amount": 1_000_000}), Fault),
        degrade("slow.late", json!({"fault": "slow", "amount": 1_000_000, "after": 500}), Fault),
        degrade("state.grows", json!({"fault": "grow-state", "amount": 100}), Fault),
        degrade("state.invalid", json!({"fault": "lose-state", "amount": 30}), Fault),
        degrade("state.memo-grows", json!({"fault": "grow-memo", "amount": 64}), Fault),
        degrade("state.hidden", json!({"fault": "hidden", "cap": 50}), Answer),
        written("others.rooms", Hook::Routing, moves_other_rooms(), Answer),
        written("others.sessions", Hook::Degradation, caps_other_sessions(), Answer),
        written("refusal.all", Hook::Admission, admits(4, 1_000), Answer),
        degrade("media.capped", json!({"cap": 41}), Answer),
        degrade("media.half-capped", json!({"cap": 42, "every": 2}), Answer),
    ])
}

/// Traps on each third offer.
fn traps_on_third() -> Module {
    let body = "(global.set $asked (i32.add (global.get $asked) (i32.const 1)))
        (if (i32.eqz (i32.rem_u (global.get $asked) (i32.const 3))) (then unreachable))";
    Module::honest(Hook::Scenario)
        .item("(global $asked (mut i32) (i32.const 0))")
        .body("resolve", answer(&[body.to_owned()]))
}

/// Answers each newcomer with this verdict and its argument.
fn admits(verdict: u32, argument: u32) -> Module {
    let writes = [word_at(ANSWER, verdict), word_at(ANSWER + 8, argument), word_at(ANSWER + 12, 0)];
    Module::honest(Hook::Admission).body("admit", answer(&writes))
}

/// Abstains from placements, and moves a room that no question is about.
fn moves_other_rooms() -> Module {
    // One move: its row, a list of one node, the time until the next review, and a reason.
    let step = [
        word_at(SCRATCH, 1_000),
        word_at(SCRATCH + 4, SCRATCH + 64),
        word_at(SCRATCH + 8, 1),
        word_at(SCRATCH + 12, 0),
        word_at(SCRATCH + 16, 0),
        word_at(SCRATCH + 64, 0),
        list(0, SCRATCH, 1),
    ];
    Module::honest(Hook::Routing).body("reroute", answer(&step))
}

/// Caps a session that no question is about.
fn caps_other_sessions() -> Module {
    let action = [
        word_at(SCRATCH, 5_000),
        word_at(SCRATCH + 4, 1),
        word_at(SCRATCH + 8, 300),
        word_at(SCRATCH + 12, 0),
        word_at(SCRATCH + 16, 0),
        list(0, SCRATCH, 1),
    ];
    Module::honest(Hook::Degradation).body("tick", answer(&action))
}

/// 20 revisions that are rolled out.
///
/// # Errors
/// A shipped plugin is missing.
pub(crate) fn good(guests: &Guests) -> Result<Vec<TrialRevision>, String> {
    let shipped = |name: &'static str| {
        let found = evenkeel_host::shipped().iter().find(|plugin| plugin.name == name);
        found.map(|plugin| plugin.bytes).ok_or_else(|| format!("{name} is not shipped"))
    };
    let (nearest, ladder) = (shipped("route-nearest")?, shipped("degrade-ladder")?);
    let (capacity, call) = (shipped("admit-capacity")?, shipped("scenario-call")?);
    // The settings of the bench's policy set, with one change.
    let changed = |mut settings: Value, key: &str, value: Value| {
        settings[key] = value;
        settings
    };
    let routing = json!({
        "delay_weight": 0.0, "loss_weight": 0.0, "load_weight": 0.0, "zone_cost": 0.0, "wary_cost": 0.0,
        "spares": 2, "min_stay": "1h",
    });
    let degradation = json!({
        "steps": ["cap", "voice-only"], "down_at_loss": 0.03, "down_after": "600ms", "hysteresis": 0.5,
        "up_after": "5s", "cap_factor": 0.5,
    });
    let admission = json!({
        "cap_above": 0.8, "cap": 300, "full_above": 0.95, "redirect_below": 0.7, "retry_after": "5s",
    });
    let scenario = json!({"floor": 24, "ceiling": 2000, "priority": 20, "close_after": "1h"});
    let one = |id, hook, bytes: &[u8], base: &Value, key: &str, value: Value| {
        let settings = changed(base.clone(), key, value);
        revision(id, hook, bytes, settings, HarmBegins::Answer)
    };
    let route = |id, key: &str, value| one(id, Hook::Routing, nearest, &routing, key, value);
    let degrade =
        |id, key: &str, value| one(id, Hook::Degradation, ladder, &degradation, key, value);
    let admit = |id, key: &str, value| one(id, Hook::Admission, capacity, &admission, key, value);
    let resolve = |id, key: &str, value| one(id, Hook::Scenario, call, &scenario, key, value);
    let none = json!({});
    Ok(with_held_out(vec![
        route("route.one-spare", "spares", json!(1)),
        route("route.stay", "min_stay", json!("30m")),
        route("route.review-20s", "review_interval", json!("20s")),
        route("route.review-30s", "review_interval", json!("30s")),
        route("route.hysteresis", "hysteresis", json!(0.3)),
        route("route.equal-cost", "equal_cost_within", json!(2.0)),
        degrade("degrade.loss-4", "down_at_loss", json!(0.04)),
        degrade("degrade.loss-5", "down_at_loss", json!(0.05)),
        degrade("degrade.up-after", "up_after", json!("8s")),
        degrade("degrade.factor", "cap_factor", json!(0.6)),
        degrade("degrade.hysteresis", "hysteresis", json!(0.4)),
        degrade("degrade.cap-only", "steps", json!(["cap"])),
        admit("admit.cap-above", "cap_above", json!(0.85)),
        admit("admit.full-above", "full_above", json!(0.97)),
        admit("admit.retry-after", "retry_after", json!("6s")),
        resolve("scenario.priority-10", "priority", json!(10)),
        resolve("scenario.priority-15", "priority", json!(15)),
        resolve("scenario.battery", "low_battery", json!(0.4)),
        revision(
            "degrade.smooth",
            Hook::Degradation,
            &guests.smooth,
            none.clone(),
            HarmBegins::Answer,
        ),
        revision("route.by-number", Hook::Routing, &guests.misroute, none, HarmBegins::Answer),
    ]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn corpus_has_40_bad_and_20_good_revisions() {
        let guests = Guests::default();
        let (bad, good) = (bad(&guests), good(&guests).unwrap());
        assert_eq!((bad.len(), good.len()), (40, 20));
        let ids: BTreeSet<&str> = bad.iter().chain(&good).map(|revision| &*revision.id).collect();
        assert_eq!(ids.len(), 60, "unique names");
        let held_out = |list: &[TrialRevision]| list.iter().filter(|it| it.held_out).count();
        assert_eq!((held_out(&bad), held_out(&good)), (13, 6));
    }
}
