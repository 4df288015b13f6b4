//! Rooms of a routing question.

use std::marker::PhantomData;

use crate::frame::Frame;
use crate::id::{NodeId, RoomId};
use crate::keep::{self, Reading, StateTable};
use crate::registry::Metric;
use crate::state::State;

/// Value that pads shorter routes in the table.
pub(crate) const NO_HOP: u32 = u32::MAX;

/// Rooms that may move.
#[derive(Debug)]
pub struct Rooms<'a, S = ()> {
    pub(crate) frame: Frame<'a>,
    pub(crate) width: usize,
    pub(crate) standing: &'a [u32],
    pub(crate) states: StateTable<'a>,
    pub(crate) reading: Reading,
    pub(crate) state: PhantomData<S>,
}

impl<S: State> Rooms<'_, S> {
    /// Iterates over all rooms.
    pub fn iter(&self) -> impl Iterator<Item = Room<'_, S>> {
        (0..self.frame.len()).map(|row| {
            let start = row * self.width;
            let standing = self.standing.get(start..start + self.width).unwrap_or_default();
            let state = self.reading.state(keep::row(self.states, row));
            Room { frame: &self.frame, row, standing, state }
        })
    }
}

/// A room with its measures, its route and its state.
#[derive(Debug)]
pub struct Room<'a, S = ()> {
    frame: &'a Frame<'a>,
    pub(crate) row: usize,
    standing: &'a [u32],
    state: S,
}

impl<'a, S> Room<'a, S> {
    /// Returns the room's number.
    pub fn id(&self) -> RoomId {
        RoomId(self.frame.ids[self.row])
    }

    /// Iterates over the room's current route, best node first. Packets take the first hop that is not Down.
    pub fn standing(&self) -> impl Iterator<Item = NodeId> + use<'a, S> {
        self.standing.iter().copied().filter(|&hop| hop != NO_HOP).map(NodeId)
    }

    /// Returns the room's state.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Returns a metric by its registry name. Each metric also has a function.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        self.frame.measured(self.row, metric)
    }
}
