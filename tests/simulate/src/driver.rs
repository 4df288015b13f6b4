//! Node drivers: sessions are opened over the same links as media, with their delay and loss.

use std::time::{Duration, Instant};

use evenkeel_model::{Hop, RoomId, SessionId};

/// Retry interval of an unanswered opening.
pub(crate) const OPEN_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Interval of lease refreshes, which reopen sessions that the node does not know.
pub(crate) const LEASES_EVERY: Duration = Duration::from_secs(4);

/// A session at a hop, from the first request on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) session: SessionId,
    pub(crate) hop: Hop,
    pub(crate) client: u32,
    pub(crate) room: u32,
    /// The room's id at nodes.
    pub(crate) call: RoomId,
    /// The process of the node that knows the session.
    pub(crate) process: Option<u32>,
    /// True if the gateway was informed of the result.
    pub(crate) reported: bool,
    pub(crate) closed: bool,
    /// Packets are still accepted until the worker learns of the close.
    pub(crate) read_until: Option<Instant>,
}

/// Longest delay until a worker learns of a close.
pub(crate) const WORKER_CLOSE_DELAY: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct DriverFaults {
    pub(crate) slow: Duration,
    /// Percentage of openings that drivers refuse.
    pub(crate) refuses: u8,
    /// True while drivers, agents and start hooks do nothing.
    pub(crate) dead: bool,
}
