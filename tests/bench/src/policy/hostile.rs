//! Hostile plugins, each pushed under load: the loss of sessions, and the gateway's verdict.

use std::time::{Duration, Instant};

use evenkeel_guests::{Expected, Guest, hostile, names_fault};
use evenkeel_model::Hook;
use serde_json::Value;

use super::gateway::{Api, Gateway};
use super::report::{Hostile, Report};

/// An active plugin is called within this time; its hook may need a new session.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// After this many calls a guest's predecessor was called with its own state, even if some answers were late.
const CALLS_TO_REMEMBER: u64 = 5;

/// Events are counted within this time.
const COUNTED_WITHIN: Duration = Duration::from_millis(300);

/// The first room of extra sessions, above those of the load.
const FIRST_ROOM: u32 = 2_000_000;

/// A quick run takes one of this many guests.
const QUICK_STEP: usize = 8;

struct PushOutcome {
    outcome: String,
    reason: String,
    expected: bool,
}

/// # Errors
/// A measurement failed.
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

/// Activates a guest's predecessor and waits until it was called with its own state.
fn precede(api: &mut Api, guest: &Guest) -> Result<(), String> {
    let Some(before) = &guest.before else { return Ok(()) };
    let policy = policy(guest);
    api.push_to(&policy, "", before)?;
    let calls = |policy: &Value| policy["calls"].as_u64().unwrap_or(0);
    let enough = calls(&api.policy(&policy)?) + CALLS_TO_REMEMBER;
    api.wait(&policy, |now| calls(now) >= enough).map(drop)
}

/// Pushes a guest and has it called if it is accepted. The guest is no longer active when this returns.
fn become_of(api: &mut Api, guest: &Guest, room: u32) -> Result<PushOutcome, String> {
    let policy = policy(guest);
    let (guarded, before) = (api.guarded(&policy)?, api.policy(&policy)?);
    let said = api.push_to(&policy, "", &guest.bytes)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // A plugin that is too large for the API is refused by HTTP status.
    let refusal = if said["error"].is_object() { &said["error"] } else { &said };
    let code = text(&refusal["code"]);
    if said["outcome"] != "activated" {
        let words = text(&refusal[if said["error"].is_object() { "message" } else { "reason" }]);
        let expected = match guest.expected {
            Expected::Refused(expected) => code == expected,
            // The guest fails in its proof.
            Expected::Fault(fault) => code == "proof-failed" && names_fault(&words, fault),
            // A trial shows that its answers break rules.
            Expected::Curbed => code == "proof-failed",
        };
        let outcome = "refused".to_owned();
        return Ok(PushOutcome { outcome, reason: format!("{code}: {words}"), expected });
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
        _ => ("curbed", "all its answers were rejected".to_owned()),
    };
    if stands(&now) {
        api.roll_back(&policy)?;
    }
    // If a refusal was expected, the activation alone was a failure.
    let expected = !matches!(guest.expected, Expected::Refused(_));
    Ok(PushOutcome { outcome: outcome.to_owned(), reason, expected })
}

/// Rules that the policy's decisions broke since `before`.
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

/// Policies with another revision or a new fault, except the attacked one; the attacked one if its revision changed.
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
    fn affected_policies_are_found() {
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
