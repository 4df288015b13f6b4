//! Messages to a node.

use super::signature::{
    MessageBody, QUESTION, SignedMessage, sign, verify, write_head, write_owner, write_padding,
    write_tags,
};
use super::{
    BREAK, CLOSE, DRAIN, KEEP, MessageError, NOTICE, NodeFault, NodeSecret, OPEN, PATH, PROBE,
    Replays, START, VOTE, Verified, vote,
};
use crate::trunk::{GroupOwner, Tag, Vote};

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
    },
    /// Ends a session.
    Close {
        /// Its tag.
        tag: Tag,
    },
    /// Makes the node refuse new sessions; open ones remain.
    Drain,
    /// Renews the leases of these sessions and directs their packets to the source of this message.
    /// Opens no session.
    Keep {
        /// Lease in seconds: the sessions expire unless renewed.
        lease_s: u16,
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
        match *self {
            Self::Probe | Self::Drain | Self::Start => out.extend_from_slice(&[0; 16]),
            Self::Open { room, session, tag, lease_s } => {
                out.extend_from_slice(&room.to_be_bytes());
                out.extend_from_slice(&session.to_be_bytes());
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
            }
            Self::Close { tag } => {
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&[0; 8]);
            }
            Self::Keep { lease_s, ref tags } => {
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
                write_tags(tags, out);
            }
            Self::Noted { number } => {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&[0; 8]);
            }
            Self::Break(how) => {
                out.push(how as u8);
                out.extend_from_slice(&[0; 15]);
            }
            Self::Path { bundle_max, padding } => {
                out.extend_from_slice(&bundle_max.to_be_bytes());
                out.extend_from_slice(&[0; 14]);
                write_padding(padding, out);
            }
            Self::Vote { group, vote } => vote::write(group, vote, out),
        }
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
        let SignedMessage { kind, owner, body, nonce, sent_us } =
            verify(datagram, QUESTION, secret, now_us)?;
        let mut body = MessageBody(body);
        let message = match kind {
            PROBE => {
                body.skip::<16>()?;
                Self::Probe
            }
            OPEN => {
                let (room, session, tag) = (body.u64()?, body.u64()?, Tag(body.u64()?));
                let lease_s = body.u16()?;
                body.skip::<6>()?;
                Self::Open { room, session, tag, lease_s }
            }
            CLOSE => {
                let tag = Tag(body.u64()?);
                body.skip::<8>()?;
                Self::Close { tag }
            }
            DRAIN => {
                body.skip::<16>()?;
                Self::Drain
            }
            KEEP => {
                let lease_s = body.u16()?;
                body.skip::<6>()?;
                let tags = body.tags()?;
                if tags.is_empty() {
                    return Err(MessageError::Length);
                }
                Self::Keep { lease_s, tags }
            }
            NOTICE => {
                let number = body.u64()?;
                body.skip::<8>()?;
                Self::Noted { number }
            }
            START => {
                body.skip::<16>()?;
                Self::Start
            }
            BREAK => {
                let how = body.one_of(&NodeFault::ALL)?;
                body.skip::<15>()?;
                Self::Break(how)
            }
            PATH => Self::Path { bundle_max: body.u16()?, padding: body.padding(14)? },
            VOTE => {
                let (group, vote) = vote::read(&mut body)?;
                Self::Vote { group, vote }
            }
            _ => return Err(MessageError::Unknown),
        };
        body.finish()?;
        Ok(Verified { message, nonce, owner, sent_us })
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
