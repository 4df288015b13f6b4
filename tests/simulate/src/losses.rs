//! The blast radius that a copy of the gateway predicts, compared with the loss itself: nodes that die, are detected, and
//! open sessions in their own time, while no other input decides. Of one node it is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_core::BlastRadius;
use evenkeel_model::{FailureScope, NodeId, RedundancyMode, RegionId, RoomId, SessionId};
use fastrand::Rng;

use crate::check::Violation;
use crate::fault::{Episode, Fault};
use crate::policies::Library;
use crate::rows::setup::{Place, calls};
use crate::script::Script;
use crate::world::World;

/// All sessions are open by then, and the rates of all nodes are known.
const QUIET_AFTER: Duration = Duration::from_secs(4);

/// The time that a copy plays, and the time for the detection of a loss.
const LASTS: Duration = Duration::from_millis(5_500);

/// The regions of the zones.
const REGIONS: [usize; 4] = [0, 0, 0, 1];

#[derive(Clone, PartialEq, Default, Debug)]
pub struct LossOutcome {
    pub violations: Vec<Violation>,
    /// Rooms of lost nodes.
    pub rooms: u64,
    /// Those that went elsewhere, or nowhere: each of several nodes is found dead at its own time.
    pub elsewhere: u64,
    /// Those without a node afterwards.
    pub unplaced: u64,
    /// Worlds in which all rooms were covered against the death of a zone, and nodes of one zone died.
    pub covered_worlds: u64,
}

impl LossOutcome {
    pub(crate) fn add(&mut self, other: LossOutcome) {
        self.violations.extend(other.violations);
        self.rooms += other.rooms;
        self.elsewhere += other.elsewhere;
        self.unplaced += other.unplaced;
        self.covered_worlds += other.covered_worlds;
    }
}

/// Plays the loss of a node, a zone or a region.
pub fn play(seed: u64, library: &Library) -> LossOutcome {
    let mut rng = Rng::with_seed(seed ^ 0x000b_1a57);
    let (script, lost) = draw(&mut rng, seed);
    let covers_zones =
        script.settings.scenarios.values().all(|scenario| scenario.reserve != FailureScope::Node);
    let mut world = World::new(script, library);
    world.play_until(QUIET_AFTER);
    let before = carriers(&world);
    let predicted = predict(&mut world, &lost);
    world.play_until(QUIET_AFTER + LASTS);
    // The nodes of a zone are found dead one after the other.
    let stays = |nodes: &Vec<NodeId>| nodes.iter().copied().find(|node| !lost.contains(node));
    let taken = |room: &RoomId| world.outcome.taken.get(room).and_then(stays);
    let mut outcome = LossOutcome { violations: world.violations(), ..LossOutcome::default() };
    let hit: BTreeSet<RoomId> =
        before.iter().filter(|(_, on)| lost.contains(*on)).map(|(room, _)| *room).collect();
    let mut differ = Vec::new();
    let listed: BTreeSet<RoomId> = predicted.rooms.iter().map(|room| room.room).collect();
    if listed != hit {
        differ.push(format!("rooms {hit:?} were hit, of {listed:?}"));
    }
    for room in &predicted.rooms {
        let to = taken(&room.room);
        if to != room.to && lost.len() == 1 {
            differ.push(format!("{to:?} took {room:?}"));
        } else if to != room.to {
            outcome.elsewhere += 1;
        }
        outcome.rooms += 1;
        outcome.unplaced += u64::from(to.is_none());
    }
    outcome.violations.extend(differ.into_iter().map(|what| violation("blast", what)));
    // A zone at most dies.
    if covers_zones && predicted.unprotected_before == 0 && !hit.is_empty() {
        outcome.covered_worlds += 1;
        let stranded = hit.iter().filter(|room| taken(room).is_none()).count();
        if stranded > 0 {
            let what = format!("{stranded} rooms without a node, though all were covered");
            outcome.violations.push(violation("reserve", what));
        }
    }
    outcome
}

fn violation(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, at: QUIET_AFTER + LASTS, what }
}

/// Nodes in three zones and another region, rooms of two, and the nodes that die in one moment.
fn draw(rng: &mut Rng, seed: u64) -> (Script, BTreeSet<NodeId>) {
    let ms = Duration::from_millis;
    let place = |rng: &mut Rng| -> Place {
        let zone = rng.usize(..REGIONS.len());
        let delay = if REGIONS[zone] == 0 { ms(1) } else { ms(20) };
        (zone, rng.u64(500..4_000), delay)
    };
    let places: Vec<Place> = (0..rng.usize(3..10)).map(|_| place(rng)).collect();
    let rooms = rng.u32(5..40);
    let mut script = calls(seed, rooms, &REGIONS, &places, QUIET_AFTER + LASTS + ms(1_000));
    let modes = [RedundancyMode::Hot, RedundancyMode::ActiveActive, RedundancyMode::Hitless];
    for scenario in script.settings.scenarios.values_mut() {
        // No policy decides.
        scenario.bound.fill(false);
        scenario.mode = modes[rng.usize(..modes.len())];
        scenario.regions = vec![RegionId(0), RegionId(1)];
        scenario.reserve = FailureScope::ALL[rng.usize(..FailureScope::ALL.len())];
        scenario.spares = rng.u8(1..4);
    }
    let one = rng.usize(..places.len());
    let scope = if rng.bool() { FailureScope::Node } else { FailureScope::Zone };
    let dies = |at: &usize| match scope {
        FailureScope::Node | FailureScope::Region => *at == one,
        FailureScope::Zone => places[*at].0 == places[one].0,
    };
    let lost: Vec<usize> = (0..places.len()).filter(dies).collect();
    script.faults = lost
        .iter()
        .map(|node| Episode { at: QUIET_AFTER, lasts: 2 * LASTS, fault: Fault::Kill(*node) })
        .collect();
    (script, lost.into_iter().map(|node| NodeId(node as u32)).collect())
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
    copy.lose(lost, now).expect("one moment contradicts itself nowhere")
}

/// The node that carries each room.
fn carriers(world: &World<'_>) -> BTreeMap<RoomId, NodeId> {
    let rooms = world.gateway.views().rooms_after(RoomId(0));
    rooms.filter_map(|(id, room)| Some((id, room?.hop?.node))).collect()
}
