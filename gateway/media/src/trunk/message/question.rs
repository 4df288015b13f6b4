//! Messages to a node.

use std::time::Duration;

use super::signature::{
    MessageBody, QUESTION, sign, verify, write_head, write_owner, write_tags, write_zeros,
};
use super::{
    BREAK, CLOSE, DRAIN, KEEP, MessageError, NOTICE, NodeSecret, OPEN, PATH, PROBE, PROCESS,
    Replays, START, VOTE, Verified,
};
use crate::trunk::{GroupOwner, Hold, Tag, Vote};

/// A gateway's message to a node (`docs/trunk.md`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrunkQuestion {
    /// Requests the load.
    Probe,
    /// Opens a session. Idempotent except that the lease restarts.
    Open {
        /// The room's number at the gateway.
        room: u64,
        /// The session's number at the gateway.
        session: u64,
        /// Identifies the session on this trunk leg.
        tag: Tag,
        /// Lease in seconds: the session expires unless renewed.
        lease_s: u16,
        /// True if the source of this message reads numbered bundles and repair datagrams. A node of an earlier version ignores it.
        numbered: bool,
    },
    /// Ends a session.
    Close { tag: Tag },
    /// Makes the node refuse new sessions; open ones remain.
    Drain,
    /// Renews the leases of these sessions and directs their packets to the source of this message.
    /// Opens no session.
    Keep {
        /// Lease in seconds: the sessions expire unless renewed.
        lease_s: u16,
        /// As in [`Open`](TrunkQuestion::Open).
        numbered: bool,
        /// One to [`KEEP_MAX`](super::KEEP_MAX) tags.
        tags: Box<[Tag]>,
    },
    /// Acknowledges a notice; not answered.
    Noted {
        /// The number of the notice.
        number: u64,
    },
    /// Starts the process unless it is running.
    Start,
    /// Injects or ends a fault of a drill.
    Break(NodeFault),
    /// Probes the path for datagrams of this length in both directions.
    Path {
        /// Limit in bytes of shared bundles towards the sender.
        bundle_max: u16,
        /// Bytes beyond [`PATH_LEN_MIN`](super::PATH_LEN_MIN).
        padding: u16,
    },
    /// Asks for a hold or a promise of a group's node, or only for its state.
    Vote {
        /// Number of the group.
        group: u32,
        /// The question about its ownership.
        vote: Vote,
    },
    /// Asks for the memory and the age of the media server's process. A node that cannot tell them does not answer.
    Process,
}

impl TrunkQuestion {
    /// Appends the signed question to `out`.
    pub fn write(&self, secret: &NodeSecret, nonce: u64, now_us: u64, out: &mut Vec<u8>) {
        self.write_for(None, secret, nonce, now_us, out);
    }

    /// Like [`write`](Self::write), in the name of a group's owner.
    pub fn write_for(
        &self,
        owner: Option<GroupOwner>,
        secret: &NodeSecret,
        nonce: u64,
        now_us: u64,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        write_head(self.kind(), QUESTION, secret, nonce, now_us, out);
        if let Some(owner) = owner {
            write_owner(owner, start, out);
        }
        let zeros = match *self {
            Self::Probe | Self::Drain | Self::Start | Self::Process => 16,
            Self::Open { room, session, tag, lease_s, numbered } => {
                out.extend_from_slice(&room.to_be_bytes());
                out.extend_from_slice(&session.to_be_bytes());
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.push(numbered.into());
                5
            }
            Self::Close { tag: Tag(number) } | Self::Noted { number } => {
                out.extend_from_slice(&number.to_be_bytes());
                8
            }
            Self::Keep { lease_s, numbered, ref tags } => {
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.push(numbered.into());
                write_zeros(5, out);
                write_tags(tags, out);
                0
            }
            Self::Break(how) => {
                out.push(how as u8);
                15
            }
            Self::Path { bundle_max, padding } => {
                out.extend_from_slice(&bundle_max.to_be_bytes());
                14 + usize::from(padding)
            }
            Self::Vote { group, vote } => {
                vote.write(out);
                out.extend_from_slice(&group.to_be_bytes());
                4
            }
        };
        write_zeros(zeros, out);
        sign(secret, start, out);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Probe => PROBE,
            Self::Open { .. } => OPEN,
            Self::Close { .. } => CLOSE,
            Self::Drain => DRAIN,
            Self::Keep { .. } => KEEP,
            Self::Noted { .. } => NOTICE,
            Self::Start => START,
            Self::Break(_) => BREAK,
            Self::Path { .. } => PATH,
            Self::Vote { .. } => VOTE,
            Self::Process => PROCESS,
        }
    }

    /// Reads a question and checks its signature and time.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub fn read(
        datagram: &[u8],
        secret: &NodeSecret,
        now_us: u64,
    ) -> Result<Verified<Self>, MessageError> {
        let (mut body, verified) = verify(datagram, QUESTION, secret, now_us)?;
        let (message, zeros) = match verified.message {
            PROBE => (Self::Probe, 16),
            OPEN => {
                let (room, session, tag) = (body.u64()?, body.u64()?, Tag(body.u64()?));
                let (lease_s, numbered) = (body.u16()?, body.flag()?);
                (Self::Open { room, session, tag, lease_s, numbered }, 5)
            }
            CLOSE => (Self::Close { tag: Tag(body.u64()?) }, 8),
            DRAIN => (Self::Drain, 16),
            KEEP => {
                let (lease_s, numbered) = (body.u16()?, body.flag()?);
                body.skip(5)?;
                let tags = body.tags()?;
                if tags.is_empty() {
                    return Err(MessageError::Length);
                }
                (Self::Keep { lease_s, numbered, tags }, 0)
            }
            NOTICE => (Self::Noted { number: body.u64()? }, 8),
            START => (Self::Start, 16),
            BREAK => (Self::Break(body.one_of(&NodeFault::ALL)?), 15),
            PATH => (Self::Path { bundle_max: body.u16()?, padding: body.padding(14)? }, 0),
            VOTE => {
                let vote = Vote::read(&mut body)?;
                (Self::Vote { group: body.u32()?, vote }, 4)
            }
            PROCESS => (Self::Process, 16),
            _ => return Err(MessageError::Unknown),
        };
        body.skip(zeros)?;
        body.finish()?;
        Ok(verified.with(message))
    }

    /// Like [`read`](Self::read), for a node, which accepts each message once.
    ///
    /// # Errors
    /// Returns the reason of the refusal, including [`MessageError::Replayed`].
    pub fn read_once(
        datagram: &[u8],
        secret: &NodeSecret,
        now_us: u64,
        replays: &mut Replays,
    ) -> Result<Verified<Self>, MessageError> {
        let verified = Self::read(datagram, secret, now_us)?;
        replays.note(datagram, verified.sent_us, now_us)?;
        Ok(verified)
    }
}

/// A fault that a drill injects or ends. Encoded as its index in [`NodeFault::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeFault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Hang,
    /// SIGCONT.
    Wake,
    /// Cuts the link: the agent forwards nothing and answers no probe.
    Cut,
    /// Restores the link.
    Heal,
}

impl NodeFault {
    /// In the order of their codes.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Hang, Self::Wake, Self::Cut, Self::Heal];

    /// The fault's name in the API: `kill`.
    pub fn name(self) -> &'static str {
        match self {
            NodeFault::Kill => "kill",
            NodeFault::Hang => "hang",
            NodeFault::Wake => "wake",
            NodeFault::Cut => "cut",
            NodeFault::Heal => "heal",
        }
    }
}

const OWNER: u8 = 1;
const STANDBY: u8 = 2;
const CLAIM: u8 = 3;

/// Encodes a hold until the next epoch, and a time that is longer or unknown.
pub(super) const OPEN_END: u32 = u32::MAX;

impl Vote {
    fn write(self, out: &mut Vec<u8>) {
        let (standing, hold, epoch, claim) = match self {
            Vote::Owner { epoch, hold: Hold::For(time) } => (OWNER, micros(time), epoch, 0),
            Vote::Owner { epoch, hold: Hold::Epoch } => (OWNER, OPEN_END, epoch, 0),
            Vote::Standby => (STANDBY, 0, 0, 0),
            Vote::Claim { base, claim } => (CLAIM, 0, base, claim),
        };
        out.extend_from_slice(&[standing, 0, 0, 0]);
        out.extend_from_slice(&hold.to_be_bytes());
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&claim.to_be_bytes());
    }

    fn read(body: &mut MessageBody<'_>) -> Result<Vote, MessageError> {
        let standing = body.u8()?;
        body.skip(3)?;
        let (hold, epoch, claim) = (body.u32()?, body.u64()?, body.u64()?);
        let hold = match hold {
            OPEN_END => Hold::Epoch,
            hold => Hold::For(Duration::from_micros(hold.into())),
        };
        match standing {
            OWNER => Ok(Vote::Owner { epoch, hold }),
            STANDBY => Ok(Vote::Standby),
            CLAIM => Ok(Vote::Claim { base: epoch, claim }),
            _ => Err(MessageError::Unknown),
        }
    }
}

pub(super) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(OPEN_END)
}
