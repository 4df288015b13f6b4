//! The record of an ended session. It is plain data: another gateway may write it for one that died.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{CloseReason, ClosedSession, SessionId};
use evenkeel_process::unix_us;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndedSession {
    /// `s17`.
    pub id: Box<str>,
    /// Host name of the gateway that served the session.
    pub gateway: Box<str>,
    pub room: Box<str>,
    pub scenario: Box<str>,
    /// The transport of the client: `udp`.
    pub ingress: Box<str>,
    pub mode: Box<str>,
    /// Unix time in microseconds.
    pub offered_us: u64,
    /// Unix time in microseconds.
    pub ended_us: u64,
    /// From the offer to the end.
    pub duration_ms: u64,
    pub admitted_by: Box<str>,
    pub totals: Carried,
    /// Completed moves of its room by cause, among those that the room remembers.
    pub moves: BTreeMap<Box<str>, u32>,
    /// Why it ended: `media-timeout`.
    pub reason: Box<str>,
}

/// Media of a session, since it opened.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Carried {
    pub packets_up: u64,
    pub bytes_up: u64,
    pub packets_down: u64,
    pub bytes_down: u64,
    pub shed: u64,
    pub lost_up: u64,
    pub switches: u32,
    pub lost_at_switches: u32,
}

impl From<&Totals> for Carried {
    fn from(totals: &Totals) -> Carried {
        Carried {
            packets_up: totals.packets_up,
            bytes_up: totals.bytes_up,
            packets_down: totals.packets_down,
            bytes_down: totals.bytes_down,
            shed: totals.shed,
            lost_up: totals.lost_up,
            switches: totals.switches,
            lost_at_switches: totals.lost_at_switches,
        }
    }
}

impl EndedSession {
    pub(crate) fn of(
        gateway: &str,
        session: SessionId,
        room: &str,
        reason: CloseReason,
        closed: &ClosedSession,
        totals: &Totals,
    ) -> EndedSession {
        let ago = Instant::now().saturating_duration_since(closed.ended);
        let duration = closed.ended.saturating_duration_since(closed.offered);
        let ended_us = unix_us(SystemTime::now()).saturating_sub(ago.as_micros() as u64);
        let mut moves = BTreeMap::new();
        for cause in &closed.moves {
            *moves.entry(cause.name().into()).or_default() += 1;
        }
        EndedSession {
            id: session.to_string().into(),
            gateway: gateway.into(),
            room: room.into(),
            scenario: (*closed.scenario).into(),
            ingress: closed.transport.name().into(),
            mode: closed.mode.name().into(),
            offered_us: ended_us.saturating_sub(duration.as_micros() as u64),
            ended_us,
            duration_ms: duration.as_millis() as u64,
            admitted_by: closed.admitted_by.to_string().into(),
            totals: totals.into(),
            moves,
            reason: reason.name().into(),
        }
    }

    /// The record as a line of JSON.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a record is text and numbers");
        line.push(b'\n');
        line
    }
}
