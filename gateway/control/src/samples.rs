//! Values and readings for tests, also of other crates.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{
    ClientTransport, CloseReason, ClosedSession, Decider, RedundancyMode, SessionId,
};

use crate::history::EndedSession;
use crate::{NodeNames, RecordBatch, Snapshot};

/// A session that ended as soon as it was offered.
pub fn closed_session(now: Instant) -> ClosedSession {
    ClosedSession {
        scenario: "call".into(),
        mode: RedundancyMode::Hot,
        transport: ClientTransport::Udp,
        admitted_by: Arc::new(Decider::Native),
        offered: now,
        ended: now,
        moves: Vec::new(),
    }
}

/// An ended session with this number.
pub fn ended_session(number: u64, room: &str) -> EndedSession {
    let (session, reason) = (SessionId(number), CloseReason::Requested);
    let closed = closed_session(Instant::now());
    let (totals, names) = (Totals::default(), NodeNames::default());
    EndedSession::of("host", session, room, reason, &closed, &totals, &names)
}

impl Snapshot {
    /// With the worker's state of the first session under this id.
    pub fn with_stray_session(mut self, id: SessionId) -> Snapshot {
        self.media[0].state.session = id;
        self
    }

    /// The sessions to which descriptors belong, in their order.
    pub fn with_sockets(&self) -> Vec<SessionId> {
        let with_sockets = self.media.iter().filter(|record| record.sockets > 0);
        with_sockets.map(|record| record.state.session).collect()
    }

    /// Leaves out the hops that rooms have left since they were recorded.
    pub fn without_left_hops(mut self) -> Snapshot {
        let now = Instant::now();
        for room in &mut self.core.rooms {
            room.leaving = room.leaving.filter(|(_, until)| now < *until);
        }
        self
    }
}

impl RecordBatch {
    /// The sessions to which descriptors belong, in their order.
    pub fn with_sockets(&self) -> Vec<SessionId> {
        self.changed.with_sockets()
    }

    /// The states of policies in the records of sessions.
    pub fn policy_states(&self) -> Vec<String> {
        let states = self.changed.core.sessions.iter().map(|session| {
            let text = format!("{session:?}");
            text[text.find("memory:").expect("a record has states of policies")..].to_owned()
        });
        states.collect()
    }

    /// The number of sessions with a record or a state.
    pub fn sessions(&self) -> usize {
        self.changed.core.sessions.len().max(self.changed.media.len())
    }
}
