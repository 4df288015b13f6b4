//! What is asked of a node, or told.

use super::signature::{Body, QUESTION, sign, verify, write_head, write_padding, write_tags};
use super::{
    BREAK, Break, CLOSE, DRAIN, KEEP, NOTICE, OPEN, PATH, PROBE, Refused, Replays, START, Secret,
    Verified,
};
use crate::trunk::Tag;

/// What is asked of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// Are you there, and how loaded?
    Probe,
    /// Open this session. Asking again changes nothing but the lease, which begins anew.
    Open {
        /// The room it belongs to.
        room: u64,
        /// The session's number at the gateway.
        session: u64,
        /// What names it on this leg from now on.
        tag: Tag,
        /// Seconds until the node may forget it unless asked again.
        lease_s: u16,
    },
    /// Close this session.
    Close {
        /// What names it.
        tag: Tag,
    },
    /// Take no new sessions from now on; those open stay.
    Drain,
    /// Keep these sessions open: their leases begin anew, and their packets go to where this came
    /// from. It opens none.
    Keep {
        /// Seconds until the node may forget them unless asked again.
        lease_s: u16,
        /// What names them; at least one, at most [`KEEP_MAX`](super::KEEP_MAX).
        tags: Box<[Tag]>,
    },
    /// The notice of this number arrived: no question, and nobody answers it.
    Noted {
        /// Which.
        number: u64,
    },
    /// Start the process beside you, if it does not run.
    Start,
    /// Break it, or mend it: a drill.
    Break(Break),
    /// Does a datagram of this length come to you, and one as long back?
    Path {
        /// Bundles that packets share on the way to where this came from are no longer from now on, bytes.
        bundle_max: u16,
        /// Bytes beside those that it has anyway, [`PATH_LEN_MIN`](super::PATH_LEN_MIN).
        padding: u16,
    },
}

impl Question {
    /// Appends the signed question to `out`.
    pub fn write(&self, secret: &Secret, nonce: u64, now_us: u64, out: &mut Vec<u8>) {
        let start = out.len();
        match *self {
            Self::Probe => {
                write_head(PROBE, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&[0; 16]);
            }
            Self::Open { room, session, tag, lease_s } => {
                write_head(OPEN, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&room.to_be_bytes());
                out.extend_from_slice(&session.to_be_bytes());
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
            }
            Self::Close { tag } => {
                write_head(CLOSE, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&tag.0.to_be_bytes());
                out.extend_from_slice(&[0; 8]);
            }
            Self::Drain => {
                write_head(DRAIN, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&[0; 16]);
            }
            Self::Keep { lease_s, ref tags } => {
                write_head(KEEP, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&lease_s.to_be_bytes());
                out.extend_from_slice(&[0; 6]);
                write_tags(tags, out);
            }
            Self::Noted { number } => {
                write_head(NOTICE, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&[0; 8]);
            }
            Self::Start => {
                write_head(START, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&[0; 16]);
            }
            Self::Break(how) => {
                write_head(BREAK, QUESTION, secret, nonce, now_us, out);
                out.push(how as u8);
                out.extend_from_slice(&[0; 15]);
            }
            Self::Path { bundle_max, padding } => {
                write_head(PATH, QUESTION, secret, nonce, now_us, out);
                out.extend_from_slice(&bundle_max.to_be_bytes());
                out.extend_from_slice(&[0; 14]);
                write_padding(padding, out);
            }
        }
        sign(secret, start, out);
    }

    /// Reads a question and checks its signature and time.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(datagram: &[u8], secret: &Secret, now_us: u64) -> Result<Verified<Self>, Refused> {
        let (kind, body, nonce, sent_us) = verify(datagram, QUESTION, secret, now_us)?;
        let mut body = Body(body);
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
                    return Err(Refused::Length);
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
                let how = body.one_of(&Break::ALL)?;
                body.skip::<15>()?;
                Self::Break(how)
            }
            PATH => Self::Path { bundle_max: body.u16()?, padding: body.padding(14)? },
            _ => return Err(Refused::Unknown),
        };
        body.finish()?;
        Ok(Verified { message, nonce, sent_us })
    }

    /// The same for a node, that believes each message once.
    ///
    /// # Errors
    /// Why it is not believed, [`Refused::Replayed`] among the reasons.
    pub fn read_once(
        datagram: &[u8],
        secret: &Secret,
        now_us: u64,
        replays: &mut Replays,
    ) -> Result<Verified<Self>, Refused> {
        let verified = Self::read(datagram, secret, now_us)?;
        replays.note(datagram, verified.sent_us, now_us)?;
        Ok(verified)
    }
}
