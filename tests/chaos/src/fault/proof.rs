//! Evidence that a fault took effect, without which a row proves nothing.

use std::time::{Duration, Instant};

use evenkeel_lab::clock;
use evenkeel_lab::crowd::{FaultEffect, ObservationWindow};
use evenkeel_lab::ledger::GapSpread;
use serde_json::Value;

use super::{Fault, Loss, Outage, StartedFault};
use crate::impairment::Impairment;
use crate::layout::Kind;
use crate::node::Misbehaviour;
use crate::stage::Stage;
use crate::store::Store;

/// A node without descriptors answers no probe in this time.
const UNANSWERED_FOR: Duration = Duration::from_millis(500);
/// A lying node reports both loads within this time.
const LIES_WITHIN: Duration = Duration::from_millis(2_500);
const POLL_EVERY: Duration = Duration::from_millis(50);

impl Fault {
    /// The expected effects that are missing, before the fault is undone.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) async fn unproven(
        self,
        stage: &Stage,
        struck: &StartedFault,
        window: &ObservationWindow,
        effect: &FaultEffect,
    ) -> Result<Vec<String>, String> {
        let proof = match self {
            Fault::Kill(..)
            | Fault::Sleep(..)
            | Fault::Starve(..)
            | Fault::CrashLoop(..)
            | Fault::Leak(..) => marked_down(struck, effect),
            Fault::Misbehave(..) => match stage.layout.kind {
                Kind::Misbehaving(Misbehaviour::Lies) => lied(stage, &struck.names).await?,
                // Affected receivers are those with a pause; limits require some.
                Kind::Misbehaving(Misbehaviour::DropsFlows) => Ok(()),
                _ => marked_down(struck, effect),
            },
            Fault::Links(_, impairment, _) => spoiled(impairment, stage, struck, window, effect)?,
            Fault::NoDescriptors(..) => opens_nothing(stage).await,
            Fault::Stall(long) => stood(long, effect),
            Fault::Return(..) => {
                let home = effect.causes.get("failback").copied().unwrap_or(0);
                proven(home >= effect.rooms_hit, format!("{home} rooms went home"))
            }
            // The stall ends by itself; an upgrade without a new process fails, and a flood that the gateway does not read.
            Fault::StallControl(_) | Fault::Upgrade | Fault::HelloFlood(_) => Ok(()),
            Fault::Store(Outage::Far) => {
                let was_used = stage.store.as_ref().is_some_and(Store::link_was_used);
                proven(was_used, "no gateway asked the store".to_owned())
            }
            // A store that does not fail is found by its own limit.
            Fault::Store(outage) if outage != Outage::DownAtTakeover => Ok(()),
            Fault::Owner(Loss::Parted(_)) => {
                stage.gateways.check_one_owner(struck.happened.at_ns, clock::now_ns()).await
            }
            Fault::Owner(_) | Fault::Store(_) | Fault::Zone(..) => {
                let missing = stage.count_missing(window.by_id.keys()).await?;
                let kills_nodes = matches!(self, Fault::Owner(Loss::WithNode) | Fault::Zone(..));
                let down = if kills_nodes { marked_down(struck, effect) } else { Ok(()) };
                let name = stage.gateway().name();
                down.and(proven(missing == 0, format!("{name} lacks {missing} sessions")))
            }
            Fault::Drain(_) | Fault::DrainRegion(..) => {
                return drained(stage, &struck.names, window).await;
            }
            Fault::Move(rooms) => moved(rooms, window, effect),
            Fault::Rebind => proven(effect.lost > 0, "no address changed".to_owned()),
            Fault::Reconnect => {
                let opened = window.events.iter().filter(|event| event.name == "opened").count();
                proven(opened >= effect.hit, format!("{opened} sessions were reopened"))
            }
            Fault::BlockUdp(_) => {
                proven(effect.lost_of_others > 0, "nothing was blocked".to_owned())
            }
        };
        Ok(proof.err().into_iter().collect())
    }
}

fn proven(is_proven: bool, otherwise: String) -> Result<(), String> {
    if is_proven { Ok(()) } else { Err(otherwise) }
}

fn marked_down(struck: &StartedFault, effect: &FaultEffect) -> Result<(), String> {
    let alive = struck.names.iter().find(|name| !effect.marked_down.contains(name));
    alive.map_or(Ok(()), |name| Err(format!("{name} was not marked down")))
}

/// The links impaired packets as specified.
fn spoiled(
    impairment: Impairment,
    stage: &Stage,
    struck: &StartedFault,
    window: &ObservationWindow,
    effect: &FaultEffect,
) -> Result<Result<(), String>, String> {
    let now = stage.tally(&struck.names)?;
    let slowest_ms = window.ledger.slowest_ns(struck.happened.at_ns) / 1_000_000;
    Ok(match impairment {
        Impairment::Cut
        | Impairment::OneWay
        | Impairment::LossRamp(_)
        | Impairment::Loss(_)
        | Impairment::Blackouts
        | Impairment::Mtu(_)
        | Impairment::Rate(_) => {
            proven(now.dropped > struck.before.dropped, "no packet was dropped".to_owned())
        }
        Impairment::Unsteady => {
            proven(now.copied > struck.before.copied, "no packet was doubled".to_owned())
        }
        Impairment::Corrupt => {
            proven(now.corrupted > struck.before.corrupted, "no packet was damaged".to_owned())
        }
        // The delay exceeds detection, so the rooms have moved.
        Impairment::Later(_) => marked_down(struck, effect),
        Impairment::Jitter(ms) | Impairment::Scatter(ms) => {
            proven(slowest_ms >= ms, format!("no packet took longer than {slowest_ms} ms"))
        }
    })
}

/// The gateway has no descriptor for one more connection.
async fn opens_nothing(stage: &Stage) -> Result<(), String> {
    let mut admin = stage.admin();
    let asked = tokio::time::timeout(UNANSWERED_FOR, admin.read("/v1/nodes")).await;
    proven(!matches!(asked, Ok(Ok(_))), "the gateway took one more connection".to_owned())
}

/// One of these nodes reports overload although it has none.
async fn lied(stage: &Stage, names: &[String]) -> Result<Result<(), String>, String> {
    let until = Instant::now() + LIES_WITHIN;
    while Instant::now() < until {
        let is_lie = |node: &Value| {
            let is_full = node["reported_permille"].as_u64().is_some_and(|load| load > 1_000);
            is_full && names.iter().any(|name| node["node"] == name.as_str())
        };
        if stage.states().await?.iter().any(is_lie) {
            return Ok(Ok(()));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(Err("no node reported overload".to_owned()))
}

/// Half of all receivers had a pause as long as the stop.
fn stood(long: Duration, effect: &FaultEffect) -> Result<(), String> {
    let median = GapSpread::of_ns(effect.gaps_ns.clone()).p50;
    let is_proven = median >= long.as_secs_f64() * 1e3;
    proven(is_proven, format!("half of all paused for {median:.1} ms at most"))
}

/// Each of these nodes was reported empty, and is empty.
async fn drained(
    stage: &Stage,
    names: &[String],
    window: &ObservationWindow,
) -> Result<Vec<String>, String> {
    let is_said = |name: &&String| {
        window.events.iter().any(|event| {
            event.name == "drained"
                && event.data["node"] == name.as_str()
                && event.data["rooms_left"] == 0
        })
    };
    let unsaid = names.iter().filter(|name| !is_said(name));
    let mut unproven: Vec<String> =
        unsaid.map(|name| format!("{name} was not reported as drained with 0 left")).collect();
    let left = stage.sessions_on(names).await?.len();
    if left > 0 {
        unproven.push(format!("{left} sessions are still on drained nodes"));
    }
    Ok(unproven)
}

/// The operator moved this many rooms, and no move was abandoned.
fn moved(rooms: usize, window: &ObservationWindow, effect: &FaultEffect) -> Result<(), String> {
    let moved = effect.causes.get("manual").copied().unwrap_or(0);
    let given_up = window.events.iter().filter(|event| event.name == "move-ended").count();
    proven(
        moved == rooms as u64 && given_up == 0,
        format!("of {rooms} moves by hand {moved} were done and {given_up} given up"),
    )
}

#[cfg(test)]
mod tests {
    use evenkeel_lab::crowd::{InjectedFault, Scope};
    use evenkeel_lab::relay::RelayTally;

    use super::*;

    fn stopped(gap_ms: u64) -> FaultEffect {
        FaultEffect { gaps_ns: vec![gap_ms * 1_000_000; 3], ..FaultEffect::default() }
    }

    #[test]
    fn stall_is_proven_by_pauses_of_its_length() {
        let long = Duration::from_millis(200);
        assert_eq!(stood(long, &stopped(201)), Ok(()));
        assert!(stood(long, &stopped(199)).is_err());
    }

    #[test]
    fn death_is_proven_by_marking_down() {
        let happened = InjectedFault { at_ns: 0, scope: Scope::Everybody };
        let names = vec!["a".to_owned(), "b".to_owned()];
        let struck = StartedFault {
            happened,
            names: names.clone(),
            before: RelayTally::default(),
            turn: 0,
            hellos_read: None,
        };
        let one = FaultEffect { marked_down: names[..1].to_vec(), ..FaultEffect::default() };
        let both = FaultEffect { marked_down: names, ..FaultEffect::default() };
        assert!(marked_down(&struck, &one).is_err());
        assert_eq!(marked_down(&struck, &both), Ok(()));
    }
}
