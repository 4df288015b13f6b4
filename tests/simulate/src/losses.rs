//! The blast radius that a copy of the gateway predicts, compared with the loss itself while no other input decides.
//!
//! If nodes die in one moment and sessions open at once, as in the copy, all of it is exact: the rooms, their next nodes,
//! those without one, and the sessions with a smaller share. Each seed plays such a loss in the world of the seed with its
//! faults, in a crowded world, and in one that reserves capacity for the death of a zone. Nodes that are found dead one
//! after the other, and open sessions in their own time, move some rooms elsewhere. Of one node it is exact even then.

mod draw;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::{BlastRadius, GatewayEffect};
use evenkeel_model::{
    BreakerState, CoreEvent, FailureScope, Health, Hop, NodeId, RoomId, SessionId,
};
use fastrand::Rng;

use crate::check::Violation;
use crate::fault::{Episode, Fault};
use crate::policies::Library;
use crate::script::Script;
use crate::world::World;

/// Of so many seeds, one plays a loss that the gateway detects, which takes as long as all others.
const DETECTED_EVERY: u64 = 4;

/// All sessions of a world with detection are open by then, and the rates of all nodes are known.
const QUIET_AFTER: Duration = ms(4_000);

/// The time that a copy plays.
const PLAYED: Duration = ms(5_000);

/// The same with the time for the detection of a loss.
const LASTS: Duration = ms(5_500);

/// No session ends for silence during a loss, as in a copy.
const NEVER_SILENT: Duration = Duration::from_secs(86_400);

/// A gateway that has decided nothing for this long has finished what it decided before: it reviews rooms each 500 ms.
const RESTS_FOR: Duration = ms(1_000);

/// Interval of checks whether the gateway rests.
const LOOKED_EVERY: Duration = ms(100);

/// Evidence about nodes and media is decided about within this time.
const EVIDENCE_FOR: Duration = ms(3_000);

/// The scopes of drawn losses; `None`: all nodes of the gateway. Smaller ones are played more often.
const SCOPES: [Option<FailureScope>; 6] = [
    Some(FailureScope::Node),
    Some(FailureScope::Node),
    Some(FailureScope::Zone),
    Some(FailureScope::Zone),
    Some(FailureScope::Region),
    None,
];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct LossOutcome {
    pub violations: Vec<Violation>,
    /// Worlds that lost nodes in one moment, by the scope of the loss.
    pub worlds: BTreeMap<&'static str, u64>,
    /// Rooms of these nodes.
    pub rooms: u64,
    /// Rooms of them without a node afterwards, though the gateway has other nodes.
    pub unplaced: u64,
    /// Sessions of these rooms that got a smaller share of their bit rate.
    pub reduced: u64,
    /// Worlds in which all rooms were covered against the death of a zone, and nodes of one zone died.
    pub covered_worlds: u64,
    /// Rooms of nodes whose deaths the gateway detected.
    pub detected: u64,
    /// Rooms of them that went elsewhere, or nowhere: each of several nodes is found dead at its own time.
    pub elsewhere: u64,
}

impl LossOutcome {
    pub(crate) fn add(&mut self, other: LossOutcome) {
        self.violations.extend(other.violations);
        for (scope, worlds) in other.worlds {
            *self.worlds.entry(scope).or_default() += worlds;
        }
        self.rooms += other.rooms;
        self.unplaced += other.unplaced;
        self.reduced += other.reduced;
        self.covered_worlds += other.covered_worlds;
        self.detected += other.detected;
        self.elsewhere += other.elsewhere;
    }
}

/// Plays the losses of a seed.
pub fn play(seed: u64, library: &Library) -> LossOutcome {
    let mut rng = Rng::with_seed(seed ^ 0x0010_5500);
    let mut outcome = LossOutcome::default();
    let script = draw::faulty(seed);
    let end = (script.lasts - script.calm).as_millis() as u64;
    let (from, scope) = (ms(rng.u64(2_500..end)), SCOPES[rng.usize(..SCOPES.len())]);
    outcome.add(play_sudden(script, from, scope, &mut rng, library));
    let script = draw::crowded(&mut rng, seed);
    let (from, scope) = (ms(rng.u64(1_200..2_200)), SCOPES[rng.usize(..SCOPES.len())]);
    outcome.add(play_sudden(script, from, scope, &mut rng, library));
    let script = draw::reserving(&mut rng, seed);
    let from = ms(rng.u64(1_200..2_200));
    outcome.add(play_sudden(script, from, Some(FailureScope::Zone), &mut rng, library));
    if seed.is_multiple_of(DETECTED_EVERY) {
        outcome.add(play_detected(seed, library));
    }
    outcome
}

/// Loses nodes in one moment: once the gateway rests, from this time on. `None`: all nodes of the gateway.
fn play_sudden(
    script: Script,
    from: Duration,
    scope: Option<FailureScope>,
    rng: &mut Rng,
    library: &Library,
) -> LossOutcome {
    let mut world = World::new(script, library);
    if !rest(&mut world, from) {
        return LossOutcome { violations: world.violations(), ..LossOutcome::default() };
    }
    let lost = draw_lost(&world, scope, rng);
    let covers_zones = world
        .gateway
        .scenarios()
        .all(|(_, it)| it.reserve == Some(FailureScope::Zone) && it.mode.opens_ahead());
    let before = rooms(&world);
    let predicted = predict(&mut world, &lost);
    let seen = lose_at_once(&mut world, &lost);
    let after = rooms(&world);
    let hit = rooms_on(&before, &seen.died);
    let mut differ = seen.differences(&predicted, &hit);
    let mut outcome = LossOutcome::default();
    *outcome.worlds.entry(scope.map_or("gateway", FailureScope::name)).or_default() += 1;
    for room in &predicted.rooms {
        let to = seen.taken.get(&room.room).copied();
        let reduced = reduced(before.get(&room.room), after.get(&room.room));
        if (to, reduced) != (room.to, room.reduced) {
            differ.push(format!(
                "room {} of {} went to {} with {reduced} sessions reduced, predicted {} with {}",
                room.room,
                room.from,
                name(to),
                name(room.to),
                room.reduced
            ));
        }
        outcome.rooms += 1;
        outcome.unplaced += u64::from(to.is_none() && scope.is_some());
        outcome.reduced += u64::from(reduced);
    }
    let is_zone = matches!(scope, Some(FailureScope::Node | FailureScope::Zone));
    if is_zone && covers_zones && predicted.unprotected_before == 0 && !hit.is_empty() {
        outcome.covered_worlds += 1;
        let stands = |id: &RoomId| after.get(id).is_some_and(|room| room.on.is_some());
        let left: Vec<&RoomId> =
            hit.iter().filter(|id| seen.stranded.contains(*id) || !stands(id)).collect();
        if !left.is_empty() {
            let what = format!("rooms {left:?} had no node, though all rooms were covered");
            outcome.violations.push(violation(&world, "reserve", what));
        }
    }
    let differ = differ.into_iter().map(|what| violation(&world, "blast", what));
    outcome.violations.extend(differ);
    outcome
}

fn name(node: Option<NodeId>) -> String {
    node.map_or_else(|| "no node".to_owned(), |node| node.to_string())
}

fn violation(world: &World<'_>, invariant: &'static str, what: String) -> Violation {
    Violation { invariant, at: world.now - world.began, what }
}

/// A placed room at one time.
struct PlacedRoom {
    on: Option<NodeId>,
    /// The shares of its sessions, in thousandths.
    shares: BTreeMap<SessionId, u16>,
}

fn rooms(world: &World<'_>) -> BTreeMap<RoomId, PlacedRoom> {
    let views = world.gateway.views();
    let share = |id: &SessionId| Some((*id, views.explain(*id, world.now)?.share_permille));
    let rooms = views.rooms_after(RoomId(0)).filter_map(|(id, room)| {
        let room = room?;
        let shares = room.sessions.iter().filter_map(share).collect();
        Some((id, PlacedRoom { on: room.hop.map(|hop| hop.node), shares }))
    });
    rooms.collect()
}

fn rooms_on(rooms: &BTreeMap<RoomId, PlacedRoom>, nodes: &BTreeSet<NodeId>) -> BTreeSet<RoomId> {
    let on = |room: &PlacedRoom| room.on.is_some_and(|on| nodes.contains(&on));
    rooms.iter().filter(|(_, room)| on(room)).map(|(id, _)| *id).collect()
}

/// The number of sessions of a room that have a smaller share.
fn reduced(before: Option<&PlacedRoom>, after: Option<&PlacedRoom>) -> u32 {
    let (Some(before), Some(after)) = (before, after) else { return 0 };
    let is_less = |(id, share): &(&SessionId, &u16)| {
        before.shares.get(*id).is_some_and(|before| *share < before)
    };
    after.shares.iter().filter(is_less).count() as u32
}

/// A running node, with its zone or region; or all nodes.
fn draw_lost(world: &World<'_>, scope: Option<FailureScope>, rng: &mut Rng) -> BTreeSet<NodeId> {
    let table = world.gateway.node_table();
    let Some(scope) = scope else { return table.iter().map(|node| node.id).collect() };
    let runs = table.iter().filter(|node| node.runs());
    let running: Vec<NodeId> = runs.map(|node| node.id).collect();
    let Some(one) = rng.choice(&running).copied() else { return BTreeSet::new() };
    match table.domain_of(one, scope) {
        Some(domain) => table.in_domain(domain).map(|node| node.id).collect(),
        None => BTreeSet::from([one]),
    }
}

fn predict(world: &mut World<'_>, lost: &BTreeSet<NodeId>) -> BlastRadius {
    let now = world.now;
    let records = world.gateway.records();
    let mut copy = records.copy_nodes();
    for (_, room) in records.copy_rooms(RoomId(0), now) {
        room.into_iter().for_each(|room| copy.add_room(room));
    }
    for (_, session) in records.copy_sessions(SessionId(0)) {
        session.into_iter().for_each(|session| copy.add_session(session));
    }
    copy.lose(lost, now).expect("the parts of the copy are of one moment")
}

/// The effect of a loss on the gateway itself.
#[derive(Default)]
struct SeenLoss {
    /// The lost nodes that ran.
    died: BTreeSet<NodeId>,
    /// The first new node of each room.
    taken: BTreeMap<RoomId, NodeId>,
    /// Rooms that had no node, if only for a moment.
    stranded: BTreeSet<RoomId>,
}

impl SeenLoss {
    /// Nodes that died and rooms that were hit without being predicted, or the reverse.
    fn differences(&self, predicted: &BlastRadius, hit: &BTreeSet<RoomId>) -> Vec<String> {
        let mut differ = Vec::new();
        let nodes: BTreeSet<NodeId> = predicted.nodes.iter().copied().collect();
        if nodes != self.died {
            differ.push(format!("nodes {:?} died, predicted {nodes:?}", self.died));
        }
        let rooms: BTreeSet<RoomId> = predicted.rooms.iter().map(|room| room.room).collect();
        if rooms != *hit {
            differ.push(format!("rooms {hit:?} were hit, predicted {rooms:?}"));
        }
        differ
    }
}

/// The nodes die in one moment. Sessions open at once, and nothing else happens for as long as a copy plays.
fn lose_at_once(world: &mut World<'_>, lost: &BTreeSet<NodeId>) -> SeenLoss {
    let mut now = world.now;
    let until = now + PLAYED;
    let mut seen = SeenLoss::default();
    let gateway = &mut world.gateway;
    gateway.handle_summaries_within(NEVER_SILENT);
    seen.died = gateway.change_nodes(now, |nodes| nodes.lose(lost.iter().copied(), now));
    loop {
        while let Some(output) = gateway.poll_output() {
            match output {
                GatewayEffect::Open { session, hop, .. } => {
                    gateway.handle_opened(session, hop, Ok(()), now);
                }
                GatewayEffect::Event(CoreEvent::Moved { room, to: Some(to), .. }) => {
                    seen.taken.entry(room).or_insert(to.node);
                }
                GatewayEffect::Event(CoreEvent::Moved { room, to: None, .. }) => {
                    seen.stranded.insert(room);
                }
                _ => {}
            }
        }
        let Some(next) = gateway.poll_timeout().filter(|next| *next <= until) else { break };
        now = now.max(next);
        gateway.handle_timeout(now);
    }
    world.now = until;
    seen
}

/// Plays on from this time until the gateway rests. False if the world ends before.
fn rest(world: &mut World<'_>, from: Duration) -> bool {
    let mut at = from;
    world.play_until(at);
    let (mut since, mut decided) = (at, Decisions::of(world));
    while at < world.script.lasts && world.checker.violations.is_empty() {
        at += LOOKED_EVERY;
        world.play_until(at);
        let next = Decisions::of(world);
        if next != decided || waits(world) || has_evidence(world) {
            (since, decided) = (at, next);
        } else if at - since >= RESTS_FOR {
            return world.checker.violations.is_empty();
        }
    }
    false
}

/// The decisions of the gateway, to see whether it makes others.
#[derive(PartialEq)]
struct Decisions {
    /// The versions of the rooms' routes.
    routes: BTreeMap<RoomId, u64>,
    nodes: Vec<(Hop, Health)>,
    live: usize,
    admitted: u64,
}

impl Decisions {
    fn of(world: &World<'_>) -> Decisions {
        let rooms = &world.checker.scene.rooms;
        let nodes = world.gateway.views().nodes();
        Decisions {
            routes: rooms.iter().map(|(id, room)| (*id, room.route.load().version)).collect(),
            nodes: nodes.map(|node| (node.hop, node.health)).collect(),
            live: world.gateway.live(),
            admitted: world.outcome.admitted,
        }
    }
}

/// The gateway waits for answers, or for capacity. A copy has no moves and openings under way.
fn waits(world: &World<'_>) -> bool {
    let gateway = &world.gateway;
    let sizes = gateway.views().table_sizes();
    let mut rooms = gateway.views().rooms_after(RoomId(0));
    sizes.asks + sizes.opening + sizes.waiting + sizes.drains > 0
        || sizes.sessions > gateway.live()
        || gateway.moves_under_way().next().is_some()
        || rooms.any(|(_, room)| room.is_none_or(|room| room.hop.is_none()))
}

/// Evidence that the gateway has, and a copy has not, may make it decide by itself.
fn has_evidence(world: &World<'_>) -> bool {
    let (now, at) = (world.now, world.now - world.began);
    let is_fresh = |Episode { at: begins, lasts, fault }: &Episode| {
        !is_decided_once(fault) && (*begins..*begins + *lasts + EVIDENCE_FOR).contains(&at)
    };
    let (views, table) = (world.gateway.views(), world.gateway.node_table());
    let mut running = table.iter().filter(|node| node.runs());
    let mut standings = views.nodes();
    world.script.faults.iter().any(is_fresh)
        || views.regions(now).any(|region| region.breaker != BreakerState::Closed)
        || running.any(|node| {
            node.health() == Health::Suspect
                || node.loses()
                || node.worse_for(now).is_some()
                || node.takes_rooms() != node.welcomes_rooms()
        })
        || standings.any(|standing| {
            let is_shut = standing.zone_breaker != BreakerState::Closed;
            let node = table.get(standing.hop.node).filter(|node| node.runs());
            is_shut
                || node.is_some_and(|node| node.settings.capacity_kbps != standing.capacity_kbps)
        })
}

/// After a death the gateway waits for the node's return only.
fn is_decided_once(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Kill(_) | Fault::Silent(_) | Fault::RegionKilled(_) | Fault::RegionSilent(_)
    )
}

/// Plays the loss of a node, or of the nodes of a zone, that the gateway detects.
fn play_detected(seed: u64, library: &Library) -> LossOutcome {
    let mut rng = Rng::with_seed(seed ^ 0x000b_1a57);
    let (script, lost) = draw::detected(&mut rng, seed);
    let mut world = World::new(script, library);
    world.play_until(QUIET_AFTER);
    let hit = rooms_on(&rooms(&world), &lost);
    let predicted = predict(&mut world, &lost);
    world.play_until(QUIET_AFTER + LASTS);
    let stays = |nodes: &Vec<NodeId>| nodes.iter().copied().find(|node| !lost.contains(node));
    let mut outcome = LossOutcome { violations: world.violations(), ..LossOutcome::default() };
    let listed: BTreeSet<RoomId> = predicted.rooms.iter().map(|room| room.room).collect();
    let mut differ = Vec::new();
    if listed != hit {
        differ.push(format!("rooms {hit:?} were hit, predicted {listed:?}"));
    }
    for room in &predicted.rooms {
        let to = world.outcome.taken.get(&room.room).and_then(stays);
        outcome.detected += 1;
        match lost.len() {
            _ if to == room.to => {}
            1 => differ.push(format!("{} took {room:?}", name(to))),
            _ => outcome.elsewhere += 1,
        }
    }
    let differ = differ.into_iter().map(|what| violation(&world, "blast", what));
    outcome.violations.extend(differ);
    outcome
}
