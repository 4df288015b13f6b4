//! Messages between the two members.

use std::time::Duration;

use super::agents::{Voter, WitnessId};

/// Interval of beats.
pub const BEAT_EVERY: Duration = Duration::from_millis(5);

/// Limit of the voters of an arming.
pub const VOTERS_MAX: usize = 5;

/// Longest encoded beat, in bytes.
pub const BEAT_LEN_MAX: usize = HEAD_LEN + VOTERS_MAX * VOTER_LEN;

const HEAD_LEN: usize = 4 + 7 * 8;
const VOTER_LEN: usize = 8 + 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatRole {
    Standby,
    Owner,
    /// The owner has handed its ownership to the peer.
    Yielded,
}

/// The newest beat that its receiver had heard from the peer when it sent its own.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Echo {
    pub incarnation: u64,
    pub sequence: u64,
}

/// A member's message about itself, every 5 ms. The transport adds the names of both members and a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Grows with each process of this member.
    pub incarnation: u64,
    /// Counts the beats of this incarnation from 1 on.
    pub sequence: u64,
    pub standing: BeatRole,
    /// The epoch of the ownership that this member has, had, or follows; 0 if none.
    pub epoch: u64,
    /// The newest epoch of which this member has heard, claims included.
    pub highest: u64,
    /// Zero until a beat was heard.
    pub echo: Echo,
    /// This member holds all records of the owner.
    pub whole: bool,
    /// With [`BeatRole::Yielded`]: the number of the last batch of records.
    pub records: u64,
    /// With [`BeatRole::Owner`]: the agents; with a majority of them the process that this beat echoes may take over by
    /// silence. None: it may not.
    pub voters: Vec<Voter>,
}

impl Beat {
    pub fn encode(&self) -> Vec<u8> {
        let standing = match self.standing {
            BeatRole::Standby => 0,
            BeatRole::Owner => 1,
            BeatRole::Yielded => 2,
        };
        let mut bytes = Vec::with_capacity(BEAT_LEN_MAX);
        bytes.extend([standing, u8::from(self.whole), self.voters.len() as u8, 0]);
        let Echo { incarnation, sequence } = self.echo;
        for number in [
            self.incarnation,
            self.sequence,
            self.epoch,
            self.highest,
            incarnation,
            sequence,
            self.records,
        ] {
            bytes.extend(number.to_be_bytes());
        }
        for voter in &self.voters {
            bytes.extend(voter.id.0.to_be_bytes());
            bytes.extend(voter.instance.to_be_bytes());
        }
        bytes
    }

    /// None if the bytes are no beat.
    pub fn decode(bytes: &[u8]) -> Option<Beat> {
        let (head, voters) = bytes.split_at_checked(HEAD_LEN)?;
        let (first, numbers) = head.split_at(4);
        let &[standing, whole, count, 0] = first else { return None };
        let standing = match standing {
            0 => BeatRole::Standby,
            1 => BeatRole::Owner,
            2 => BeatRole::Yielded,
            _ => return None,
        };
        let count = usize::from(count);
        if whole > 1 || count > VOTERS_MAX || voters.len() != count * VOTER_LEN {
            return None;
        }
        let mut numbers = numbers.chunks_exact(8).filter_map(u64_of);
        let mut next = || numbers.next();
        let (incarnation, sequence, epoch, highest) = (next()?, next()?, next()?, next()?);
        let echo = Echo { incarnation: next()?, sequence: next()? };
        let records = next()?;
        let voter = |bytes: &[u8]| {
            let (id, instance) = bytes.split_at(8);
            let instance = u32::from_be_bytes(instance.try_into().ok()?);
            Some(Voter { id: WitnessId(u64_of(id)?), instance })
        };
        let voters = voters.chunks_exact(VOTER_LEN).map(voter).collect::<Option<_>>()?;
        let whole = whole == 1;
        Some(Beat { incarnation, sequence, standing, epoch, highest, echo, whole, records, voters })
    }
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
