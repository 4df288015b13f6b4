//! Sessions with a trunk leg at this agent, each with a lease that its gateway renews.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::trunk::Tag;

/// Index of a session; constant for its lifetime.
pub(crate) type SessionSlot = u32;

#[derive(Clone, Debug)]
pub(crate) struct TrunkSession {
    pub(crate) tag: Tag,
    pub(crate) room: u64,
    /// Source of the last signed message about the session. Bundles are not signed and do not change it.
    pub(crate) reply_to: SocketAddr,
    pub(crate) expires: Instant,
    /// Nonce of the last open question; set until the server has accepted the session.
    pub(crate) awaited: Option<u64>,
}

/// All sessions, by slot and by tag.
#[derive(Debug, Default)]
pub(crate) struct TrunkSessions {
    slots: Vec<Option<TrunkSession>>,
    free: Vec<SessionSlot>,
    by_tag: HashMap<Tag, SessionSlot>,
}

impl TrunkSessions {
    pub(crate) fn len(&self) -> usize {
        self.by_tag.len()
    }

    pub(crate) fn begin(&mut self, session: TrunkSession) -> SessionSlot {
        let tag = session.tag;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as SessionSlot - 1
        });
        self.slots[slot as usize] = Some(session);
        self.by_tag.insert(tag, slot);
        slot
    }

    pub(crate) fn end(&mut self, slot: SessionSlot) -> Option<TrunkSession> {
        let session = self.slots.get_mut(slot as usize)?.take()?;
        self.by_tag.remove(&session.tag);
        self.free.push(slot);
        Some(session)
    }

    pub(crate) fn slot(&self, tag: Tag) -> Option<SessionSlot> {
        self.by_tag.get(&tag).copied()
    }

    pub(crate) fn at(&mut self, slot: SessionSlot) -> Option<&mut TrunkSession> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The address of the session's gateway.
    pub(crate) fn reply_to(&self, tag: Tag) -> Option<SocketAddr> {
        let session = self.slots.get(self.slot(tag)? as usize)?.as_ref();
        session.map(|session| session.reply_to)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (SessionSlot, &TrunkSession)> {
        (0..).zip(&self.slots).filter_map(|(slot, session)| Some((slot, session.as_ref()?)))
    }
}

#[cfg(test)]
mod tests;
