//! Plugins that mean harm, each pushed while packets flow: what the sessions lose, and what the gateway says of it.

use evenkeel_core::Hook;
use evenkeel_guests::{Expected, Guest, hostile};
use serde_json::Value;
use std::time::{Duration, Instant};

use super::gateway::{Api, Gateway};
use super::report::{Hostile, Report};

/// One that came in is asked within this; its hook may be asked on its own, or about the session that is tried.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// Calls in which the one that a guest comes after is asked with what it left behind, also where answers are late.
const CALLS_TO_REMEMBER: u64 = 5;

/// Events become counters within this.
const COUNTED_WITHIN: Duration = Duration::from_millis(300);

/// Rooms that are asked for; all others are before them.
const FIRST_ROOM: u32 = 2_000_000;

/// What a quick run takes: each in so many.
const QUICK_STEP: usize = 8;

/// What became of a guest.
struct Fate {
    outcome: String,
    reason: String,
    expected: bool,
}

/// # Errors
/// What could not be measured, in a sentence.
pub(crate) fn measure(
    gateway: &mut Gateway,
    quick: bool,
    report: &mut Report,
) -> Result<(), String> {
    let mut api = gateway.api()?;
    let guests = hostile();
    let step = if quick { QUICK_STEP } else { 1 };
    for (room, guest) in (FIRST_ROOM..).zip(guests.iter().step_by(step)) {
        let before = gateway.serving(|| api.policies())?;
        let (fate, flow) = gateway.under_load(|| {
            precede(&mut api, guest)?;
            let fate = become_of(&mut api, guest, room)?;
            if guest.before.is_some() {
                api.roll_back(&policy(guest))?;
            }
            Ok(fate)
        })?;
        let after = gateway.serving(|| api.policies())?;
        report.hostile.push(Hostile {
            guest: guest.name.clone(),
            packets_lost: flow.lost,
            reason: fate.reason,
            hook: guest.hook.name(),
            packets: flow.sent,
            misdelivered: flow.misdelivered,
            outcome: fate.outcome,
            expected: fate.expected,
            others_affected: affected(&policy(guest), &before, &after),
        });
    }
    Ok(())
}

fn policy(guest: &Guest) -> String {
    format!("call/{}", guest.hook.name())
}

/// Where it comes after another one, that one is in force and has been asked with what it left behind.
fn precede(api: &mut Api, guest: &Guest) -> Result<(), String> {
    let Some(before) = &guest.before else { return Ok(()) };
    let policy = policy(guest);
    api.push_to(&policy, "", before)?;
    let calls = |policy: &Value| policy["calls"].as_u64().unwrap_or(0);
    let enough = calls(&api.policy(&policy)?) + CALLS_TO_REMEMBER;
    api.wait(&policy, |now| calls(now) >= enough).map(drop)
}

/// Pushes it and, where it comes in, has it asked; when this returns it is gone.
fn become_of(api: &mut Api, guest: &Guest, room: u32) -> Result<Fate, String> {
    let policy = policy(guest);
    let (guarded, before) = (api.guarded(&policy)?, api.policy(&policy)?);
    let said = api.push_to(&policy, "", &guest.bytes)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // What is too large for the API is refused before anybody looks at it.
    let refusal = if said["error"].is_object() { &said["error"] } else { &said };
    let code = text(&refusal["code"]);
    if said["outcome"] != "activated" {
        let words = text(&refusal[if said["error"].is_object() { "message" } else { "reason" }]);
        let expected = match guest.expected {
            Expected::Refused(expected) => code == expected,
            // It fails at what its predecessor was asked; where the machine is busy, of time.
            Expected::Fault(fault) => words.contains(fault) || words.contains("deadline"),
            Expected::Curbed => false,
        };
        let outcome = "refused".to_owned();
        return Ok(Fate { outcome, reason: format!("{code}: {words}"), expected });
    }
    let stands = |policy: &Value| policy["revision"] == said["revision"];
    let calls = before["calls"].as_u64().unwrap_or(0);
    if guest.hook != Hook::Degradation {
        api.try_session(room)?;
    }
    let began = Instant::now();
    let mut now = api.policy(&policy)?;
    while stands(&now) && now["calls"].as_u64().unwrap_or(0) <= calls {
        if began.elapsed() > ASKED_WITHIN {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        now = api.policy(&policy)?;
    }
    let broken = broken(api, &policy, &guarded)?;
    let now = api.policy(&policy)?;
    let faults = |policy: &Value| policy["faults"].as_u64().unwrap_or(0);
    let (outcome, reason) = match &now["last_rollout"] {
        last if !stands(&now) => ("rolled-back", text(&last["reason"])),
        _ if faults(&now) > faults(&before) => ("failed", text(&now["failing"])),
        _ if !broken.is_empty() => ("curbed", format!("left out: {}", broken.join(", "))),
        _ if now["hidden_state"]["differed"].as_u64().unwrap_or(0) > 0 => {
            ("curbed", "a fresh instance of it answers otherwise".to_owned())
        }
        _ => ("curbed", "nothing that it said was done".to_owned()),
    };
    if stands(&now) {
        api.roll_back(&policy)?;
    }
    // How one failed that came in and is gone says nothing of how it should have: it was outlived.
    let expected = !matches!(guest.expected, Expected::Refused(_));
    Ok(Fate { outcome: outcome.to_owned(), reason, expected })
}

/// Rules that its decisions broke since then.
fn broken(api: &mut Api, policy: &str, before: &[(String, u64)]) -> Result<Vec<String>, String> {
    let began = Instant::now();
    loop {
        let now = api.guarded(policy)?;
        let grew = now.into_iter().filter(|one| !before.contains(one));
        let broken: Vec<String> = grew.map(|(rule, _)| rule).collect();
        if !broken.is_empty() || began.elapsed() > COUNTED_WITHIN {
            return Ok(broken);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Policies but for the one attacked that are another now, or failed meanwhile; the one attacked, where it is another.
fn affected(attacked: &str, before: &[Value], after: &[Value]) -> Vec<String> {
    let is_other = |(before, after): &(&Value, &Value)| {
        let failed = before["policy"] != attacked && before["faults"] != after["faults"];
        before["revision"] != after["revision"] || failed
    };
    let others = before.iter().zip(after).filter(is_other);
    others.map(|(policy, _)| policy["policy"].as_str().unwrap_or("?").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn others_are_affected_by_another_revision_or_a_fault_and_the_attacked_one_by_a_revision() {
        let policy = |name: &str, revision: &str, faults: u64| json!({"policy": name, "revision": revision, "faults": faults});
        let before = [policy("call/routing", "a", 0), policy("call/admission", "b", 0)];
        let affected =
            |routing, admission| affected("call/routing", &before, &[routing, admission]);
        let (same, failed) = (policy("call/admission", "b", 0), policy("call/admission", "b", 1));
        assert!(affected(policy("call/routing", "a", 6), same.clone()).is_empty());
        assert_eq!(affected(policy("call/routing", "c", 0), same), ["call/routing"]);
        assert_eq!(affected(policy("call/routing", "a", 0), failed), ["call/admission"]);
    }
}
