//! Encoding of questions and answers. Questions are encoded column by column: adjacent similar values compress well.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, DecisionNote, DegradationAction, HookAnswer, Labels, Measures, Metric, Op,
    PluginFault, PluginState, PolicyQuestion, RegionId, RevisionAnswer, RoomId, RoomRow,
    RoutingMove, Row, SessionId, SessionRow, UNMEASURED,
};

use crate::wire::{
    ChunkTable, Encoded, FrameInput, InvalidFrame, TableReader, encoded, encoded_struct, malformed,
    put, put_signed,
};

// Numbers of questions and of their answers.
const RESOLVE: u8 = 0;
const ADMIT: u8 = 1;
const PLACE: u8 = 2;
const REROUTE: u8 = 3;
const TICK: u8 = 4;

/// The lowest number of a fault, which takes the place of an answer.
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
            rooms.iter().for_each(|room| room.standing.write(table, out));
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

fn read_rooms(
    grant: &RecordedGrant,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<Vec<RoomRow>, InvalidFrame> {
    let rows = read_frame(&grant.subject_metrics, read)?;
    read.charge("rooms", rows.len() * size_of::<RoomRow>())?;
    let scenarios = column(&rows, || table.text(read, "scenario"))?;
    let labels: Vec<Labels> = column(&rows, || table.labels(read))?;
    let standing = column(&rows, || Vec::read("hops", table, read))?;
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
            isolated: _,
            reasons: _,
            ungranted: _,
        }) => {
            write_answer(answer, table, out);
            notes.write(table, out);
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
    if kind >= FAULT {
        return read_fault(kind, table, read).map(Err);
    }
    let answer = read_answer(kind, table, read)?;
    let notes = Vec::read("notes", table, read)?;
    let took = Duration::from_nanos(read.number("took")?);
    Ok(Ok(RevisionAnswer {
        answer,
        revision: Arc::clone(revision),
        notes,
        took,
        isolated: None,
        reasons: [].into(),
        ungranted: 0,
    }))
}

/// Declares the functions that write an enum and read it after its number: the number of each variant and its fields, in the
/// order given.
macro_rules! encoded_enum {
    ($name:ident, $part:literal, $write:ident, $read_after:ident {
        $($number:tt = $variant:ident $({ $($field:ident),+ })? $(($value:ident))?,)+
    }) => {
        fn $write(it: &$name, table: &mut ChunkTable, out: &mut Vec<u8>) {
            match it {
                $($name::$variant $({ $($field),+ })? $(($value))? => {
                    out.push($number);
                    $($($field.write(table, out);)+)?
                    $($value.write(table, out);)?
                })+
            }
        }

        fn $read_after(
            number: u8,
            table: &mut TableReader<'_>,
            read: &mut FrameInput<'_>,
        ) -> Result<$name, InvalidFrame> {
            match number {
                $($number => Ok($name::$variant
                    $({ $($field: Encoded::read(stringify!($field), table, read)?),+ })?
                    $((Encoded::read(stringify!($value), table, read)?))?),)+
                other => Err(malformed($part, format!("kind {other}"))),
            }
        }
    };
}

encoded_enum!(HookAnswer, "answer", write_answer, read_answer {
    RESOLVE = Params(params),
    ADMIT = Admit { verdict, reason },
    PLACE = Placed { hops, ttl_ms, reason, state },
    REROUTE = Moves { moves, states, memo },
    TICK = Actions { actions, states, memo },
});

encoded_enum!(PluginFault, "fault", write_fault, read_fault {
    FAULT = Deadline,
    65 = Trap(message),
    66 = OutOfMemory,
    67 = Malformed(message),
    68 = Late,
    69 = Absent,
});

encoded_struct!(RoutingMove { row, hops, ttl_ms, reason });
encoded_struct!(DegradationAction { row, op, arg, reason });
encoded_struct!(DecisionNote { row, key, value });

encoded! {
    AdmitVerdict: |it, _, out| {
        let (number, argument) = match *it {
            AdmitVerdict::Abstain => (0, 0),
            AdmitVerdict::Accept => (1, 0),
            AdmitVerdict::AcceptCapped(kbps) => (2, kbps),
            AdmitVerdict::Redirect(region) => (3, region.0),
            AdmitVerdict::Reject(retry_ms) => (4, retry_ms),
        };
        out.push(number);
        put(out, u64::from(argument));
    }, |part, _, read| {
        let (number, argument) = (read.byte(part)?, read.small(part)?);
        Ok(match number {
            0 => AdmitVerdict::Abstain,
            1 => AdmitVerdict::Accept,
            2 => AdmitVerdict::AcceptCapped(argument),
            3 => AdmitVerdict::Redirect(RegionId(argument)),
            4 => AdmitVerdict::Reject(argument),
            other => return Err(malformed(part, format!("kind {other}"))),
        })
    };
}
