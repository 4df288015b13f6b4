//! I9: packets flow whatever else fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, Health, Hop, RedundancyMode, RoomId};

use super::Scene;
use super::scene::SeenRoom;

/// A node that can take a stranded room all the time has it within this limit, which exceeds the time for which a report
/// of no capacity is believed.
const RESCUED_WITHIN: Duration = Duration::from_secs(6);

/// A hop that failed to take a room is not retried for 10 s.
const SHUNNED_FOR: Duration = Duration::from_secs(10);

/// Time for a start hook and the retries after its failure.
const STARTING_FOR: Duration = Duration::from_secs(12);

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(crate) struct Flow {
    stranded: BTreeMap<RoomId, Stranded>,
    /// The last time at which each room found a hop again.
    rescued: BTreeMap<RoomId, Instant>,
    /// The times at which hops were removed from rooms.
    struck: BTreeMap<(RoomId, Hop), Instant>,
    /// The last time at which drivers, nodes or links were impaired.
    hindered: Option<Instant>,
    /// The last call of a start hook.
    started: Option<Instant>,
}

/// A room without a usable hop.
struct Stranded {
    since: Instant,
    /// For each node, the time since which it could take the room.
    could: Vec<Option<Instant>>,
}

impl Flow {
    pub(super) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    pub(crate) fn hindered(&mut self, now: Instant) {
        self.hindered = Some(now);
    }

    pub(crate) fn last_hindered(&self) -> Option<Instant> {
        self.hindered
    }

    pub(super) fn hear(&mut self, event: &CoreEvent, now: Instant) {
        if let CoreEvent::HopRemoved { room, hop, .. } = event {
            self.struck.insert((*room, *hop), now);
        }
    }

    /// True if the room found a hop less than this time ago.
    pub(crate) fn rescued_within(&self, room: RoomId, time: Duration, now: Instant) -> bool {
        self.rescued.get(&room).is_some_and(|at| now - *at < time)
    }

    /// I9: a room has no hop only while no node can take it.
    pub(super) fn check_stranded(&mut self, scene: &Scene, now: Instant) -> Found {
        let lost = |room: &SeenRoom| room.is_placed() && room.stands(&scene.board).is_none();
        let found_again =
            self.stranded.extract_if(.., |id, _| !scene.rooms.get(id).is_some_and(lost));
        self.rescued.extend(found_again.map(|(id, _)| (id, now)));
        self.struck.retain(|_, at| now - *at < SHUNNED_FOR);
        let lost: Vec<_> = scene.rooms.iter().filter(|(_, room)| lost(room)).collect();
        if lost.is_empty() {
            return None;
        }
        let free = free(scene);
        let mut found = None;
        for (id, room) in lost {
            let stranded = self
                .stranded
                .entry(*id)
                .or_insert_with(|| Stranded { since: now, could: vec![None; free.len()] });
            stranded.could.resize(free.len(), None);
            let hindered = self.hindered.unwrap_or(stranded.since);
            let waits = |since: Instant| now.saturating_duration_since(since.max(hindered));
            let since = stranded.since;
            for (at, (could, free)) in stranded.could.iter_mut().zip(&free).enumerate() {
                let can = free.is_some_and(|(hop, kbps)| {
                    room.need <= kbps && !self.struck.contains_key(&(*id, hop))
                });
                *could = if can { could.or(Some(now)) } else { None };
                if could.is_some_and(|since| waits(since) > RESCUED_WITHIN) {
                    let lost = now - since;
                    let text =
                        format!("room {id} has had no hop for {lost:?}, but n{at} could take it");
                    found.get_or_insert(("I9", text));
                }
            }
            let cold =
                room.route.load().mode == RedundancyMode::Cold && waits(since) > RESCUED_WITHIN;
            let cold = cold && self.started.is_none_or(|at| now - at > STARTING_FOR);
            let startable =
                scene.nodes.iter().position(|node| node.health == Health::Cold && !node.draining);
            if let Some(at) = startable.filter(|_| cold) {
                let lost = now - since;
                let text =
                    format!("room {id} has had no hop for {lost:?}, and n{at} is not started");
                found.get_or_insert(("I9", text));
            }
        }
        found
    }
}

/// The free capacity of each node that accepts rooms, less its largest reservation, with its hop.
fn free(scene: &Scene) -> Vec<Option<(Hop, u64)>> {
    let (loads, reserved) = scene.needs();
    let kept = |at: usize| {
        let at_node = reserved.iter().filter(|((standby, _), _)| *standby == at);
        at_node.map(|(_, kbps)| *kbps).max().unwrap_or(0)
    };
    let free = |(at, node): (usize, &super::scene::SeenNode)| {
        let takes = matches!(node.health, Health::Up | Health::Wary) && !node.draining;
        takes.then(|| (node.hop, node.measured.saturating_sub(loads[at] + kept(at))))
    };
    scene.nodes.iter().enumerate().map(free).collect()
}
