//! Compares deaths of nodes with the blast radii that were computed before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_model::{
    CoreEvent, Decider, EvidenceSource, Health, Hop, MoveCause, NodeId, Op, PortMove, RoomId,
    SessionId,
};
use evenkeel_process::unix_us;

use crate::messages::{LossComparison, LossFigures, PredictedLoss};
use crate::reporting::{EventRecord, GatewayEvent};

/// Time after the first death in which further deaths belong to the same fault, and rooms find other nodes. A copy is played for as
/// long.
pub const FOLLOWED_US: u64 = 5_000_000;

/// Follows nodes that die, and their rooms.
#[derive(Default)]
pub(super) struct FaultObserver {
    predictions: Arc<[PredictedLoss]>,
    fault: Option<ObservedFault>,
}

/// Nodes that died together.
struct ObservedFault {
    died_us: u64,
    nodes: BTreeMap<NodeId, Hop>,
    witnesses: BTreeSet<EvidenceSource>,
    rooms: BTreeMap<RoomId, HitRoom>,
    /// Sessions that lack capacity, of any room.
    reduced: BTreeSet<SessionId>,
    /// Those before the fault.
    predictions: Arc<[PredictedLoss]>,
}

/// A room of a dead node.
struct HitRoom {
    sessions: Vec<SessionId>,
    /// It has found another node.
    is_placed: bool,
}

impl FaultObserver {
    pub(super) fn predict(&mut self, predictions: Vec<PredictedLoss>) {
        self.predictions = predictions.into();
    }

    pub(super) fn follows_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// Forgets the fault, some events of which were missed.
    pub(super) fn forget(&mut self) {
        self.fault = None;
    }

    /// Takes an event. Returns a fault that ended before it.
    pub(super) fn handle(&mut self, record: &EventRecord) -> Option<LossComparison> {
        let at_us = unix_us(record.at);
        let ended = self.end(at_us);
        match (&record.event, &mut self.fault) {
            (
                GatewayEvent::Core(CoreEvent::Node { hop, to: Health::Down, witnesses, .. }),
                fault,
            ) => {
                let begin = || ObservedFault::begin(at_us, Arc::clone(&self.predictions));
                let fault = fault.get_or_insert_with(begin);
                fault.nodes.insert(hop.node, *hop);
                fault.witnesses.extend(witnesses.iter().map(|(witness, _)| *witness));
            }
            (GatewayEvent::Core(event), Some(fault)) => fault.handle(event),
            _ => {}
        }
        ended
    }

    /// Returns the fault if its time has passed.
    pub(super) fn end(&mut self, now_us: u64) -> Option<LossComparison> {
        let is_over = |fault: &mut ObservedFault| now_us >= fault.died_us + FOLLOWED_US;
        Some(self.fault.take_if(is_over)?.compare())
    }
}

impl ObservedFault {
    fn begin(died_us: u64, predictions: Arc<[PredictedLoss]>) -> ObservedFault {
        ObservedFault {
            died_us,
            nodes: BTreeMap::new(),
            witnesses: BTreeSet::new(),
            rooms: BTreeMap::new(),
            reduced: BTreeSet::new(),
            predictions,
        }
    }

    fn handle(&mut self, event: &CoreEvent) {
        match event {
            CoreEvent::Moved { room, sessions, from, to, .. }
                if self.nodes.contains_key(&from.node) =>
            {
                let hit = || HitRoom { sessions: sessions.clone(), is_placed: false };
                self.rooms.entry(*room).or_insert_with(hit).is_placed |= to.is_some();
            }
            CoreEvent::MoveCauseFound { hop, cause: MoveCause::NodeDown, moves }
                if self.nodes.contains_key(&hop.node) =>
            {
                for PortMove { room, sessions, .. } in moves {
                    let hit = || HitRoom { sessions: sessions.clone(), is_placed: false };
                    self.rooms.entry(*room).or_insert_with(hit).is_placed = true;
                }
            }
            CoreEvent::Degraded { session, op: Op::Cap, arg, by: Decider::Native, .. } => {
                match arg {
                    0 => self.reduced.remove(session),
                    _ => self.reduced.insert(*session),
                };
            }
            _ => {}
        }
    }

    fn compare(self) -> LossComparison {
        let nodes: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let predicted = self.predictions.iter().find(|predicted| predicted.nodes == nodes).cloned();
        let mut actual = LossFigures { rooms: self.rooms.len() as u32, ..LossFigures::default() };
        for HitRoom { sessions, is_placed } in self.rooms.values() {
            let reduced = sessions.iter().filter(|session| self.reduced.contains(session));
            actual.sessions += sessions.len() as u32;
            actual.reduced_sessions += reduced.count() as u32;
            actual.unplaced_sessions += if *is_placed { 0 } else { sessions.len() as u32 };
        }
        LossComparison {
            nodes: self.nodes.into_values().collect(),
            died_us: self.died_us,
            witnesses: self.witnesses,
            predicted,
            actual,
        }
    }
}

#[cfg(test)]
mod tests;
