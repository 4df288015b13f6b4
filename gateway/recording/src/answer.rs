//! Encoding of answers and faults.

use std::time::Duration;

use evenkeel_core::{Action, AdmitVerdict, Answer, Answered, Fault, Move, Note, RegionId, State};

use crate::question::{read_hops, write_hops};
use crate::revision::Revision;
use crate::table::{Table, TableReader};
use crate::wire::{Input, Malformed, malformed, put, put_signed};

const PARAMS: u8 = 0;
const ADMIT: u8 = 1;
const PLACED: u8 = 2;
const MOVES: u8 = 3;
const ACTIONS: u8 = 4;
/// Offset of the number of a fault.
const FAULT: u8 = 64;

pub(crate) fn write(result: &Result<Answered, Fault>, table: &mut Table, out: &mut Vec<u8>) {
    match result {
        // The plugin's manifest has the reasons. Actions that were omitted or not granted are not recorded.
        Ok(Answered { answer, revision: _, notes, took, apart: _, reasons: _, ungranted: _ }) => {
            write_answer(answer, table, out);
            put(out, notes.len() as u64);
            for Note { row, key, value } in notes {
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
    revision: &Revision,
    table: &mut TableReader<'_>,
    read: &mut Input<'_>,
) -> Result<Result<Answered, Fault>, Malformed> {
    let kind = read.byte("answer")?;
    if let Some(fault) = kind.checked_sub(FAULT) {
        return read_fault(fault, table, read).map(Err);
    }
    let answer = read_answer(kind, table, read)?;
    let count = read.count("notes")?;
    read.charge("notes", count * size_of::<Note>())?;
    let mut notes = Vec::with_capacity(count);
    for _ in 0..count {
        notes.push(Note {
            row: read.small("note")?,
            key: table.own_text(read, "note")?,
            value: read.signed("note")?,
        });
    }
    let took = Duration::from_nanos(read.number("took")?);
    Ok(Ok(Answered {
        answer,
        revision: revision.revision.clone(),
        notes,
        took,
        apart: None,
        reasons: [].into(),
        ungranted: 0,
    }))
}

fn write_answer(answer: &Answer, table: &mut Table, out: &mut Vec<u8>) {
    match answer {
        Answer::Params(params) => {
            out.push(PARAMS);
            put(out, params.len() as u64);
            for (key, value) in params {
                table.put(out, key.as_bytes());
                put_signed(out, *value);
            }
        }
        Answer::Admit { verdict, reason } => {
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
        Answer::Placed { hops, ttl_ms, reason, state } => {
            out.push(PLACED);
            write_hops(hops, out);
            put(out, u64::from(*ttl_ms));
            put(out, u64::from(*reason));
            table.put_state(out, Some(state));
        }
        Answer::Moves { moves, states, memo } => {
            out.push(MOVES);
            put(out, moves.len() as u64);
            for Move { row, hops, ttl_ms, reason } in moves {
                put(out, u64::from(*row));
                write_hops(hops, out);
                put(out, u64::from(*ttl_ms));
                put(out, u64::from(*reason));
            }
            write_written(states, memo.as_ref(), table, out);
        }
        Answer::Actions { actions, states, memo } => {
            out.push(ACTIONS);
            put(out, actions.len() as u64);
            for Action { row, op, arg, reason } in actions {
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
    read: &mut Input<'_>,
) -> Result<Answer, Malformed> {
    match kind {
        PARAMS => {
            let count = read.count("params")?;
            let params =
                (0..count).map(|_| Ok((table.own_text(read, "param")?, read.signed("param")?)));
            params.collect::<Result<_, _>>().map(Answer::Params)
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
            Ok(Answer::Admit { verdict, reason: read.small("reason")? })
        }
        PLACED => Ok(Answer::Placed {
            hops: read_hops(read)?,
            ttl_ms: read.small("ttl")?,
            reason: read.small("reason")?,
            state: table.some_state(read)?,
        }),
        MOVES => {
            let count = read.count("moves")?;
            read.charge("moves", count * size_of::<Move>())?;
            let mut moves = Vec::with_capacity(count);
            for _ in 0..count {
                moves.push(Move {
                    row: read.small("move")?,
                    hops: read_hops(read)?,
                    ttl_ms: read.small("move")?,
                    reason: read.small("move")?,
                });
            }
            let (states, memo) = read_written(table, read)?;
            Ok(Answer::Moves { moves, states, memo })
        }
        ACTIONS => {
            let count = read.count("actions")?;
            read.charge("actions", count * size_of::<Action>())?;
            let mut actions = Vec::with_capacity(count);
            for _ in 0..count {
                actions.push(Action {
                    row: read.small("action")?,
                    op: read.small("action")?,
                    arg: read.number("action")?,
                    reason: read.small("action")?,
                });
            }
            let (states, memo) = read_written(table, read)?;
            Ok(Answer::Actions { actions, states, memo })
        }
        other => Err(malformed("answer", format!("kind {other}"))),
    }
}

fn write_written(
    states: &[(u32, State)],
    memo: Option<&State>,
    table: &mut Table,
    out: &mut Vec<u8>,
) {
    put(out, states.len() as u64);
    for (row, state) in states {
        put(out, u64::from(*row));
        table.put_state(out, Some(state));
    }
    table.put_state(out, memo);
}

type WrittenState = (Vec<(u32, State)>, Option<State>);

fn read_written(
    table: &mut TableReader<'_>,
    read: &mut Input<'_>,
) -> Result<WrittenState, Malformed> {
    let count = read.count("states")?;
    read.charge("states", count * size_of::<(u32, State)>())?;
    let mut states = Vec::with_capacity(count);
    for _ in 0..count {
        states.push((read.small("state")?, table.some_state(read)?));
    }
    Ok((states, table.state(read)?))
}

fn write_fault(fault: &Fault, table: &mut Table, out: &mut Vec<u8>) {
    let (number, message) = match fault {
        Fault::Deadline => (0, None),
        Fault::Trap(message) => (1, Some(message)),
        Fault::OutOfMemory => (2, None),
        Fault::Malformed(message) => (3, Some(message)),
        Fault::Late => (4, None),
        Fault::Absent => (5, None),
    };
    out.push(FAULT + number);
    if let Some(message) = message {
        table.put(out, message.as_bytes());
    }
}

fn read_fault(
    number: u8,
    table: &mut TableReader<'_>,
    read: &mut Input<'_>,
) -> Result<Fault, Malformed> {
    match number {
        0 => Ok(Fault::Deadline),
        1 => Ok(Fault::Trap(table.own_text(read, "trap")?)),
        2 => Ok(Fault::OutOfMemory),
        3 => Ok(Fault::Malformed(table.own_text(read, "fault")?)),
        4 => Ok(Fault::Late),
        5 => Ok(Fault::Absent),
        other => Err(malformed("fault", format!("kind {other}"))),
    }
}
