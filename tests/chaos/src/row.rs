//! One row: a stage, a crowd, a fault, and what must hold.

use std::time::Duration;

use crate::fault::Fault;
use crate::layout::Layout;
use crate::limits::Limits;

/// How long after a fault is watched, unless a row says otherwise.
const WATCHED: Duration = Duration::from_millis(1_200);

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) layout: Layout,
    pub(crate) sessions: u32,
    /// Whether every other room is by QUIC.
    pub(crate) quic: bool,
    pub(crate) kills: u32,
    pub(crate) fault: Fault,
    /// How long is watched once it is done.
    pub(crate) watched: Duration,
    pub(crate) limits: Limits,
}

impl Row {
    /// A fault done once to 1,000 sessions.
    pub(crate) const fn new(id: &'static str, layout: Layout, fault: Fault, limits: Limits) -> Row {
        let watched = WATCHED;
        Row { id, layout, sessions: 1_000, quic: false, kills: 1, fault, watched, limits }
    }

    /// Done so often.
    pub(crate) const fn times(self, kills: u32) -> Row {
        Row { kills, ..self }
    }

    /// Watched so long once it is done.
    pub(crate) const fn watched(self, seconds: u64) -> Row {
        Row { watched: Duration::from_secs(seconds), ..self }
    }

    /// With as many sessions and kills as somebody asked for.
    pub(crate) fn scaled(self, sessions: Option<u32>, kills: Option<u32>) -> Row {
        let (sessions, kills) = (sessions.unwrap_or(self.sessions), kills.unwrap_or(self.kills));
        Row { sessions, kills, ..self }
    }
}
