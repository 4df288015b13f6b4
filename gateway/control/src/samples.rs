//! Values and readings for tests, also of other crates.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_contract::sessions::EndedSession;
use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{
    ClientTransport, CloseReason, ClosedSession, Decider, MediaDescription, RedundancyMode,
    RtcpPort, SessionId, Srtp,
};

use crate::NodeNames;
use crate::history::record_of_end;

/// A session that ended as soon as it was offered.
pub fn closed_session(now: Instant) -> ClosedSession {
    ClosedSession {
        scenario: "call".into(),
        labels: Arc::new([]),
        media: Arc::new(MediaDescription::new(Vec::new(), RtcpPort::Mux, Srtp::Plain)),
        mode: RedundancyMode::Hot,
        transport: ClientTransport::Udp,
        admitted_by: Arc::new(Decider::Native),
        routed_by: Decider::Native,
        node: None,
        mean_r_centi: None,
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
    record_of_end("host", session, room, reason, &closed, &totals, &names)
}
