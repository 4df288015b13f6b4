//! The record of an ended session.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use evenkeel_contract::sessions::{EndedMove, EndedSession, Traffic};
use evenkeel_dataplane::worker::Totals;
use evenkeel_kept::{Column, ColumnType, Record, RecordTable};
use evenkeel_model::{CloseReason, ClosedSession, SessionId};
use evenkeel_process::unix_us;
use serde::Serialize;

use super::open::OpenSession;
use crate::names::NodeNames;

/// Maximum number of records in memory, about 10 MiB, and on the disk.
pub(super) const RECORDS_MAX: usize = 16_384;

/// Maximum size of these records, bytes.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// The reason in the record of a session whose gateway was killed.
pub const GATEWAY_DIED: &str = "gateway-died";

/// The media that a session has carried.
pub fn traffic(totals: &Totals) -> Traffic {
    Traffic {
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

/// The record of a session that ended with its process, at the last moment at which that is known to have lived.
pub(super) fn record_of_death(session: OpenSession, lived_us: u64) -> EndedSession {
    let OpenSession { id, gateway, room, scenario, ingress, mode, offered_us, admitted_by } =
        session;
    let ended_us = lived_us.max(offered_us);
    EndedSession {
        id,
        gateway,
        room,
        scenario,
        ingress,
        mode,
        offered_us,
        ended_us,
        duration_ms: (ended_us - offered_us) / 1_000,
        admitted_by,
        totals: None,
        moves: BTreeMap::new(),
        last_moves: Vec::new(),
        reason: GATEWAY_DIED.into(),
    }
}

pub(crate) fn record_of_end(
    gateway: &str,
    session: SessionId,
    room: &str,
    reason: CloseReason,
    closed: &ClosedSession,
    totals: &Totals,
    names: &NodeNames,
) -> EndedSession {
    let ago = Instant::now().saturating_duration_since(closed.ended);
    let duration = closed.ended.saturating_duration_since(closed.offered);
    let ended_us = unix_us(SystemTime::now()).saturating_sub(ago.as_micros() as u64);
    let mut moves = BTreeMap::new();
    for step in &closed.moves {
        *moves.entry(step.cause.name().into()).or_default() += 1;
    }
    let node = |hop| Box::from(&*names.of_hop(hop).node);
    let last_moves = closed.moves.iter().map(|step| {
        let before = closed.ended.saturating_duration_since(step.ended);
        EndedMove {
            at_us: ended_us.saturating_sub(before.as_micros() as u64),
            from: node(step.from),
            to: step.to.map(node),
            cause: step.cause.name().into(),
            by: step.by.to_string().into(),
        }
    });
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
        totals: Some(traffic(totals)),
        moves,
        last_moves: last_moves.collect(),
        reason: reason.name().into(),
    }
}

/// Identifies the record in a group: its gateways give each number once.
pub(super) fn key(record: &EndedSession) -> (&str, u64) {
    (&record.id, record.ended_us)
}

/// The size of the record, in JSON.
pub(super) fn bytes<T: Serialize>(record: &T) -> usize {
    serde_json::to_vec(record).expect("a record is text and numbers").len()
}

/// The records of ended sessions, as the API has them.
pub(super) struct EndedSessions;

impl Record for EndedSessions {
    type Value = EndedSession;

    const TABLE: RecordTable = RecordTable {
        name: "history",
        version: 1,
        columns: &[
            Column::new("id", ColumnType::Text),
            Column::new("gateway", ColumnType::Text),
            Column::new("room", ColumnType::Text),
            Column::new("scenario", ColumnType::Text),
            Column::new("ingress", ColumnType::Text),
            Column::new("mode", ColumnType::Text),
            Column::new("offered_us", ColumnType::Integer),
            Column::new("ended_us", ColumnType::Integer),
            Column::new("duration_ms", ColumnType::Integer),
            Column::new("admitted_by", ColumnType::Text),
            Column::new("reason", ColumnType::Text),
            Column::new("totals", ColumnType::Json),
            Column::new("moves", ColumnType::Json),
            Column::new("last_moves", ColumnType::Json),
        ],
        rows_max: RECORDS_MAX,
        bytes_max: BYTES_MAX,
        notes_life: false,
    };
}
