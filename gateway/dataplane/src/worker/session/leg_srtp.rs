//! SRTP between the gateway and nodes (RFC 3711): packets are plain RTP on all of the path but the session's legs.
//!
//! Numbers of packets to a node are those of the client, so a standby could not go on above them. The keys of a leg belong to one
//! process and the one that an upgrade starts: copies for a standby lack such legs, and after a takeover they are opened again,
//! with other keys.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::srtp::{SrtpError, SrtpKeys};
use evenkeel_media::{demux, rtp};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, StreamKind};

use super::srtp::{SessionSrtp, SrtpCounters, drop_reason};
use super::{NodeLeg, NodePort, PacketContext, WorkerSession};
use crate::worker::report::WorkerReport;
use crate::worker::sockets::RtpSide;

/// Refused packets in sequence after which a stream has begun again: 160 ms of voice. Packets that a client sends twice come among
/// new ones.
pub(super) const BEGUN_AGAIN: u8 = 8;

/// The contexts of the legs with SRTP. A copy of the state has none: keys come with the legs, and counters with
/// [`SessionState`](super::SessionState).
#[derive(Default, Debug)]
pub(super) struct LegSrtp(Vec<LegContexts>);

#[derive(Debug)]
struct LegContexts {
    hop: Hop,
    keys: Arc<SrtpKeys>,
    contexts: SessionSrtp,
    refused: RefusedRun,
}

/// Packets of a client, in sequence, with used indices.
#[derive(Default, Debug)]
struct RefusedRun {
    /// SSRC and sequence number of the last one.
    last: Option<(u32, u16)>,
    length: u8,
}

impl RefusedRun {
    /// Adds a packet. Returns whether its stream has begun again.
    #[cold]
    fn add(&mut self, packet: &[u8]) -> bool {
        let Some((ssrc, sequence)) = rtp::ssrc_and_sequence(packet) else { return false };
        let follows = self.last == Some((ssrc, sequence.wrapping_sub(1)));
        self.last = Some((ssrc, sequence));
        self.length = if follows { self.length % BEGUN_AGAIN + 1 } else { 1 };
        self.length == BEGUN_AGAIN
    }

    /// Ends the run if this packet of its stream was accepted.
    fn end(&mut self, packet: &[u8]) {
        let ssrc = rtp::ssrc_and_sequence(packet).map(|(ssrc, _)| ssrc);
        self.last.take_if(|(of, _)| Some(*of) == ssrc);
    }
}

impl Clone for LegSrtp {
    fn clone(&self) -> LegSrtp {
        LegSrtp::default()
    }
}

impl LegSrtp {
    /// Contexts that exist go on: under one key no index is used twice.
    fn set(&mut self, hop: Hop, keys: &Arc<SrtpKeys>) {
        if !self.0.iter().any(|leg| leg.hop == hop && leg.keys == *keys) {
            self.put(hop, keys, SessionSrtp::new(keys));
        }
    }

    fn put(&mut self, hop: Hop, keys: &Arc<SrtpKeys>, contexts: SessionSrtp) {
        self.forget(hop);
        let keys = Arc::clone(keys);
        self.0.push(LegContexts { hop, keys, contexts, refused: RefusedRun::default() });
    }

    fn forget(&mut self, hop: Hop) {
        self.0.retain(|leg| leg.hop != hop);
    }

    fn get_mut(&mut self, hop: Hop) -> Option<&mut LegContexts> {
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

impl WorkerSession {
    /// Returns whether the session has a leg with SRTP.
    pub(crate) fn has_srtp_legs(&self) -> bool {
        self.legs.iter().any(|(_, leg)| matches!(leg, NodeLeg::Srtp(_)))
    }

    #[cold]
    pub(super) fn set_leg_keys(&mut self, hop: Hop, leg: &NodeLeg) {
        match leg {
            NodeLeg::Srtp(leg) => self.state().leg_srtp.set(hop, &leg.keys),
            NodeLeg::Trunk(_) | NodeLeg::Port(_) => self.forget_leg_keys(hop),
        }
    }

    pub(super) fn forget_leg_keys(&mut self, hop: Hop) {
        if let Some(state) = &mut self.state {
            state.leg_srtp.forget(hop);
        }
    }

    /// Continues the session's legs with SRTP above these counters. `is_behind`: the process that they come from may have sent
    /// since.
    pub(super) fn continue_legs(&mut self, counters: &[(Hop, SrtpCounters)], is_behind: bool) {
        for (hop, leg) in self.legs.clone() {
            let NodeLeg::Srtp(leg) = leg else { continue };
            let mut contexts = SessionSrtp::new(&leg.keys);
            match counters.iter().find(|(of, _)| *of == hop) {
                Some((_, counters)) => contexts.go_on(counters, is_behind, None),
                None => contexts.await_counters(),
            }
            self.state().leg_srtp.put(hop, &leg.keys, contexts);
        }
    }

    /// Verifies and decrypts a packet of a node in place, if the leg has SRTP. Returns the plain packet.
    pub(crate) fn unprotect_from_node<'a>(
        &mut self,
        hop: Hop,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let has_srtp = |(at, leg): &(Hop, NodeLeg)| *at == hop && matches!(leg, NodeLeg::Srtp(_));
        if !self.legs.iter().any(has_srtp) {
            return Ok(packet);
        }
        let side = match demux::classify(packet) {
            demux::DatagramKind::Rtp => RtpSide::Rtp,
            demux::DatagramKind::Rtcp => RtpSide::Rtcp,
            _ => return Err(DropReason::Malformed),
        };
        let packet = self.leg_contexts(hop)?.contexts.unprotect(side, packet)?;
        self.uncopied = true;
        Ok(packet)
    }

    /// Encrypts a packet to a node and queues it there.
    pub(super) fn protect_to_node(
        &mut self,
        hop: Hop,
        port: NodePort,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if cx.egress.is_handed_out {
            return cx.egress.count_drop(DropReason::SrtpIndex);
        }
        // The next copy must have the counters.
        self.uncopied = true;
        let mut protected = std::mem::take(&mut cx.egress.protected);
        protected.clear();
        protected.extend_from_slice(packet);
        let (session, at) = (self.id, cx.egress.indices.view(cx.now));
        let done = self.leg_contexts(hop).and_then(|leg| {
            match leg.contexts.protect(side, &mut protected, at) {
                Ok(()) if side == RtpSide::Rtp && leg.refused.last.is_some() => {
                    leg.refused.end(packet);
                    Ok(())
                }
                Ok(()) => Ok(()),
                // A client of plain RTP may send a packet twice, and begin a stream again.
                Err(SrtpError::Reused) => {
                    if leg.refused.add(packet) {
                        cx.egress.report(WorkerReport::StreamBegunAgain { session, hop });
                    }
                    Err(DropReason::Stale)
                }
                Err(error) => Err(drop_reason(error)),
            }
        });
        match done {
            Ok(()) => self.queue_to_port(hop.node, port, side, kind, &protected, cx),
            Err(reason) => cx.egress.count_drop(reason),
        }
        cx.egress.protected = protected;
    }

    fn leg_contexts(&mut self, hop: Hop) -> Result<&mut LegContexts, DropReason> {
        let state = self.state.as_deref_mut();
        state.and_then(|state| state.leg_srtp.get_mut(hop)).ok_or(DropReason::SrtpNoKeys)
    }
}
