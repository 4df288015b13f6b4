//! The sessions of a worker.

use evenkeel_media::trunk::Tag;
use evenkeel_model::{Hop, NodeId};

use super::session::WorkerSession;
use crate::flows::Home;

/// Random bits of a tag. The 24 bits above them hold the session's slot: 16 million, more than a gateway may hold.
const RANDOM_BITS: u32 = 40;

/// A worker's sessions, by slot. A session is accessed through a closure, one at a time, so that after a panic the
/// responsible session is known.
#[derive(Default)]
pub(crate) struct SessionSlots {
    slots: Vec<Option<Box<WorkerSession>>>,
    /// The slot that is being accessed. Outside of [`with`](Self::with) it is set only after a panic.
    current: Option<u32>,
}

impl SessionSlots {
    /// Accesses the session in this slot if it is of the same generation.
    pub(crate) fn with<T>(
        &mut self,
        home: Home,
        act: impl FnOnce(&mut WorkerSession) -> T,
    ) -> Option<T> {
        self.with_if(home.slot, |session| session.home == home, act)
    }

    pub(crate) fn with_slot<T>(
        &mut self,
        slot: u32,
        act: impl FnOnce(&mut WorkerSession) -> T,
    ) -> Option<T> {
        self.with_if(slot, |_| true, act)
    }

    /// Accesses the session with this tag at this node, and passes the hop. Earlier sessions in the slot had other
    /// tags.
    pub(crate) fn with_tag<T>(
        &mut self,
        node: NodeId,
        tag: Tag,
        act: impl FnOnce(&mut WorkerSession, Hop) -> T,
    ) -> Option<T> {
        let done = self.with_slot((tag.0 >> RANDOM_BITS) as u32, |session| {
            let hop = session.nodes.hop_of(tag).filter(|hop| hop.node == node)?;
            Some(act(session, hop))
        });
        done.flatten()
    }

    fn with_if<T>(
        &mut self,
        slot: u32,
        is_it: impl FnOnce(&WorkerSession) -> bool,
        act: impl FnOnce(&mut WorkerSession) -> T,
    ) -> Option<T> {
        let session = self.slots.get_mut(slot as usize)?.as_deref_mut()?;
        if !is_it(session) {
            return None;
        }
        self.current = Some(slot);
        let done = act(session);
        self.current = None;
        Some(done)
    }

    pub(crate) fn has(&self, home: Home) -> bool {
        let session = self.slots.get(home.slot as usize).and_then(Option::as_deref);
        session.is_some_and(|session| session.home == home)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WorkerSession> {
        self.slots.iter().filter_map(Option::as_deref)
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn put(&mut self, session: WorkerSession) {
        let place = session.home.slot as usize;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        self.slots[place] = Some(Box::new(session));
    }

    pub(crate) fn remove(&mut self, home: Home) -> Option<Box<WorkerSession>> {
        if self.has(home) { self.slots[home.slot as usize].take() } else { None }
    }

    /// Removes, after a panic, the session that was being accessed.
    pub(crate) fn remove_current(&mut self) -> Option<Box<WorkerSession>> {
        self.slots[self.current.take()? as usize].take()
    }
}

/// The tag of a trunk leg: the slot for a fast lookup, and random bits that make it a secret.
pub fn tag(slot: u32, random: u64) -> Tag {
    Tag(u64::from(slot) << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1))
}

#[cfg(test)]
mod tests;
