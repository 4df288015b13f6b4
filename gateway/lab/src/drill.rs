//! Fault injection at a running gateway: a drill opens synthetic sessions beside the real ones, breaks a node through
//! its agent, measures the effect on the synthetic sessions, and always repairs the node.

mod plan;
mod report;

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::time::Duration;

use serde_json::{Value, json};

pub use plan::{DrillError, DrillFault, DrillPlan, Unmended};
pub use report::{DrillRecordFile, DrillReport, Milliseconds, default_place};

use crate::clock;
use crate::crowd::{Crowd, CrowdPlan, InjectedFault, Scope};
use crate::error::LabError;
use crate::interruption::until_interrupted;
use crate::watch::is_node;
use evenkeel_client::{ApiClient, ClientError, ServerEvent};
use evenkeel_contract::nodes::{Hop, Node};

/// Length of the control run before the fault.
const CONTROL: Duration = Duration::from_secs(2);
/// Minimum delay of the fault. A random part of up to the same length is added, so that the fault hits any phase of the
/// packet clock.
const BEFORE_FAULT: Duration = Duration::from_millis(200);
/// Timeout of detection, and observation time after it.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(2);
/// Timeout until a repaired node is trusted again. Its ejection grows with each relapse.
const TRUSTED_WITHIN: Duration = Duration::from_secs(70);
/// Timeout until the region's breaker is closed again, if the previous drill opened it.
const CLOSED_WITHIN: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Attempts per repair, because a message may be lost.
const MEND_TRIES: u32 = 3;
const MEND_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
struct DrillNode {
    name: String,
    region: String,
    /// With the region: `eu/a`.
    zone: String,
    rooms: u64,
    is_up: bool,
}

/// Runs a drill and prints progress on standard error.
///
/// # Errors
/// Any [`DrillError`]; the nodes are repaired and the synthetic sessions closed first. A node that cannot be repaired after
/// a successful measurement is no error: the report names it.
pub async fn run(
    drill: &DrillPlan,
    admin: impl Fn() -> ApiClient,
) -> Result<DrillReport, DrillError> {
    // From here on an interruption repairs the nodes first.
    let mut interrupted = pin!(until_interrupted());
    tokio::select! {
        biased;
        () = interrupted.as_mut() => return Err(DrillError::Interrupted),
        () = std::future::ready(()) => {}
    }
    let mut own = admin();
    let mut rng = fastrand::Rng::with_seed(drill.seed);
    // Chosen once: these nodes are asked before any session is opened, and no other one is broken.
    let victims = victims(drill, &nodes(&mut own).await?)?;
    tokio::select! {
        closed = breaker_closed(&mut own, &victims, CLOSED_WITHIN) => closed?,
        () = interrupted.as_mut() => return Err(DrillError::Interrupted),
    }
    require_permission(drill.kind, &victims, &mut own).await?;
    let rooms = format!("drill-{:08x}", rng.u32(..));
    let plan = plan(drill, rooms, &victims);
    eprintln!("opening {} synthetic sessions", drill.sessions);
    let entered = Crowd::enter_unless(&plan, &admin, interrupted.as_mut()).await;
    let mut crowd = entered.map_err(|failed| match failed {
        LabError::Interrupted => DrillError::Interrupted,
        failed => DrillError::Lab(failed),
    })?;
    let victims: Vec<String> = victims.into_iter().map(|node| node.name).collect();
    let outcome = play(drill, victims, &mut own, &mut crowd, &mut rng, interrupted).await;
    // Sessions are closed after an error too. Closing succeeds if the gateway has ended.
    let left = crowd.leave(&mut own).await;
    let report = outcome?;
    left?;
    Ok(report)
}

/// Fails if the gateway or the agent of a node would refuse the fault.
async fn require_permission(
    kind: DrillFault,
    victims: &[DrillNode],
    admin: &mut ApiClient,
) -> Result<(), DrillError> {
    for DrillNode { name, .. } in victims {
        let asked = order(admin, name, kind.facts().trial).await;
        asked.map_err(|refused| match refused {
            LabError::Gateway(_, error) => {
                LabError::Gateway(format!("no drill at {name}, and no session was opened"), error)
            }
            refused => refused,
        })?;
    }
    Ok(())
}

/// The sessions, with labels that place them in the region that the fault hits.
fn plan(drill: &DrillPlan, rooms: String, victims: &[DrillNode]) -> CrowdPlan {
    let region = victims.first().map(|node| ("region".to_owned(), node.region.clone()));
    let kind = ("drill".to_owned(), drill.kind.facts().name.to_owned());
    let labels = region.into_iter().chain([kind]).collect();
    let (scenario, seed) = (drill.scenario.clone(), drill.seed);
    CrowdPlan { scenario, rooms, labels, seed, ..CrowdPlan::new(drill.sessions) }
}

async fn play(
    drill: &DrillPlan,
    victims: Vec<String>,
    admin: &mut ApiClient,
    crowd: &mut Crowd,
    rng: &mut fastrand::Rng,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<DrillReport, DrillError> {
    let (hit, control) = tokio::select! {
        ready = prepare(&victims, admin, crowd, rng) => ready?,
        () = interrupted.as_mut() => return Err(DrillError::Interrupted),
    };
    eprintln!(
        "{} {}: {} synthetic sessions are there",
        drill.kind.facts().doing,
        victims.join(", "),
        hit.len()
    );
    let (at_ns, mut broken) = (clock::now_ns(), BTreeSet::new());
    let struck = tokio::select! {
        struck = strike(drill, &victims, admin, crowd, at_ns, &mut broken) => struck,
        () = interrupted.as_mut() => Err(DrillError::Mended),
    };
    let window = crowd.end_window().await;
    let healed_ns = clock::now_ns();
    let unmended = mend(drill.kind, &broken, admin).await;
    if let Err(why) = struck {
        return Err(still_broken(why, unmended));
    }
    let fault = window.effect_of(&InjectedFault { at_ns, scope: Scope::Sessions(hit) });
    let trusted = if unmended.is_empty() {
        eprintln!("repaired; waiting until the gateway trusts the node again");
        tokio::select! {
            trusted = trusted_again(&fault.marked_down, crowd, healed_ns) => trusted,
            // An interruption here does not discard the measurement.
            () = interrupted => false,
        }
    } else {
        false
    };
    let repair = InjectedFault { at_ns: healed_ns, scope: Scope::Everybody };
    let unfault = crowd.end_window().await.effect_of(&repair);
    let report = DrillReport::new(drill, victims, at_ns, &fault, &control, &unfault, trusted);
    Ok(DrillReport { mended: unmended.is_empty(), unmended, ..report })
}

/// Adds the nodes that are still broken to an error.
fn still_broken(why: DrillError, unmended: Vec<Unmended>) -> DrillError {
    match why {
        why if unmended.is_empty() => why,
        DrillError::Mended => DrillError::Unmended {
            why: Box::new(DrillError::Unfit("interrupted".to_owned())),
            unmended,
        },
        why => DrillError::Unmended { why: Box::new(why), unmended },
    }
}

/// Runs the control run. Returns the synthetic sessions at the nodes to break, and pauses without a fault, nanoseconds.
async fn prepare(
    victims: &[String],
    admin: &mut ApiClient,
    crowd: &mut Crowd,
    rng: &mut fastrand::Rng,
) -> Result<(BTreeSet<u64>, Vec<u64>), DrillError> {
    crowd.begin_window();
    let moments = clock::control_moments(CONTROL).await;
    let control = crowd.end_window().await.control(&moments);
    crowd.begin_window();
    tokio::time::sleep(BEFORE_FAULT + BEFORE_FAULT.mul_f64(rng.f64())).await;
    let hit = sessions_on(victims, admin, crowd).await?;
    require_somebody(&hit, victims)?;
    Ok((hit, control))
}

/// Fails without a synthetic session at the victims, because the drill would measure nothing.
fn require_somebody(hit: &BTreeSet<u64>, victims: &[String]) -> Result<(), DrillError> {
    if !hit.is_empty() {
        return Ok(());
    }
    let victims = victims.join(", ");
    Err(DrillError::Unfit(format!(
        "no synthetic session was placed on {victims}, so nothing was broken; name another with --node or --region, or raise --sessions"
    )))
}

/// Breaks the nodes. `broken` receives the names of the nodes that may be broken, even if this future is dropped.
async fn strike(
    drill: &DrillPlan,
    victims: &[String],
    admin: &mut ApiClient,
    crowd: &Crowd,
    at_ns: u64,
    broken: &mut BTreeSet<String>,
) -> Result<(), DrillError> {
    let Some(back) = drill.kind.every() else {
        for node in victims {
            break_node(drill.kind, node, admin, broken).await?;
        }
        for node in victims {
            crowd.events.wait(at_ns, FOUND_WITHIN, |event| is_node(event, node, "down")).await;
        }
        tokio::time::sleep(WATCHED).await;
        return Ok(());
    };
    let until = tokio::time::Instant::now() + drill.flaps_for;
    while tokio::time::Instant::now() < until {
        for node in victims {
            break_node(drill.kind, node, admin, broken).await?;
        }
        tokio::time::sleep(back / 2).await;
        for node in victims {
            order(admin, node, drill.kind.facts().cure).await?;
        }
        tokio::time::sleep(back / 2).await;
    }
    Ok(())
}

/// Removes the node from `broken` if the agent refused. Without an answer the node may be broken.
async fn break_node(
    kind: DrillFault,
    node: &str,
    admin: &mut ApiClient,
    broken: &mut BTreeSet<String>,
) -> Result<(), LabError> {
    let is_first = broken.insert(node.to_owned());
    let ordered = order(admin, node, kind.facts().fault).await;
    if let Err(LabError::Gateway(_, ClientError::Refused { status: 400..500, .. })) = &ordered
        && is_first
    {
        broken.remove(node);
    }
    ordered
}

async fn mend(kind: DrillFault, broken: &BTreeSet<String>, admin: &mut ApiClient) -> Vec<Unmended> {
    let mut unmended = Vec::new();
    for node in broken {
        let mut tries = 0;
        // A node that cannot be repaired does not stop the repair of the others.
        while let Err(failed) = order(admin, node, kind.facts().cure).await {
            tries += 1;
            if tries == MEND_TRIES {
                unmended.push(kind.unmended(node, failed.to_string()));
                break;
            }
            tokio::time::sleep(MEND_AGAIN).await;
        }
    }
    unmended
}

/// Returns true once all nodes that were marked down carry rooms again.
async fn trusted_again(marked_down: &[String], crowd: &Crowd, healed_ns: u64) -> bool {
    let mut all = true;
    for node in marked_down {
        let is_up = |event: &ServerEvent| is_node(event, node, "up");
        all &= crowd.events.wait(healed_ns, TRUSTED_WITHIN, is_up).await;
    }
    all
}

async fn order(admin: &mut ApiClient, node: &str, order: &str) -> Result<(), LabError> {
    let (verb, body) = match order {
        "start" => ("start", Value::Null),
        how => ("break", json!({"how": how})),
    };
    let asked = admin.post(&format!("/v1/nodes/{node}:{verb}"), &body).await;
    asked.map(drop).map_err(LabError::gateway(&format!("{order} {node}")))
}

/// Waits until the breaker of the region admits sessions.
async fn breaker_closed(
    admin: &mut ApiClient,
    victims: &[DrillNode],
    within: Duration,
) -> Result<(), DrillError> {
    let Some(DrillNode { region, .. }) = victims.first() else { return Ok(()) };
    let until = tokio::time::Instant::now() + within;
    let mut told = false;
    loop {
        let regions = admin.regions().await.map_err(LabError::gateway("listing regions"))?;
        let breaker = regions.into_iter().find(|row| *row.region == **region);
        let breaker = breaker.unwrap_or_default().breaker;
        if breaker.is_empty() || breaker == "closed" {
            return Ok(());
        }
        if tokio::time::Instant::now() >= until {
            let words = format!(
                "the breaker of region {region} is {breaker} and admits too few sessions; `evenkeel region list` shows why"
            );
            return Err(DrillError::Unfit(words));
        }
        if !std::mem::replace(&mut told, true) {
            eprintln!("the breaker of region {region} is {breaker}: waiting until it is closed");
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn nodes(admin: &mut ApiClient) -> Result<Vec<DrillNode>, LabError> {
    let nodes = admin.nodes().await.map_err(LabError::gateway("listing nodes"))?;
    let node = |node: Node| DrillNode {
        zone: node.hop.place.full_zone(),
        name: node.hop.place.node.to_string(),
        region: node.hop.place.region.to_string(),
        rooms: node.rooms.into(),
        is_up: node.health == "up",
    };
    Ok(nodes.into_iter().map(node).collect())
}

/// The nodes to break, which are never all usable nodes.
fn victims(drill: &DrillPlan, nodes: &[DrillNode]) -> Result<Vec<DrillNode>, DrillError> {
    let unfit = |words: String| Err(DrillError::Unfit(words));
    let busiest = nodes.iter().filter(|node| node.is_up).max_by_key(|node| node.rooms);
    let Some(busiest) = busiest else {
        return unfit("no node of this gateway is up; nothing to break".to_owned());
    };
    let (kind, place): (&str, fn(&DrillNode) -> &String) = match drill.kind {
        DrillFault::LoseZone => ("zone", |node| &node.zone),
        DrillFault::LoseRegion => ("region", |node| &node.region),
        DrillFault::KillNode | DrillFault::HangNode | DrillFault::CutLink | DrillFault::Flap => {
            ("node", |node| &node.name)
        }
    };
    let wanted = drill.place.as_ref().unwrap_or_else(|| place(busiest));
    let there: Vec<&DrillNode> = nodes.iter().filter(|node| place(node) == wanted).collect();
    if there.is_empty() {
        let names: BTreeSet<&str> = nodes.iter().map(|node| place(node).as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let words = format!("there is no {kind} {wanted:?}, only {}", names.join(", "));
        return Err(DrillError::Unknown(words));
    }
    let hit: Vec<&DrillNode> = there.into_iter().filter(|node| node.is_up).collect();
    let is_hit = |node: &DrillNode| hit.iter().any(|hit| hit.name == node.name);
    if !nodes.iter().any(|node| node.is_up && !is_hit(node)) {
        return unfit("no other node is up; the rooms would have nowhere to go".to_owned());
    }
    if hit.is_empty() {
        return unfit("the node is not up; a drill needs a node that carries rooms".to_owned());
    }
    Ok(hit.into_iter().cloned().collect())
}

/// Synthetic sessions with their lead hop at one of these nodes.
async fn sessions_on(
    nodes: &[String],
    admin: &mut ApiClient,
    crowd: &Crowd,
) -> Result<BTreeSet<u64>, LabError> {
    let rooms = admin.rooms().await.map_err(LabError::gateway("listing rooms"))?;
    let is_there = |hop: &Hop| nodes.iter().any(|node| **node == *hop.place.node);
    let there = rooms.iter().filter(|room| room.hop.as_ref().is_some_and(is_there));
    let ids = there.flat_map(|room| &room.sessions);
    Ok(ids.filter_map(|id| crowd.by_id().get(id).copied()).collect())
}

#[cfg(test)]
mod tests;
