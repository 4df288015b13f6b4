//! The contexts of SRTP between the gateway and nodes (RFC 3711).
//!
//! Numbers of packets to a node are those of the client, so a standby could not go on above them. The keys of a leg belong to one
//! process and the one that an upgrade starts: copies for a standby lack such legs, and after a takeover they are opened again,
//! with other keys.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::rtp;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::Hop;

use super::srtp::{SessionSrtp, SrtpCounters};

/// Refused packets in sequence after which a stream has begun again: 160 ms of voice. Packets that a client sends twice come among
/// new ones.
pub(super) const BEGUN_AGAIN: u8 = 8;

/// The contexts of the legs with SRTP. A copy of the state has none: keys come with the legs, and counters with
/// [`SessionState`](super::SessionState).
#[derive(Default, Debug)]
pub(super) struct LegSrtp(Vec<LegContexts>);

#[derive(Debug)]
pub(super) struct LegContexts {
    hop: Hop,
    keys: Arc<SrtpKeys>,
    pub(super) contexts: SessionSrtp,
    pub(super) refused: RefusedRun,
}

/// Packets of a client, in sequence, with used indices.
#[derive(Default, Debug)]
pub(super) struct RefusedRun {
    /// SSRC and sequence number of the last one.
    last: Option<(u32, u16)>,
    length: u8,
}

impl RefusedRun {
    /// Adds a packet. Returns whether its stream has begun again.
    #[cold]
    pub(super) fn add(&mut self, packet: &[u8]) -> bool {
        let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(packet) else { return false };
        let follows = self.last == Some((ssrc, sequence.wrapping_sub(1)));
        self.last = Some((ssrc, sequence));
        self.length = if follows { self.length % BEGUN_AGAIN + 1 } else { 1 };
        self.length == BEGUN_AGAIN
    }

    /// Ends the run if this packet of its stream was accepted.
    pub(super) fn end(&mut self, packet: &[u8]) {
        let ssrc = |packet| rtp::ssrc_and_sequence(packet).map(|(ssrc, _)| ssrc);
        self.last.take_if(|(of, _)| ssrc(packet) == Some(*of));
    }
}

impl Clone for LegSrtp {
    fn clone(&self) -> LegSrtp {
        LegSrtp::default()
    }
}

impl LegSrtp {
    /// Contexts that exist go on: under one key no index is used twice.
    pub(super) fn set(&mut self, hop: Hop, keys: &Arc<SrtpKeys>) {
        if !self.0.iter().any(|leg| leg.hop == hop && leg.keys == *keys) {
            self.put(hop, keys, SessionSrtp::new(keys));
        }
    }

    pub(super) fn put(&mut self, hop: Hop, keys: &Arc<SrtpKeys>, contexts: SessionSrtp) {
        self.forget(hop);
        let keys = Arc::clone(keys);
        self.0.push(LegContexts { hop, keys, contexts, refused: RefusedRun::default() });
    }

    pub(super) fn forget(&mut self, hop: Hop) {
        self.0.retain(|leg| leg.hop != hop);
    }

    pub(super) fn get_mut(&mut self, hop: Hop) -> Option<&mut LegContexts> {
        self.0.iter_mut().find(|leg| leg.hop == hop)
    }

    /// The counters, for a process that continues once this one sends no more.
    pub(super) fn counters(&self) -> Vec<(Hop, SrtpCounters)> {
        self.0.iter().map(|leg| (leg.hop, leg.contexts.counters())).collect()
    }

    /// Begins to send. Returns false if indices that were used are unknown: the session ends.
    pub(super) fn begin_to_send(&mut self, now: Instant) -> bool {
        self.0.iter_mut().all(|leg| leg.contexts.begin_to_send(now))
    }
}
