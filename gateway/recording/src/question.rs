//! Encodes questions column by column: adjacent similar values compress well.

use evenkeel_model::{
    Labels, Measures, Metric, NodeId, PluginState, PolicyQuestion, RegionId, RoomId, RoomRow, Row,
    SessionId, SessionRow, UNMEASURED,
};

use crate::revision::RecordedGrant;
use crate::table::{ChunkTable, TableReader};
use crate::wire::{FrameInput, InvalidFrame, malformed, put, put_signed};

const RESOLVE: u8 = 0;
const ADMIT: u8 = 1;
const PLACE: u8 = 2;
const REROUTE: u8 = 3;
const TICK: u8 = 4;

pub(crate) fn write(
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

pub(crate) fn read(
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
    let count = read.count("frame")?;
    read.charge("frame", count * size_of::<Row>())?;
    let mut rows = Vec::with_capacity(count);
    let mut id = 0_u64;
    for _ in 0..count {
        id = id.wrapping_add(read.signed("frame")? as u64);
        rows.push(Row { id, measures: Measures::default() });
    }
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

pub(crate) fn write_hops(hops: &[NodeId], out: &mut Vec<u8>) {
    put(out, hops.len() as u64);
    hops.iter().for_each(|node| put(out, u64::from(node.0)));
}

pub(crate) fn read_hops(read: &mut FrameInput<'_>) -> Result<Vec<NodeId>, InvalidFrame> {
    let count = read.count("hops")?;
    read.charge("hops", count * size_of::<NodeId>())?;
    (0..count).map(|_| read.small("hops").map(NodeId)).collect()
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
