//! The fleet as it is with all rooms in another redundancy mode: the copy changes the mode before it loses nodes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_model::{NodeId, RedundancyMode};
use evenkeel_nodes::Node;

use super::{BlastRadius, GatewayCopy, LossSurvey, LossTrial, PLAYED, RoomLoss};
use crate::gateway::Tables;
use crate::gateway::copy::CopiedNode;
use crate::record::RestoreError;

/// Maximum virtual time in which rooms take the mode.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);

/// Rooms are looked at again after this virtual time, until all have taken the mode.
const CHANGE_STEP: Duration = Duration::from_millis(500);

/// The spares, capacity and bandwidth of all rooms in one mode, and the loss of nodes then.
#[derive(Clone, PartialEq, Debug)]
pub struct ModePrediction {
    /// The mode that all rooms have in the copy.
    pub mode: RedundancyMode,
    /// The number of rooms that a node carries.
    pub rooms: u32,
    /// Rooms for which no second node has capacity: all, in a mode that keeps none.
    pub rooms_without_spare: u32,
    /// The load of rooms that lack the second node which the mode wants, kbit/s: capacity that is needed beside what is free.
    pub needed_kbps: u64,
    /// Capacity of the nodes that take rooms, without loads and reserves, kbit/s.
    pub free_kbps: u64,
    /// The load at first hops, kbit/s.
    pub media_kbps: u64,
    /// The load that second hops carry as well, kbit/s.
    pub copied_kbps: u64,
    /// The loss. Opening a session takes a round trip to the node.
    pub loss: BlastRadius,
    /// The outage of sessions at lost nodes, without those that find no other node; `None` if there are no others.
    pub outage: Option<ExpectedOutage>,
}

/// The time from the last packet of a lost node to the first one of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpectedOutage {
    /// The median of the outages of sessions.
    pub median: Duration,
    /// The longest outage.
    pub longest: Duration,
}

impl GatewayCopy {
    /// Plays the change of all rooms to a mode, and then the loss of these nodes at once.
    ///
    /// # Errors
    /// As [`GatewayCopy::lose`].
    pub fn lose_in_mode(
        &self,
        mode: RedundancyMode,
        lost: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Result<ModePrediction, RestoreError> {
        let mut settings = self.settings().clone();
        settings.scenarios.values_mut().for_each(|scenario| scenario.mode = mode);
        let mut trial = LossTrial::begin(self, settings, now)?;
        trial.opens_within = self.nodes().iter().map(CopiedNode::round_trip).collect();
        while !trial.gateway.tables.worklists.changing.is_empty()
            && trial.now < now + CHANGED_WITHIN
        {
            trial.play(trial.now + CHANGE_STEP);
        }
        trial.play(trial.now + PLAYED);
        let before = trial.survey();
        let table = &trial.gateway.rooms;
        let Tables { nodes, capacity, worklists, .. } = &trial.gateway.tables;
        let placed = || before.holdings.values().filter(|holding| holding.on.is_some());
        let rooms = placed().count() as u32;
        let media_kbps = placed().map(|holding| holding.kbps).sum();
        let doubled = placed().filter(|holding| holding.twin.is_some());
        let copied_kbps = doubled.map(|holding| holding.kbps).sum();
        let rooms_without_spare = match mode.opens_ahead() {
            true => worklists.unprotected() as u32,
            false => rooms,
        };
        let unprotected = worklists.unprotected_rooms().filter_map(|id| table.get(&id));
        let needed_kbps = unprotected.map(|room| room.holding().kbps).sum();
        let ledger = capacity.ledger();
        // The capacity of a machine with two names exists once.
        let takes = |id: &NodeId| nodes.get(*id).is_some_and(Node::welcomes_rooms);
        let is_one =
            |node: &&Node| ledger.beside(node.id).filter(takes).all(|other| other > node.id);
        let takers = nodes.iter().filter(|node| node.welcomes_rooms()).filter(is_one);
        let free = |node: &Node| {
            let used = ledger.carried(node.id) + ledger.reserve(node.id);
            ledger.capacity(node.id).saturating_sub(used)
        };
        let free_kbps = takers.map(free).sum();
        trial.lose(lost);
        trial.play(trial.now + PLAYED);
        let loss = trial.compare(self, &before);
        let outage = self.outage(&before, lost, &loss);
        Ok(ModePrediction {
            mode,
            rooms,
            rooms_without_spare,
            needed_kbps,
            free_kbps,
            media_kbps,
            copied_kbps,
            loss,
            outage,
        })
    }

    fn outage(
        &self,
        before: &LossSurvey,
        lost: &BTreeSet<NodeId>,
        loss: &BlastRadius,
    ) -> Option<ExpectedOutage> {
        let of_room = |room: &RoomLoss| {
            let holding = before.holdings.get(&room.room)?;
            let carrier = self.nodes().get(holding.on?.0 as usize)?;
            let survives = |spare: Option<NodeId>| {
                let spare = spare.and_then(|spare| self.nodes().get(spare.0 as usize));
                spare.is_some_and(|spare| !lost.contains(&spare.id()))
            };
            if survives(holding.twin) {
                return Some(Duration::ZERO);
            }
            // Packets take a reserved hop as soon as the death is detected, before the room moves.
            let after = if survives(holding.reserve) { Duration::ZERO } else { room.after? };
            Some(carrier.detected_within() + after)
        };
        let of_rooms = loss.rooms.iter().filter_map(|room| Some((of_room(room)?, room.sessions)));
        let mut outages: Vec<(Duration, u32)> = of_rooms.collect();
        outages.sort_unstable();
        let sessions: u32 = outages.iter().map(|(_, sessions)| *sessions).sum();
        let mut counted = 0_u32;
        let median = outages.iter().find(|(_, more)| {
            counted += more;
            counted * 2 >= sessions
        })?;
        let longest = outages.last()?;
        Some(ExpectedOutage { median: median.0, longest: longest.0 })
    }
}
