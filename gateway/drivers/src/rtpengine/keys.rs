//! Keys of SRTP between the gateway and rtpengine (SDES, RFC 4568).
//!
//! A call at rtpengine has the same sessions and the same keys from its start to its end. After each change of a room's sessions the
//! room is another call there, with other keys and ports, and the call before is deleted. So no index of a key is used twice,
//! and no session begins in the middle of a stream, where it would not know the rollover counter (RFC 3711, section 3.3.1).

use std::sync::Arc;

use evenkeel_media::srtp::{CryptoAttribute, SrtpKey, SrtpKeys, SrtpProfile};
use evenkeel_model::SessionId;
use evenkeel_process::random;
use serde::{Deserialize, Serialize};

use super::sdp;

/// The crypto suites of the two sides. If they were equal, rtpengine would give each side the key of the other, and pass packets unread.
const SUITES: [SrtpProfile; 2] = [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm];

/// The number of the only `a=crypto` line of the first side.
const FIRST_TAG: u32 = 1;

/// A call at rtpengine, and the keys of its sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CallKeys {
    pub(super) number: u64,
    gateway: [SrtpKey; 2],
    /// `None` before rtpengine has answered.
    node: [Option<SrtpKey>; 2],
    /// The number of the chosen `a=crypto` line that rtpengine offered the second side.
    second_tag: u32,
}

/// Why rtpengine's SDP was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyFault {
    /// It has no `a=crypto` line of this suite.
    NoKey(SrtpProfile),
    /// Its key is not that of the earlier answer.
    Changed,
}

impl CallKeys {
    /// A new call with new keys.
    fn draw() -> CallKeys {
        let gateway = SUITES.map(|suite| SrtpKey::generate(suite, random::fill));
        CallKeys { number: random::draw(), gateway, node: [None, None], second_tag: FIRST_TAG }
    }

    /// The `a=crypto` line of this side.
    pub(super) fn attribute(&self, side: usize) -> CryptoAttribute {
        let tag = if side == 0 { FIRST_TAG } else { self.second_tag };
        CryptoAttribute { tag, key: self.gateway[side].clone() }
    }

    /// Takes rtpengine's key towards this side from the SDP for it.
    pub(super) fn take(&mut self, side: usize, sdp: &str) -> Result<(), KeyFault> {
        let suite = SUITES[side];
        let offered = sdp::crypto(sdp).filter_map(|value| value.parse().ok());
        // Suites that the gateway does not know are skipped.
        let mut known = offered.filter(|it: &CryptoAttribute| it.key.profile() == suite);
        let CryptoAttribute { tag, key } = known.next().ok_or(KeyFault::NoKey(suite))?;
        match &self.node[side] {
            Some(known) if *known == key => {}
            Some(_) => return Err(KeyFault::Changed),
            None => self.node[side] = Some(key),
        }
        if side == 1 {
            self.second_tag = tag;
        }
        Ok(())
    }

    /// The keys of this side's leg, once rtpengine has answered.
    pub(super) fn of_leg(&self, side: usize) -> Option<Arc<SrtpKeys>> {
        let (client, gateway) = (self.node[side].clone()?, self.gateway[side].clone());
        Some(Arc::new(SrtpKeys { client, gateway, tag: None }))
    }
}

/// The calls at rtpengine of a room with SRTP.
#[derive(Default, Debug)]
pub(super) struct CallSrtp {
    /// The call that has the sessions' legs.
    open: Option<CallKeys>,
    /// The sessions of the open call.
    sessions: [Option<SessionId>; 2],
    /// The call of the exchange in progress: the open one, or its successor.
    signalled: Option<CallKeys>,
    /// The sessions are not those of the open call.
    is_stale: bool,
}

impl CallSrtp {
    /// Continues a call of another process.
    pub(super) fn restored(open: CallKeys, sessions: [Option<SessionId>; 2]) -> CallSrtp {
        CallSrtp { open: Some(open), sessions, signalled: None, is_stale: false }
    }

    /// Notes that the sessions changed, or that rtpengine lost its keys.
    pub(super) fn note_changed(&mut self) {
        self.is_stale = true;
    }

    /// Notes the sessions after a failed exchange. If they are those of the open call, no other call is needed.
    pub(super) fn note_sessions(&mut self, sessions: [Option<SessionId>; 2]) {
        self.is_stale &= self.sessions != sessions;
    }

    /// Begins an exchange: a refresh of the open call, or a new one.
    pub(super) fn begin(&mut self) {
        let open = self.open.as_ref().filter(|_| !self.is_stale);
        self.signalled = Some(open.cloned().unwrap_or_else(CallKeys::draw));
        self.is_stale = false;
    }

    pub(super) fn signalled(&mut self) -> Option<&mut CallKeys> {
        self.signalled.as_mut()
    }

    pub(super) fn open(&self) -> Option<&CallKeys> {
        self.open.as_ref()
    }

    /// The sessions have changed during a refresh. One that has come again would begin anew with used keys.
    pub(super) fn changed_during_refresh(&self) -> bool {
        let numbers = [&self.open, &self.signalled].map(|call| call.as_ref().map(|it| it.number));
        self.is_stale && numbers[0] == numbers[1]
    }

    /// The signalled call is open, with these sessions. Returns the number of the call before, which ends.
    pub(super) fn complete(&mut self, sessions: [Option<SessionId>; 2]) -> Option<u64> {
        let opened = self.signalled.take()?;
        self.sessions = sessions;
        let number = opened.number;
        self.open.replace(opened).map(|before| before.number).filter(|before| *before != number)
    }

    /// The exchange failed. Returns the number of a new call, which ends.
    pub(super) fn abort(&mut self) -> Option<u64> {
        let number = self.signalled.take()?.number;
        let is_new = self.open.as_ref().is_none_or(|open| open.number != number);
        self.is_stale |= is_new;
        is_new.then_some(number)
    }

    /// The room has no sessions any more. Returns the number of its call, which ends.
    pub(super) fn end(&mut self) -> Option<u64> {
        self.open.take().map(|open| open.number)
    }

    pub(super) fn record(&self) -> CallSrtpRecord {
        CallSrtpRecord {
            number: self.open.as_ref().map(|open| open.number),
            keys: self.open.clone(),
        }
    }
}

/// The call at rtpengine of a room with SRTP, as another process continues or ends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CallSrtpRecord {
    /// `None` if no session was open yet.
    pub(super) number: Option<u64>,
    /// `None` for a standby, which opens the sessions again.
    pub(super) keys: Option<CallKeys>,
}
