//! SRTP between the gateway and nodes: packets are plain RTP on all of the path but the session's legs.

use evenkeel_media::demux;
use evenkeel_media::srtp::SrtpError;
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, StreamKind};

use super::leg_srtp::LegContexts;
use super::srtp::{SessionSrtp, SrtpCounters, drop_reason};
use super::{NodeLeg, NodePort, PacketContext, WorkerSession};
use crate::worker::report::WorkerReport;
use crate::worker::sockets::RtpSide;

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
                Ok(()) => {
                    if side == RtpSide::Rtp {
                        leg.reused.end(packet);
                    }
                    Ok(())
                }
                // A client of plain RTP may send a packet twice, restart a stream, and have any number of streams in turn.
                Err(error @ (SrtpError::Reused | SrtpError::SourcesFull { .. })) => {
                    if side == RtpSide::Rtp && leg.reused.add(packet) {
                        cx.egress.report(WorkerReport::StreamRestarted { session, hop });
                    }
                    let is_reused = error == SrtpError::Reused;
                    Err(if is_reused { DropReason::Stale } else { drop_reason(error) })
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
