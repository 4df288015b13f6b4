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

/// Refused packets in sequence that are a restart of their stream: 160 ms of voice. Packets that a client sends twice come among
/// new ones.
pub(super) const RESTART_PACKETS: u8 = 8;

/// Streams of a client that may restart together: voice, and video with the layers of simulcast and their repairs.
pub(super) const RUNS_MAX: usize = 8;

/// The contexts of the legs with SRTP. A copy of the state has none: keys come with the legs, and counters with
/// [`SessionState`](super::SessionState).
#[derive(Default, Debug)]
pub(super) struct LegSrtp(Vec<LegContexts>);

#[derive(Debug)]
pub(super) struct LegContexts {
    hop: Hop,
    keys: Arc<SrtpKeys>,
    pub(super) contexts: SessionSrtp,
    pub(super) reused: ReusedRuns,
}

/// The runs of a client's streams, by SSRC.
#[derive(Default, Debug)]
pub(super) struct ReusedRuns {
    runs: [ReusedRun; RUNS_MAX],
    /// The run that a new one replaces.
    oldest: usize,
}

/// Packets of a stream, in sequence, with used indices.
#[derive(Clone, Copy, Default, Debug)]
struct ReusedRun {
    ssrc: u32,
    /// Sequence number of the last packet.
    last: u16,
    /// 0: there is no run.
    length: u8,
}

impl ReusedRuns {
    /// Adds a packet. Returns whether its stream has restarted.
    #[cold]
    pub(super) fn add(&mut self, packet: &[u8]) -> bool {
        let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(packet) else { return false };
        let known = self.runs.iter().position(|run| run.length > 0 && run.ssrc == ssrc);
        let place = known.unwrap_or_else(|| {
            let place = self.oldest;
            self.oldest = (place + 1) % RUNS_MAX;
            place
        });
        let ReusedRun { last, length, .. } = self.runs[place];
        let follows = known.is_some() && last == sequence.wrapping_sub(1);
        let length = if follows { length % RESTART_PACKETS + 1 } else { 1 };
        self.runs[place] = ReusedRun { ssrc, last: sequence, length };
        length == RESTART_PACKETS
    }

    /// Ends the run of the stream of this packet, which was accepted.
    pub(super) fn end(&mut self, packet: &[u8]) {
        let Some((ssrc, _)) = rtp::ssrc_and_sequence(packet) else { return };
        let runs = self.runs.iter_mut().filter(|run| run.ssrc == ssrc);
        runs.for_each(|run| run.length = 0);
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
        self.0.push(LegContexts { hop, keys, contexts, reused: ReusedRuns::default() });
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
