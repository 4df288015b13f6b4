//! The drivers: sessions are opened at nodes over the same links as media, late or not at all where that is so.

use std::time::{Duration, Instant};

use evenkeel_core::{Hop, RoomId, SessionId};

/// An opening that was not answered is asked for again.
pub(crate) const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How often leases are renewed: what the node does not know is opened again then.
pub(crate) const LEASES_EVERY: Duration = Duration::from_secs(4);

/// A session at a hop, from the first word to the node on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) session: SessionId,
    pub(crate) hop: Hop,
    pub(crate) client: u32,
    pub(crate) room: u32,
    /// By which number nodes know that room.
    pub(crate) call: RoomId,
    /// The node's process that knows it.
    pub(crate) process: Option<u32>,
    /// The gateway has been told that it is open.
    pub(crate) told: bool,
    /// The gateway closed it.
    pub(crate) closed: bool,
    /// Until its worker knows that, what comes by it is still looked at.
    pub(crate) read_until: Option<Instant>,
}

/// A worker knows within this what control closed.
pub(crate) const WORKER_TOLD_WITHIN: Duration = Duration::from_millis(5);

/// How the drivers do for now.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Manner {
    pub(crate) slow: Duration,
    /// Of a hundred.
    pub(crate) refuses: u8,
    /// They do nothing at all, and neither does anybody else beside packets: agents say nothing, hooks start nothing.
    pub(crate) dead: bool,
}
