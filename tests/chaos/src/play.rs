//! Plays a row: its stage is set, its crowd comes, nothing happens for a while, and then its fault does, so often.

use std::time::Duration;

use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, Fault as Happened, Page, Plan, Proof, Reckoning, Scope};
use evenkeel_lab::ledger::Spread;
use evenkeel_lab::namespace::First;

use crate::report::{Control, Played};
use crate::row::Row;
use crate::stage::{Places, Stage};

/// How often the control run looks at the gap that everyone hears.
const CONTROL_EVERY: Duration = Duration::from_millis(100);
/// A fault comes at any phase of the packet clock and of the gateway's own: after this, and up to as much again.
const BEFORE_FAULT: Duration = Duration::from_millis(200);
/// Everything is as it was within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Plays it.
///
/// # Errors
/// What could not be done; what was played until then is in `played`.
pub(crate) async fn play(
    row: &Row,
    places: &Places,
    seed: u64,
    played: &mut Played,
) -> Result<(), String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut stage = Stage::set(row.layout, places, seed)?;
    let crowd = Crowd::enter(&plan(row, seed), || stage.admin()).await;
    let mut crowd = crowd.map_err(|error| stage.gateway.failed(&error.to_string()))?;
    let _first = First::come();
    if !stage.settled(SETTLED_WITHIN).await? {
        return Err("rooms have no spares".to_owned());
    }
    played.control = control(row, &mut crowd).await;
    let calm = played.control.longest.condemned.clone();
    played.condemned("in the control run", &calm, &[]);
    for turn in 0..row.kills {
        crowd.begin_page();
        tokio::time::sleep(BEFORE_FAULT + BEFORE_FAULT.mul_f64(rng.f64())).await;
        let struck = row.fault.strike(&mut stage, &mut crowd, turn).await?;
        tokio::time::sleep(row.watched).await;
        stage.require_gateway()?;
        let page = crowd.end_page().await;
        played.moves.note(page.events());
        let mut reckoning = page.reckon(&struck.happened);
        let unproven = row.fault.unproven(&stage, &struck, &page, &reckoning).await?;
        played.unproven.extend(unproven);
        played.condemned("by the fault", &reckoning.condemned, &struck.names);
        reckoning.detections.retain(|found| struck.names.contains(&found.node));
        played.kills.push(Spread::of_ns(reckoning.gaps_ns.clone()));
        if let Some(way) = row.fault.way(turn) {
            played.ways.entry(way).or_default().add(reckoning.clone());
        }
        played.faults.add(reckoning);
        let healed_ns = clock::now_ns();
        row.fault.heal(&mut stage, &struck).await?;
        if stage.settled(SETTLED_WITHIN).await? {
            played.settle_ns.push(clock::now_ns() - healed_ns);
        } else {
            played.unsettled += 1;
        }
        let page = crowd.end_page().await;
        played.moves.note(page.events());
        let healed = Happened { at_ns: healed_ns, scope: struck.happened.scope };
        let unfault = unfault(row, &page, &healed);
        played.condemned("by the un-fault", &unfault.condemned, &[]);
        played.unfaults.add(unfault);
    }
    Ok(())
}

fn plan(row: &Row, seed: u64) -> Plan {
    // Whose address changes is known by another thing.
    let proof = if row.natted { Proof::Stun } else { Proof::Declared };
    let region = row.layout.carrying().to_owned();
    let labels = [("region".to_owned(), region)].into();
    let Row { quic, natted, speech, .. } = *row;
    Plan { speech, quic, natted, proof, labels, seed, ..Plan::new(row.sessions) }
}

/// What the un-fault did to everybody, and what came of the nodes that were hit. Where others suffer in a fault, its end
/// is theirs: then it is of those that were hit.
fn unfault(row: &Row, page: &Page, healed: &Happened) -> Reckoning {
    let of_the_hit = page.reckon(healed);
    if row.limits.others_suffer.is_some() {
        return of_the_hit;
    }
    let everybody = page.reckon(&Happened { scope: Scope::Everybody, at_ns: healed.at_ns });
    Reckoning { of_the_hit: of_the_hit.of_the_hit, ..everybody }
}

/// As long as is watched once a fault is done, nothing happens.
async fn control(row: &Row, crowd: &mut Crowd) -> Control {
    crowd.begin_page();
    let mut moments = Vec::new();
    let until = tokio::time::Instant::now() + row.watched.max(2 * CONTROL_EVERY);
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(CONTROL_EVERY).await;
        moments.push(clock::now_ns());
    }
    // What followed the last moment has not arrived yet.
    tokio::time::sleep(CONTROL_EVERY).await;
    let page = crowd.end_page().await;
    let first = moments.first().copied().unwrap_or(0);
    let longest = page.reckon(&Happened { at_ns: first, scope: Scope::Everybody });
    Control { gaps_ns: page.control(&moments), longest }
}
