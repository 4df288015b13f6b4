//! Legs: the openings of a session at hops.

use std::time::Instant;

use evenkeel_model::{Hop, RoomId};

use crate::collections::SmallMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LegState {
    /// Waiting for the node's window; the driver has not been asked yet.
    Waiting {
        /// The number of the session's room at nodes.
        call: RoomId,
    },
    /// The driver is opening it; after this time it counts as failed.
    Opening(Instant),
    Open,
}

impl LegState {
    fn is_waiting(&self) -> bool {
        matches!(self, LegState::Waiting { .. })
    }
}

/// A leg that was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeftLeg {
    pub(crate) hop: Hop,
    pub(crate) state: LegState,
}

/// Hops where the driver was asked to open the session and not yet to close it, and those that wait for it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Legs(SmallMap<Hop, LegState>);

impl Legs {
    pub(crate) fn get(&self, hop: &Hop) -> Option<LegState> {
        self.0.get(hop).copied()
    }

    pub(crate) fn contains(&self, hop: &Hop) -> bool {
        self.0.contains_key(hop)
    }

    pub(crate) fn is_open(&self, hop: &Hop) -> bool {
        self.get(hop) == Some(LegState::Open)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Hop, &LegState)> {
        self.0.iter()
    }

    /// The leg waits for the node's window.
    pub(crate) fn wait(&mut self, hop: Hop, call: RoomId) -> LegState {
        let leg = LegState::Waiting { call };
        self.0.insert(hop, leg);
        leg
    }

    /// The driver is asked to open the leg by this time.
    pub(crate) fn begin(&mut self, hop: Hop, until: Instant) {
        self.0.insert(hop, LegState::Opening(until));
    }

    /// The leg of a record is open, or must be closed.
    pub(crate) fn resume(&mut self, hop: Hop) {
        self.0.insert(hop, LegState::Open);
    }

    /// The driver has opened the leg. Returns its state before; `None` for a leg that waits: the answer belongs to
    /// an earlier opening.
    pub(crate) fn opened(&mut self, hop: Hop) -> Option<LegState> {
        let leg = self.0.get_mut(&hop).filter(|leg| !leg.is_waiting())?;
        Some(std::mem::replace(leg, LegState::Open))
    }

    /// The driver could not open the leg. `None` as for [`Self::opened`].
    pub(crate) fn failed(&mut self, hop: Hop) -> Option<LegState> {
        self.get(&hop).filter(|leg| !leg.is_waiting())?;
        self.0.remove(&hop)
    }

    /// The leg is not needed any more, whatever its state.
    pub(crate) fn give_up(&mut self, hop: Hop) -> Option<LegState> {
        self.0.remove(&hop)
    }

    /// Removes and returns the legs at hops that are not in use.
    pub(crate) fn leave_unused(&mut self, is_used: impl Fn(&Hop) -> bool) -> Vec<LeftLeg> {
        let left = self.0.extract(|hop| !is_used(hop)).into_iter();
        left.map(|(hop, state)| LeftLeg { hop, state }).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = LeftLeg> {
        self.0.iter().map(|(hop, state)| LeftLeg { hop: *hop, state: *state })
    }

    /// Hops that the driver has not opened in time.
    pub(crate) fn late(&self, now: Instant) -> Vec<Hop> {
        let late = |leg: &LegState| matches!(leg, LegState::Opening(until) if *until <= now);
        self.0.iter().filter(|(_, leg)| late(leg)).map(|(hop, _)| *hop).collect()
    }

    /// The time of the next opening timeout; `None` if no opening is awaited.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        let until = |leg: &LegState| match leg {
            LegState::Opening(until) => Some(*until),
            LegState::Open | LegState::Waiting { .. } => None,
        };
        self.0.values().filter_map(until).min()
    }
}

#[cfg(test)]
mod tests;
