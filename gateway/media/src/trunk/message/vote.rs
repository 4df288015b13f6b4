//! Bodies of votes.

use std::time::Duration;

use super::MessageError;
use super::signature::MessageBody;
use crate::trunk::{Hold, Vote, Voted};

const OWNER: u8 = 1;
const STANDBY: u8 = 2;
const CLAIM: u8 = 3;

/// Encodes a hold until the next epoch, and a time that is longer or unknown.
const OPEN_END: u32 = u32::MAX;

pub(super) fn write(group: u32, vote: Vote, out: &mut Vec<u8>) {
    let (standing, hold, epoch, claim) = match vote {
        Vote::Owner { epoch, hold: Hold::For(time) } => (OWNER, micros(time), epoch, 0),
        Vote::Owner { epoch, hold: Hold::Epoch } => (OWNER, OPEN_END, epoch, 0),
        Vote::Standby => (STANDBY, 0, 0, 0),
        Vote::Claim { base, claim } => (CLAIM, 0, base, claim),
    };
    out.extend_from_slice(&[standing, 0, 0, 0]);
    out.extend_from_slice(&hold.to_be_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&claim.to_be_bytes());
    out.extend_from_slice(&group.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
}

pub(super) fn read(body: &mut MessageBody<'_>) -> Result<(u32, Vote), MessageError> {
    let standing = body.u8()?;
    body.skip::<3>()?;
    let (hold, epoch, claim, group) = (body.u32()?, body.u64()?, body.u64()?, body.u32()?);
    body.skip::<4>()?;
    let hold = match hold {
        OPEN_END => Hold::Epoch,
        hold => Hold::For(Duration::from_micros(hold.into())),
    };
    let vote = match standing {
        OWNER => Vote::Owner { epoch, hold },
        STANDBY => Vote::Standby,
        CLAIM => Vote::Claim { base: epoch, claim },
        _ => return Err(MessageError::Unknown),
    };
    Ok((group, vote))
}

pub(super) fn write_voted(voted: &Voted, out: &mut Vec<u8>) {
    out.extend_from_slice(&voted.epoch.to_be_bytes());
    out.extend_from_slice(&voted.promised.to_be_bytes());
    out.extend_from_slice(&voted.heard.map_or(OPEN_END, micros).to_be_bytes());
    out.extend_from_slice(&voted.instance.to_be_bytes());
}

pub(super) fn read_voted(body: &mut MessageBody<'_>) -> Result<Voted, MessageError> {
    let (epoch, promised, heard) = (body.u64()?, body.u64()?, body.u32()?);
    let heard = (heard != OPEN_END).then(|| Duration::from_micros(heard.into()));
    Ok(Voted { epoch, promised, heard, instance: body.u32()? })
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(OPEN_END)
}
