//! Encoding of questions and answers. Questions are encoded column by column: adjacent similar values compress well.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, DecisionNote, DegradationAction, HookAnswer, Labels, Measures, Metric, NodeId,
    Op, PluginFault, PluginState, PolicyQuestion, RegionId, RevisionAnswer, RoomId, RoomRow,
    RoutingMove, Row, SessionId, SessionRow, UNMEASURED,
};

use crate::wire::{ChunkTable, FrameInput, InvalidFrame, TableReader, malformed, put, put_signed};

// Numbers of questions and of their answers.
const RESOLVE: u8 = 0;
const ADMIT: u8 = 1;
const PLACE: u8 = 2;
const REROUTE: u8 = 3;
const TICK: u8 = 4;

/// Offset of the number of a fault, which takes the place of an answer.
const FAULT: u8 = 64;

/// Grants of `init`, in the order of the plugin's columns.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecordedGrant {
    /// Metrics of sessions and rooms.
    pub subject_metrics: Vec<Metric>,
    /// Metrics of nodes and regions.
    pub node_metrics: Vec<Metric>,
    /// Actions that the plugin may take.
    pub ops: Vec<Op>,
}

pub(crate) fn write_question(
    question: &PolicyQuestion,
    grant: &RecordedGrant,
    table: &mut ChunkTable,
    out: &mut Vec<u8>,
) {
    table.begin();
    match question {
        PolicyQuestion::Resolve { scenario, labels } => {
            out.push(RESOLVE);
            table.put(out, scenario.as_bytes());
            table.put_labels(out, labels);
        }
        PolicyQuestion::Admit { session, room, standing, scenario, labels, regions } => {
            out.push(ADMIT);
            put(out, session.0);
            put(out, room.0);
            // 0 encodes `None`.
            put(out, standing.map_or(0, |region| u64::from(region.0) + 1));
            table.put(out, scenario.as_bytes());
            table.put_labels(out, labels);
            write_frame(&grant.node_metrics, &regions.iter(), out);
        }
        PolicyQuestion::Place { room, scenario, labels, nodes } => {
            out.push(PLACE);
            put(out, room.0);
            table.put(out, scenario.as_bytes());
            table.put_labels(out, labels);
            write_frame(&grant.node_metrics, &nodes.iter(), out);
        }
        PolicyQuestion::Reroute { nodes, rooms, memo } => {
            out.push(REROUTE);
            write_frame(&grant.node_metrics, &nodes.iter(), out);
            write_frame(&grant.subject_metrics, &rooms.iter().map(|room| &room.row), out);
            rooms.iter().for_each(|room| table.put(out, room.scenario.as_bytes()));
            rooms.iter().for_each(|room| table.put_labels(out, &room.labels));
            rooms.iter().for_each(|room| write_hops(&room.standing, out));
            rooms.iter().for_each(|room| table.put_state(out, room.state.as_ref()));
            table.put_state(out, memo.as_ref());
        }
        PolicyQuestion::Tick { sessions, memo } => {
            out.push(TICK);
            write_frame(&grant.subject_metrics, &sessions.iter().map(|session| &session.row), out);
            sessions.iter().for_each(|session| put(out, session.room.0));
            sessions.iter().for_each(|session| table.put(out, session.scenario.as_bytes()));
            sessions.iter().for_each(|session| table.put_labels(out, &session.labels));
            sessions.iter().for_each(|session| table.put_state(out, session.state.as_ref()));
            table.put_state(out, memo.as_ref());
        }
    }
}

pub(crate) fn read_question(
    grant: &RecordedGrant,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<PolicyQuestion, InvalidFrame> {
    match read.byte("question")? {
        RESOLVE => Ok(PolicyQuestion::Resolve {
            scenario: table.text(read, "scenario")?,
            labels: table.labels(read)?,
        }),
        ADMIT => Ok(PolicyQuestion::Admit {
            session: SessionId(read.number("session")?),
            room: RoomId(read.number("room")?),
            standing: match read.small("region")? {
                0 => None,
                region => Some(RegionId(region - 1)),
            },
            scenario: table.text(read, "scenario")?,
            labels: table.labels(read)?,
            regions: read_frame(&grant.node_metrics, read)?,
        }),
        PLACE => Ok(PolicyQuestion::Place {
            room: RoomId(read.number("room")?),
            scenario: table.text(read, "scenario")?,
            labels: table.labels(read)?,
            nodes: read_frame(&grant.node_metrics, read)?,
        }),
        REROUTE => {
            let nodes = read_frame(&grant.node_metrics, read)?;
            let rooms = read_rooms(grant, table, read)?;
            Ok(PolicyQuestion::Reroute { nodes, rooms, memo: table.state(read)? })
        }
        TICK => {
            let sessions = read_sessions(grant, table, read)?;
            Ok(PolicyQuestion::Tick { sessions, memo: table.state(read)? })
        }
        other => Err(malformed("question", format!("kind {other}"))),
    }
}

/// Encodes ids as differences, then a column per metric. Unmeasured values are 0.
fn write_frame<'a>(
    columns: &[Metric],
    rows: &(impl ExactSizeIterator<Item = &'a Row> + Clone),
    out: &mut Vec<u8>,
) {
    put(out, rows.len() as u64);
    let mut last = 0_u64;
    for row in rows.clone() {
        put_signed(out, row.id.wrapping_sub(last) as i64);
        last = row.id;
    }
    for &column in columns {
        for row in rows.clone() {
            put(out, u64::from(row.measures.value(column).wrapping_add(1)));
        }
    }
}

fn read_frame(columns: &[Metric], read: &mut FrameInput<'_>) -> Result<Vec<Row>, InvalidFrame> {
    let mut id = 0_u64;
    let mut rows = read.list("frame", |read| {
        id = id.wrapping_add(read.signed("frame")? as u64);
        Ok(Row { id, measures: Measures::default() })
    })?;
    for &column in columns {
        for row in &mut rows {
            let value = read.small("frame")?.wrapping_sub(1);
            if value != UNMEASURED {
                row.measures.set(column, u64::from(value));
            }
        }
    }
    Ok(rows)
}

fn write_hops(hops: &[NodeId], out: &mut Vec<u8>) {
    put(out, hops.len() as u64);
    hops.iter().for_each(|node| put(out, u64::from(node.0)));
}

fn read_hops(read: &mut FrameInput<'_>) -> Result<Vec<NodeId>, InvalidFrame> {
    read.list("hops", |read| read.small("hops").map(NodeId))
}

fn read_rooms(
    grant: &RecordedGrant,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<Vec<RoomRow>, InvalidFrame> {
    let rows = read_frame(&grant.subject_metrics, read)?;
    read.charge("rooms", rows.len() * size_of::<RoomRow>())?;
    let scenarios = column(&rows, || table.text(read, "scenario"))?;
    let labels: Vec<Labels> = column(&rows, || table.labels(read))?;
    let standing = column(&rows, || read_hops(read))?;
    let states: Vec<Option<PluginState>> = column(&rows, || table.state(read))?;
    let columns = rows.into_iter().zip(scenarios).zip(labels).zip(standing).zip(states);
    let rooms = columns.map(|((((row, scenario), labels), standing), state)| RoomRow {
        row,
        scenario,
        labels,
        standing,
        state,
    });
    Ok(rooms.collect())
}

fn read_sessions(
    grant: &RecordedGrant,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<Vec<SessionRow>, InvalidFrame> {
    let rows = read_frame(&grant.subject_metrics, read)?;
    read.charge("sessions", rows.len() * size_of::<SessionRow>())?;
    let rooms = column(&rows, || read.number("room"))?;
    let scenarios = column(&rows, || table.text(read, "scenario"))?;
    let labels: Vec<Labels> = column(&rows, || table.labels(read))?;
    let states: Vec<Option<PluginState>> = column(&rows, || table.state(read))?;
    let columns = rows.into_iter().zip(rooms).zip(scenarios).zip(labels).zip(states);
    let sessions = columns.map(|((((row, room), scenario), labels), state)| SessionRow {
        row,
        room: RoomId(room),
        scenario,
        labels,
        state,
    });
    Ok(sessions.collect())
}

fn column<T>(
    rows: &[Row],
    mut next: impl FnMut() -> Result<T, InvalidFrame>,
) -> Result<Vec<T>, InvalidFrame> {
    rows.iter().map(|_| next()).collect()
}

pub(crate) fn write_result(
    result: &Result<RevisionAnswer, PluginFault>,
    table: &mut ChunkTable,
    out: &mut Vec<u8>,
) {
    match result {
        // The plugin's manifest has the reasons. Actions that were omitted or not granted are not recorded.
        Ok(RevisionAnswer {
            answer,
            revision: _,
            notes,
            took,
            apart: _,
            reasons: _,
            ungranted: _,
        }) => {
            write_answer(answer, table, out);
            put(out, notes.len() as u64);
            for DecisionNote { row, key, value } in notes {
                put(out, u64::from(*row));
                table.put(out, key.as_bytes());
                put_signed(out, *value);
            }
            put(out, took.as_nanos() as u64);
        }
        Err(fault) => write_fault(fault, table, out),
    }
}

pub(crate) fn read_result(
    revision: &Arc<str>,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<Result<RevisionAnswer, PluginFault>, InvalidFrame> {
    let kind = read.byte("answer")?;
    if let Some(fault) = kind.checked_sub(FAULT) {
        return read_fault(fault, table, read).map(Err);
    }
    let answer = read_answer(kind, table, read)?;
    let notes = read.list("notes", |read| {
        Ok(DecisionNote {
            row: read.small("note")?,
            key: table.own_text(read, "note")?,
            value: read.signed("note")?,
        })
    })?;
    let took = Duration::from_nanos(read.number("took")?);
    Ok(Ok(RevisionAnswer {
        answer,
        revision: Arc::clone(revision),
        notes,
        took,
        apart: None,
        reasons: [].into(),
        ungranted: 0,
    }))
}

fn write_answer(answer: &HookAnswer, table: &mut ChunkTable, out: &mut Vec<u8>) {
    match answer {
        HookAnswer::Params(params) => {
            out.push(RESOLVE);
            put(out, params.len() as u64);
            for (key, value) in params {
                table.put(out, key.as_bytes());
                put_signed(out, *value);
            }
        }
        HookAnswer::Admit { verdict, reason } => {
            out.push(ADMIT);
            let (number, argument) = match *verdict {
                AdmitVerdict::Abstain => (0, 0),
                AdmitVerdict::Accept => (1, 0),
                AdmitVerdict::AcceptCapped(kbps) => (2, kbps),
                AdmitVerdict::Redirect(region) => (3, region.0),
                AdmitVerdict::Reject(retry_ms) => (4, retry_ms),
            };
            out.push(number);
            put(out, u64::from(argument));
            put(out, u64::from(*reason));
        }
        HookAnswer::Placed { hops, ttl_ms, reason, state } => {
            out.push(PLACE);
            write_hops(hops, out);
            put(out, u64::from(*ttl_ms));
            put(out, u64::from(*reason));
            table.put_state(out, Some(state));
        }
        HookAnswer::Moves { moves, states, memo } => {
            out.push(REROUTE);
            put(out, moves.len() as u64);
            for RoutingMove { row, hops, ttl_ms, reason } in moves {
                put(out, u64::from(*row));
                write_hops(hops, out);
                put(out, u64::from(*ttl_ms));
                put(out, u64::from(*reason));
            }
            write_written(states, memo.as_ref(), table, out);
        }
        HookAnswer::Actions { actions, states, memo } => {
            out.push(TICK);
            put(out, actions.len() as u64);
            for DegradationAction { row, op, arg, reason } in actions {
                put(out, u64::from(*row));
                put(out, u64::from(*op));
                put(out, *arg);
                put(out, u64::from(*reason));
            }
            write_written(states, memo.as_ref(), table, out);
        }
    }
}

fn read_answer(
    kind: u8,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<HookAnswer, InvalidFrame> {
    match kind {
        RESOLVE => read
            .list("params", |read| Ok((table.own_text(read, "param")?, read.signed("param")?)))
            .map(HookAnswer::Params),
        ADMIT => {
            let (verdict, argument) = (read.byte("verdict")?, read.small("verdict")?);
            let verdict = match verdict {
                0 => AdmitVerdict::Abstain,
                1 => AdmitVerdict::Accept,
                2 => AdmitVerdict::AcceptCapped(argument),
                3 => AdmitVerdict::Redirect(RegionId(argument)),
                4 => AdmitVerdict::Reject(argument),
                other => return Err(malformed("verdict", format!("kind {other}"))),
            };
            Ok(HookAnswer::Admit { verdict, reason: read.small("reason")? })
        }
        PLACE => Ok(HookAnswer::Placed {
            hops: read_hops(read)?,
            ttl_ms: read.small("ttl")?,
            reason: read.small("reason")?,
            state: table.some_state(read)?,
        }),
        REROUTE => {
            let moves = read.list("moves", |read| {
                Ok(RoutingMove {
                    row: read.small("move")?,
                    hops: read_hops(read)?,
                    ttl_ms: read.small("move")?,
                    reason: read.small("move")?,
                })
            })?;
            let (states, memo) = read_written(table, read)?;
            Ok(HookAnswer::Moves { moves, states, memo })
        }
        TICK => {
            let actions = read.list("actions", |read| {
                Ok(DegradationAction {
                    row: read.small("action")?,
                    op: read.small("action")?,
                    arg: read.number("action")?,
                    reason: read.small("action")?,
                })
            })?;
            let (states, memo) = read_written(table, read)?;
            Ok(HookAnswer::Actions { actions, states, memo })
        }
        other => Err(malformed("answer", format!("kind {other}"))),
    }
}

fn write_written(
    states: &[(u32, PluginState)],
    memo: Option<&PluginState>,
    table: &mut ChunkTable,
    out: &mut Vec<u8>,
) {
    put(out, states.len() as u64);
    for (row, state) in states {
        put(out, u64::from(*row));
        table.put_state(out, Some(state));
    }
    table.put_state(out, memo);
}

type WrittenState = (Vec<(u32, PluginState)>, Option<PluginState>);

fn read_written(
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<WrittenState, InvalidFrame> {
    let states = read.list("states", |read| Ok((read.small("state")?, table.some_state(read)?)))?;
    Ok((states, table.state(read)?))
}

fn write_fault(fault: &PluginFault, table: &mut ChunkTable, out: &mut Vec<u8>) {
    let (number, message) = match fault {
        PluginFault::Deadline => (0, None),
        PluginFault::Trap(message) => (1, Some(message)),
        PluginFault::OutOfMemory => (2, None),
        PluginFault::Malformed(message) => (3, Some(message)),
        PluginFault::Late => (4, None),
        PluginFault::Absent => (5, None),
    };
    out.push(FAULT + number);
    if let Some(message) = message {
        table.put(out, message.as_bytes());
    }
}

fn read_fault(
    number: u8,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<PluginFault, InvalidFrame> {
    match number {
        0 => Ok(PluginFault::Deadline),
        1 => Ok(PluginFault::Trap(table.own_text(read, "trap")?)),
        2 => Ok(PluginFault::OutOfMemory),
        3 => Ok(PluginFault::Malformed(table.own_text(read, "fault")?)),
        4 => Ok(PluginFault::Late),
        5 => Ok(PluginFault::Absent),
        other => Err(malformed("fault", format!("kind {other}"))),
    }
}
