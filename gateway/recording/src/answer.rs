//! Encoding of answers and faults.

use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, DecisionNote, DegradationAction, HookAnswer, PluginFault, PluginState, RegionId,
    RevisionAnswer, RoutingMove,
};

use crate::question::{read_hops, write_hops};
use crate::revision::RecordedRevision;
use crate::table::{ChunkTable, TableReader};
use crate::wire::{FrameInput, InvalidFrame, malformed, put, put_signed};

const PARAMS: u8 = 0;
const ADMIT: u8 = 1;
const PLACED: u8 = 2;
const MOVES: u8 = 3;
const ACTIONS: u8 = 4;
/// Offset of the number of a fault.
const FAULT: u8 = 64;

pub(crate) fn write(
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

pub(crate) fn read(
    revision: &RecordedRevision,
    table: &mut TableReader<'_>,
    read: &mut FrameInput<'_>,
) -> Result<Result<RevisionAnswer, PluginFault>, InvalidFrame> {
    let kind = read.byte("answer")?;
    if let Some(fault) = kind.checked_sub(FAULT) {
        return read_fault(fault, table, read).map(Err);
    }
    let answer = read_answer(kind, table, read)?;
    let count = read.count("notes")?;
    read.charge("notes", count * size_of::<DecisionNote>())?;
    let mut notes = Vec::with_capacity(count);
    for _ in 0..count {
        notes.push(DecisionNote {
            row: read.small("note")?,
            key: table.own_text(read, "note")?,
            value: read.signed("note")?,
        });
    }
    let took = Duration::from_nanos(read.number("took")?);
    Ok(Ok(RevisionAnswer {
        answer,
        revision: revision.revision.clone(),
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
            out.push(PARAMS);
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
            out.push(PLACED);
            write_hops(hops, out);
            put(out, u64::from(*ttl_ms));
            put(out, u64::from(*reason));
            table.put_state(out, Some(state));
        }
        HookAnswer::Moves { moves, states, memo } => {
            out.push(MOVES);
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
            out.push(ACTIONS);
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
        PARAMS => {
            let count = read.count("params")?;
            let params =
                (0..count).map(|_| Ok((table.own_text(read, "param")?, read.signed("param")?)));
            params.collect::<Result<_, _>>().map(HookAnswer::Params)
        }
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
        PLACED => Ok(HookAnswer::Placed {
            hops: read_hops(read)?,
            ttl_ms: read.small("ttl")?,
            reason: read.small("reason")?,
            state: table.some_state(read)?,
        }),
        MOVES => {
            let count = read.count("moves")?;
            read.charge("moves", count * size_of::<RoutingMove>())?;
            let mut moves = Vec::with_capacity(count);
            for _ in 0..count {
                moves.push(RoutingMove {
                    row: read.small("move")?,
                    hops: read_hops(read)?,
                    ttl_ms: read.small("move")?,
                    reason: read.small("move")?,
                });
            }
            let (states, memo) = read_written(table, read)?;
            Ok(HookAnswer::Moves { moves, states, memo })
        }
        ACTIONS => {
            let count = read.count("actions")?;
            read.charge("actions", count * size_of::<DegradationAction>())?;
            let mut actions = Vec::with_capacity(count);
            for _ in 0..count {
                actions.push(DegradationAction {
                    row: read.small("action")?,
                    op: read.small("action")?,
                    arg: read.number("action")?,
                    reason: read.small("action")?,
                });
            }
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
    let count = read.count("states")?;
    read.charge("states", count * size_of::<(u32, PluginState)>())?;
    let mut states = Vec::with_capacity(count);
    for _ in 0..count {
        states.push((read.small("state")?, table.some_state(read)?));
    }
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
